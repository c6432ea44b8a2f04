"""From bytes to what a network takes."""

from typing import Self

import torch
from torch import Tensor


class Normalise:
    """uint8 images (N, H, W, channels) → float (N, channels, H, W) in channels_last memory, (x - mean) / std.

    Args:
        mean: of each channel, in pixel values from 0 to 255.
        std: of each channel, in the same units.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean.double(), std.double()
        self.scale, self.shift = 1 / self.std, -self.mean / self.std
        self._lines: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}

    @classmethod
    def by(cls, images: Tensor) -> Self:
        """By the mean and standard deviation of these uint8 images (N, H, W, channels).

        The sums are exact, so the result is that of the same images in any order. A channel that is constant
        is left at 0 and not blown up.
        """
        _, _, width, channels = images.shape
        sums, squares = torch.zeros(2, width * channels, dtype=torch.float64)
        # 256 lines at a time: as many of 255² add up to less than 2²⁴, up to where float32 counts exactly.
        for lines in images.view(-1, width * channels).split(256):
            values = lines.float()
            sums += values.sum(0)
            squares += values.square_().sum(0)
        pixels = images[..., 0].numel()
        mean, square = (total.view(width, channels).sum(0) / pixels for total in (sums, squares))
        variance = square - mean.square()
        return cls(mean, torch.where(variance > 1e-6, variance, 1.0).sqrt())

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise a batch."""
        count, height, width, channels = images.shape
        scale, shift = self._line(images.device, width)
        pixels = images.view(count, height, width * channels).float()
        torch.addcmul(shift, pixels, scale, out=pixels)
        return pixels.view(images.shape).permute(0, 3, 1, 2)

    def _line(self, device: torch.device, width: int) -> tuple[Tensor, Tensor]:
        """Scale and shift repeated along a line of an image: five times faster than in groups of three.

        Kept where they are used, since to copy them again with each batch would have a GPU wait.
        """
        if (device, width) not in self._lines:
            lines = (values.float().repeat(width).to(device) for values in (self.scale, self.shift))
            self._lines[device, width] = (next(lines), next(lines))
        return self._lines[device, width]

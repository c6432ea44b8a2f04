"""Crop, flip and cutout for a whole batch of uint8 images at once.

Batches in which every example is mixed with another.

Random views of a batch that the network is about to see, for losses that look at an example twice.

From bytes to what a network takes.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.data import random_keys
from losslab.data.batch import Batch
from losslab.errors import LabError
from losslab.targets import Kind, encode


class Augment:
    """Random crop, horizontal flip and cutout, batched: drawn for the global batch, applied to any part of it.

    Semantics are those of torchvision's RandomCrop(size, padding=crop), RandomHorizontalFlip() and of cutout
    (DeVries & Taylor 2017), but no image is touched by itself.

    Args:
        crop: pixels of padding around the image before a window of its own size is cut; 0 for none.
        flip: mirror left to right with probability 1/2.
        cutout: side of a grey square put over the image, its centre anywhere in it; 0 for none.
        reflect: pad with the image's own mirror image instead of black.
        alternate: mirror each image in every second epoch instead of at random: half of them in the even epochs, the
            other half in the odd ones, so that two epochs show both sides of each (Jordan 2024, arXiv 2404.00498).
            The plan, which knows the epoch, sees to it.
    """

    def __init__(
        self, crop: int = 0, *, flip: bool = False, cutout: int = 0, reflect: bool = False, alternate: bool = False
    ) -> None:
        if crop < 0 or cutout < 0:
            raise LabError(f"crop and cutout are pixels, 0 or more: got crop={crop}, cutout={cutout}")
        if alternate and not flip:
            raise LabError("to alternate is a way to flip: set flip=true too")
        self.crop, self.flip, self.cutout, self.reflect, self.alternate = crop, flip, cutout, reflect, alternate

    def draw(self, count: int, height: int, width: int, random: torch.Generator) -> Tensor:
        """What happens to each of `count` images → int64 (count, 5): window y and x, flipped, cutout's y and x."""
        if self.crop > max(height, width):
            raise LabError(f"crop={self.crop} leaves nothing of images of {height}×{width} pixels: lower data.crop")
        ends = (2 * self.crop + 1, 2 * self.crop + 1, 1 + self.flip, height, width)
        return torch.stack([torch.randint(end, (count,), generator=random) for end in ends], dim=1)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Augment uint8 images (N, H, W, channels) by the draws (N, 5), which lie on their device → the same shape."""
        if self.crop:
            padded = _reflected(images, self.crop) if self.reflect else F.pad(images, (0, 0, *(self.crop,) * 4))
            images = _windows(padded, images.shape, draws[:, 0], draws[:, 1])
        if self.flip:
            images = _mirrored(images, draws[:, 2])
        if self.cutout:
            images = _cut_out(images, self.cutout, draws[:, 3], draws[:, 4])
        return images


def _reflected(images: Tensor, padding: int) -> Tensor:
    if padding >= min(images.shape[1:3]):
        sides = "×".join(str(side) for side in images.shape[1:3])
        raise LabError(f"a crop that reflects must be smaller than the image: got {padding} for {sides} pixels")
    # By indices, since torch's own reflection takes no bytes.
    for axis in (1, 2):
        size = images.shape[axis]
        place = torch.arange(-padding, size + padding, device=images.device).abs()
        images = images.index_select(axis, torch.minimum(place, 2 * (size - 1) - place))
    return images


def _windows(padded: Tensor, shape: torch.Size, top: Tensor, left: Tensor) -> Tensor:
    count, height, width, channels = shape
    # A window is known by the byte it starts at. The view has one row for each byte, and index_select copies the rows
    # that are asked for line by line: ten times faster than an index for each image, row and column.
    image, line, pixel, _ = padded.stride()
    starts = max(0, padded.numel() - (height - 1) * line - width * channels + 1)  # 0 where a rank's share is empty
    views = padded.as_strided((starts, height, width * channels), (1, line, 1))
    chosen = torch.arange(count, device=padded.device) * image + top * line + left * pixel
    return views.index_select(0, chosen).view(shape)


def _mirrored(images: Tensor, flipped: Tensor) -> Tensor:
    # Both are made and one is picked, whole images at a time: `where` would look at every byte.
    both = torch.cat((images, images.flip(2)))
    count = len(images)
    return both.index_select(0, torch.arange(count, device=images.device) + count * flipped)


def _cut_out(images: Tensor, side: int, y: Tensor, x: Tensor) -> Tensor:
    def inside(size: int, centre: Tensor) -> Tensor:
        place = torch.arange(size, device=images.device)
        start = centre[:, None] - side // 2
        return (place >= start) & (place < start + side)

    square = inside(images.shape[1], y)[:, :, None] & inside(images.shape[2], x)[:, None, :]
    return images.masked_fill(square[..., None], _GREY)


_GREY = 127


class Mix:
    """Mixes a training batch by one of torchvision's transforms; targets become probabilities, the truth stays.

    Draws are keyed by (seed, epoch, batch) as all others are, and made for the global batch.

    Args:
        transform: torchvision.transforms.v2.MixUp or CutMix, which of an alpha makes a map from images (N, channels,
            height, width) and probabilities (N, C) to the same.
        alpha: of the Beta distribution that the share is drawn from.

    Raises:
        LabError: alpha is not above 0.
    """

    def __init__(self, transform: Callable[..., Any], alpha: float) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not alpha > 0:
            raise LabError(f"mix.alpha must be a number above 0, got {alpha!r}")
        self.transform = transform(alpha=alpha)

    def __call__(self, classes: int, seed: int, batch: Batch, epoch: int, number: int) -> Batch:
        """Mix batch `number` of an epoch, whose targets are indices (N,) or probabilities (N, C)."""
        spelt = encode_classes(classes, batch)
        if len(batch.truth) == 0:
            return spelt
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(random_keys.key(seed, random_keys.MIXING, epoch, number))
            inputs, target = self.transform(spelt.inputs, spelt.target)
        return spelt._replace(inputs=inputs, target=target)


def encode_classes(classes: int, batch: Batch, *_: int) -> Batch:
    """The same batch with its class indices as probabilities (N, C)."""
    if batch.target.is_floating_point():
        return batch
    return batch._replace(target=encode(batch.target, Kind.INDEX, Kind.PROBABILITIES, classes, torch.float32))


class RandomShift:
    """Move each image of a batch by up to some pixels, and mirror half of them, on the batch's own device.

    What enters at the sides is the image's mirror image. The draws are torch's own, which the learner seeds anew at
    each step: a resumed run meets the same views.

    Args:
        pixels: how far at most, up, down, left and right.
        flip: mirror left to right with probability 1/2; not for digits.
    """

    def __init__(self, pixels: int = 2, *, flip: bool = False) -> None:
        if pixels < 0:
            raise LabError(f"RandomShift: pixels must be 0 or more, got {pixels}")
        self.pixels, self.flip = pixels, flip

    def __call__(self, images: Tensor) -> Tensor:
        """Float images (N, channels, H, W) → the same shape, in channels-last memory.

        Raises:
            LabError: the inputs are no images, or smaller than the shift.
        """
        if images.ndim != 4 or self.pixels >= min(images.shape[2:]):
            raise LabError(
                f"RandomShift moves images (N, channels, H, W) of more than {self.pixels} pixels, got inputs "
                f"{tuple(images.shape)}: choose another view, or loss.view=null"
            )
        count, _, height, width = images.shape
        padded = F.pad(images, (self.pixels,) * 4, mode="reflect")
        top, left = torch.randint(2 * self.pixels + 1, (2, count, 1), device=images.device)
        rows = top + torch.arange(height, device=images.device)
        columns = left + torch.arange(width, device=images.device)
        if self.flip:
            mirrored = torch.rand(count, 1, device=images.device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        each = torch.arange(count, device=images.device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


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
    def from_images(cls, images: Tensor) -> Self:
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

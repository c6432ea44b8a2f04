"""Transforms of whole batches of images: augmentation, normalisation, MixUp, CutMix, and random shifts."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.data import random_keys
from losslab.data.batch import Batch
from losslab.errors import LabError
from losslab.targets import Kind, encode

_GREY = 127


class Augment:
    """Random crop, horizontal flip and cutout of a batch of uint8 images.

    The distribution is the same as with torchvision's RandomCrop(size, padding=crop) and RandomHorizontalFlip(),
    followed by cutout (DeVries & Taylor 2017). Parameters are drawn for the global batch; a rank applies its part.

    Args:
        crop: pixels of padding before a window of the original size is cut at random; 0 for no crop.
        flip: whether to mirror images left to right with probability 1/2.
        cutout: side in pixels of a grey square with its centre anywhere in the image; 0 for no cutout.
        reflect: whether to pad by reflection instead of with black.
        alternate: whether to mirror each image in every second epoch instead of at random: about half of the images in
            even epochs, the others in odd epochs (Jordan 2024, arXiv 2404.00498). `BatchPlan` implements this.
    """

    def __init__(
        self, crop: int = 0, *, flip: bool = False, cutout: int = 0, reflect: bool = False, alternate: bool = False
    ) -> None:
        if crop < 0 or cutout < 0:
            raise LabError(f"crop and cutout must be 0 or more pixels: got crop={crop}, cutout={cutout}")
        if alternate and not flip:
            raise LabError("alternate=true needs flip=true: set flip=true too")
        self.crop, self.flip, self.cutout, self.reflect, self.alternate = crop, flip, cutout, reflect, alternate

    def check(self, height: int, width: int) -> None:
        """Raise LabError if the crop or the cutout can replace an image of this size as a whole."""
        for name, pixels in (("crop", self.crop), ("cutout", self.cutout)):
            if pixels >= min(height, width):
                raise LabError(
                    f"data.{name}={pixels} can erase whole images of {height}×{width} pixels: set it to "
                    f"{min(height, width) - 1} or less"
                )

    def draw(self, count: int, height: int, width: int, random: torch.Generator) -> Tensor:
        """Draw parameters for `count` images → int64 (count, 5): window y and x, mirrored, cutout y and x."""
        self.check(height, width)
        ends = (2 * self.crop + 1, 2 * self.crop + 1, 1 + self.flip, height, width)
        return torch.stack([torch.randint(end, (count,), generator=random) for end in ends], dim=1)

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Augment uint8 images (N, H, W, channels) with `draws` (N, 5) on the same device → the same shape."""
        if self.crop:
            padded = _pad_reflect(images, self.crop) if self.reflect else F.pad(images, (0, 0, *(self.crop,) * 4))
            images = _crop(padded, images.shape, draws[:, 0], draws[:, 1])
        if self.flip:
            # index_select of whole images is faster than torch.where, which reads every byte of both versions.
            both, count = torch.cat((images, images.flip(2))), len(images)
            images = both.index_select(0, torch.arange(count, device=images.device) + count * draws[:, 2])
        if self.cutout:
            images = _cut_out(images, self.cutout, draws[:, 3], draws[:, 4])
        return images


def _pad_reflect(images: Tensor, padding: int) -> Tensor:
    for axis in (1, 2):  # by indices: F.pad(mode="reflect") does not support uint8
        size = images.shape[axis]
        source = torch.arange(-padding, size + padding, device=images.device).abs()
        images = images.index_select(axis, torch.minimum(source, 2 * (size - 1) - source))
    return images


def _crop(padded: Tensor, shape: torch.Size, top: Tensor, left: Tensor) -> Tensor:
    """Cut a window of this shape at (top, left) from each padded image."""
    count, height, width, channels = shape
    # `windows` is an overlapping view with one row per start byte. index_select copies the chosen rows line by line,
    # ten times as fast as advanced indexing by image, row and column.
    image, line, pixel, _ = padded.stride()
    starts = max(0, padded.numel() - (height - 1) * line - width * channels + 1)  # 0 if a rank's shard is empty
    windows = padded.as_strided((starts, height, width * channels), (1, line, 1))
    chosen = torch.arange(count, device=padded.device) * image + top * line + left * pixel
    return windows.index_select(0, chosen).view(shape)


def _cut_out(images: Tensor, side: int, y: Tensor, x: Tensor) -> Tensor:
    inside = []
    for size, centre in zip(images.shape[1:3], (y, x), strict=True):
        offset = torch.arange(size, device=images.device) - (centre[:, None] - side // 2)
        inside.append((offset >= 0) & (offset < side))
    return images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[..., None], _GREY)


def column_statistics(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, standard deviation and whether it is constant, for each column (...) of values (N, ...), in float64.

    A column is constant if its values differ by rounding only, as in scikit-learn. Its standard deviation is then 1.
    """
    eps = torch.finfo(values.dtype if values.is_floating_point() else torch.float64).eps
    values = values.double()
    mean, std = values.mean(0), values.std(0, correction=0)
    constant = (std <= 10 * eps * mean.abs()) | (values.amax(0) == values.amin(0))
    return mean, std.where(~constant, 1.0), constant


class Normalise:
    """(x - mean) / std: uint8 images (N, H, W, channels) → float (N, channels, H, W) in channels_last memory.

    `mean` and `std` (channels,) are on the scale of the pixels, 0 to 255.
    """

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        self.mean, self.std = mean.double(), std.double()
        self.scale, self.shift = 1 / self.std, -self.mean / self.std
        self._lines: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}

    @classmethod
    def from_images(cls, images: Tensor) -> Self:
        """Compute mean and std from uint8 images (N, H, W, channels).

        The sums are exact, so the order of the images does not matter. A constant channel is mapped to 0.
        """
        _, _, width, channels = images.shape
        sums, squares = torch.zeros(2, width * channels, dtype=torch.float64)
        # 256 lines at a time: 256 · 255² < 2²⁴, up to which float32 represents every integer.
        for lines in images.reshape(-1, width * channels).split(256):
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
        """Return scale and shift, repeated along an image line: five times as fast as broadcasting over 3 channels.

        Both are cached per device, because a copy for each batch would synchronise with the GPU.
        """
        if (device, width) not in self._lines:
            lines = (values.float().repeat(width).to(device) for values in (self.scale, self.shift))
            self._lines[device, width] = (next(lines), next(lines))
        return self._lines[device, width]


class Mix:
    """Mixes the examples of a training batch with torchvision's MixUp or CutMix.

    Targets become class probabilities; the truth does not change. Random draws are made for the global batch and
    depend on (seed, epoch, batch number) only.

    Args:
        transform: torchvision.transforms.v2.MixUp or CutMix, or another function of `alpha` that returns a transform of
            images (N, channels, height, width) and probabilities (N, C).
        alpha: parameter of the Beta distribution of the mixing ratio.
    """

    def __init__(self, transform: Callable[..., Any], alpha: float) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 1e-6 <= alpha <= 1e6:
            raise LabError(f"mix.alpha must be a number from 1e-6 to 1e6, got {alpha!r}")
        self.transform = transform(alpha=alpha)

    def __call__(self, classes: int, seed: int, batch: Batch, epoch: int, number: int) -> Batch:
        """Mix batch `number` of an epoch, whose targets are class indices (N,) or probabilities (N, C)."""
        encoded = encode_classes(classes, batch)
        if len(batch.truth) == 0:
            return encoded
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(random_keys.key(seed, random_keys.MIXING, epoch, number))
            inputs, target = self.transform(encoded.inputs, encoded.target)
        return encoded._replace(inputs=inputs, target=target)


def encode_classes(classes: int, batch: Batch, *_: int) -> Batch:
    """Encode the class indices of a batch as probabilities (N, C). Probabilities do not change."""
    if batch.target.is_floating_point():
        return batch
    return batch._replace(target=encode(batch.target, Kind.INDEX, Kind.PROBABILITIES, classes, torch.float32))


class RandomShift:
    """Shifts images by a random number of pixels, for losses that compare two views of an example.

    The border is filled by reflection. Random draws come from torch's global generator, which the learner seeds at each
    step, so a resumed run gets the same views.

    Args:
        pixels: largest shift up, down, left and right.
        flip: whether to mirror images left to right with probability 1/2; unsuitable for digits.
    """

    def __init__(self, pixels: int = 2, *, flip: bool = False) -> None:
        if pixels < 0:
            raise LabError(f"RandomShift: pixels must be 0 or more, got {pixels}")
        self.pixels, self.flip = pixels, flip

    def check(self, shape: Sequence[int]) -> None:
        """Raise LabError unless inputs of this shape are images (channels, H, W) that are larger than the shift."""
        if len(shape) != 3 or self.pixels >= min(shape[1:]):
            raise LabError(
                f"RandomShift needs images (channels, H, W) of more than {self.pixels} pixels a side, got inputs of "
                f"shape {tuple(shape)}: choose another view, or set loss.view=null"
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Shift float images (N, channels, H, W) → the same shape in channels_last memory."""
        self.check(images.shape[1:])
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

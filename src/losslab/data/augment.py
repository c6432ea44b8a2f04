"""Crop, flip and cutout for a whole batch of uint8 images at once."""

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.errors import LabError


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
            message = f"crop and cutout are pixels, 0 or more: got crop={crop}, cutout={cutout}"
            raise LabError(message)
        if alternate and not flip:
            message = "to alternate is a way to flip: set flip=true too"
            raise LabError(message)
        self.crop, self.flip, self.cutout, self.reflect, self.alternate = crop, flip, cutout, reflect, alternate

    def draw(self, count: int, height: int, width: int, random: torch.Generator) -> Tensor:
        """What happens to each of `count` images → int64 (count, 5): window y and x, flipped, cutout's y and x."""
        if self.crop > max(height, width):
            message = f"crop={self.crop} leaves nothing of images of {height}×{width} pixels: lower data.crop"
            raise LabError(message)
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
        message = f"a crop that reflects must be smaller than the image: got {padding} for {sides} pixels"
        raise LabError(message)
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

"""Random views of a batch that the network is about to see, for losses that look at an example twice."""

import torch
import torch.nn.functional as F
from torch import Tensor

from losslab.errors import LabError


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
            message = f"RandomShift: pixels must be 0 or more, got {pixels}"
            raise LabError(message)
        self.pixels, self.flip = pixels, flip

    def __call__(self, images: Tensor) -> Tensor:
        """Float images (N, channels, H, W) → the same shape, in channels-last memory.

        Raises:
            LabError: the inputs are no images, or smaller than the shift.
        """
        if images.ndim != 4 or self.pixels >= min(images.shape[2:]):
            message = (
                f"RandomShift moves images (N, channels, H, W) of more than {self.pixels} pixels, got inputs "
                f"{tuple(images.shape)}: choose another view, or loss.view=null"
            )
            raise LabError(message)
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

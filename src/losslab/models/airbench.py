"""The network of airbench94 (Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.models.cnn import images

WHITEN = 2
"""Side of the patches that the first layer whitens."""
MOMENTUM = 0.4
"""Of the running statistics: a run is a few hundred steps long, too short for torch's 0.1."""


class Airbench(nn.Module):
    """A whitening 2×2 convolution, three blocks of two 3×3 convolutions, and a linear layer.

    1,971,640 parameters for 3×32×32 inputs and 10 outputs.

    The first layer's weight does not learn: `losslab.training.callbacks.whitening.Whitening` computes it from the training
    images. While evaluating, the outputs of several views of an image are averaged.

    Args:
        input_shape: (channels, height, width) of an image.
        outputs: how many scores an image gets.
        widths: channels of the three blocks.
        mirror: evaluate the image and its mirror image.
        shift: evaluate it also moved by so many pixels, up-left and down-right, at half the weight; 0 for no.
        bias_scale: the batch normalisations' biases learn this many times faster than all else.
        output_scale: the linear layer's outputs are multiplied by it.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        widths: Sequence[int] = (64, 256, 256),
        *,
        mirror: bool = True,
        shift: int = 1,
        bias_scale: float = 64.0,
        output_scale: float = 1 / 9,
    ) -> None:
        super().__init__()
        channels, height, width = images("airbench", input_shape)
        sides = [(side - 1) // 2 ** len(widths) for side in (height, width)]
        if min(sides) < 1 or min(widths) < 1 or shift < 0 or bias_scale <= 0:
            raise LabError(
                f"airbench needs images of at least {2 ** len(widths) + 1} pixels a side, widths of 1 or more, "
                f"shift ≥ 0 and bias_scale > 0: got {height}×{width}, {list(widths)}, {shift} and {bias_scale}"
            )
        self.mirror, self.shift, self.output_scale = mirror, shift, output_scale
        patch = channels * WHITEN**2
        self.whiten = nn.Conv2d(channels, 2 * patch, WHITEN)
        self.whiten.weight.requires_grad = False
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]  # it has one
        self.blocks = nn.Sequential(*(_block(*pair, bias_scale) for pair in pairwise([2 * patch, *widths])))
        self.pool = nn.MaxPool2d((sides[0], sides[1]))
        self.linear = nn.Linear(widths[-1], outputs, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, channels, height, width) → (N, outputs)."""
        if self.training or not (self.mirror or self.shift):
            return self._scores(inputs)
        seen = _views(inputs, self.shift, mirror=self.mirror)
        # In one batch: a GPU takes six small ones hardly faster than six of this size.
        scores = self._scores(torch.cat(seen))
        # Six bfloat16 scores average to more places than one of them has, and classes seldom tie.
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        by_place = scores.view(3 if self.shift else 1, -1, len(inputs), scores.shape[1]).mean(1)
        if not self.shift:
            return by_place[0]
        still, up, down = by_place.unbind()
        return still / 2 + (up + down) / 4

    def _scores(self, inputs: Tensor) -> Tensor:
        features = self.pool(self.blocks(F.gelu(self.whiten(inputs))))
        scores: Tensor = self.linear(features.flatten(1)) * self.output_scale
        return scores


class QuickBias(nn.Module):
    """Adds a bias to each channel that SGD changes `scale` times faster, while weight decay treats it like any other.

    What is learnt is the bias divided by √scale: its gradient and its step both become √scale times larger. So the
    optimizer needs no groups of parameters, and any schedule fits.
    """

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.root = scale**0.5

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, channels, height, width) → the same shape and precision."""
        bias: Tensor = (self.root * self.bias).to(inputs.dtype)
        return inputs + bias[:, None, None]


def _block(before: int, width: int, bias_scale: float) -> nn.Sequential:
    return nn.Sequential(
        _convolution(before, width),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(width, momentum=MOMENTUM, affine=False),
        QuickBias(width, bias_scale),
        nn.GELU(),
        _convolution(width, width),
        nn.BatchNorm2d(width, momentum=MOMENTUM, affine=False),
        QuickBias(width, bias_scale),
        nn.GELU(),
    )


def _convolution(before: int, width: int) -> nn.Conv2d:
    layer = nn.Conv2d(before, width, 3, padding=1, bias=False)
    # The first output channels begin as copies of the input channels; the others as torch draws them.
    nn.init.dirac_(layer.weight.data[:before])
    return layer


def _views(inputs: Tensor, shift: int, *, mirror: bool) -> list[Tensor]:
    """The images (N, ...) as they are, moved up-left and moved down-right, each followed by its mirror image."""
    views = [inputs]
    if shift:
        height, width = inputs.shape[2:]
        padded = F.pad(inputs, (shift,) * 4, mode="reflect")
        views += [padded[..., start : start + height, start : start + width] for start in (0, 2 * shift)]
    return [view for one in views for view in ((one, one.flip(3)) if mirror else (one,))]

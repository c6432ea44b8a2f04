"""The network of airbench94 (Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.models.cnn import image_shape

_PATCH_SIZE = 2
"""Height and width in pixels of the patches that the first layer whitens."""
_MOMENTUM = 0.4
"""Momentum of batch normalisation. torch's default, 0.1, is too slow for runs of a few hundred steps."""


class Airbench(nn.Module):
    """A whitening 2×2 convolution, a block of two 3×3 convolutions for each of `widths`, and a linear layer.

    By default it has 1,971,640 parameters for 3×32×32 inputs and 10 outputs. The weight of the first layer is frozen;
    `losslab.training.callbacks.whitening.Whitening` computes it from the training images. In eval mode, the outputs are
    averaged over several views of an image (test-time augmentation).

    Args:
        input_shape: (channels, height, width) of the images.
        widths: number of channels in each block.
        mirror: whether the views in eval mode include mirror images.
        shift: pixels by which two more views in eval mode are shifted up-left and down-right; 0 for no shifted views.
            The shifted views have half of the weight.
        bias_scale: factor on the learning rate of the biases after batch normalisation.
        output_scale: factor on the outputs of the linear layer.
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
        channels, height, width = image_shape("airbench", input_shape)
        sides = [(side - 1) // 2 ** len(widths) for side in (height, width)]  # after the last block
        if not widths or min(*sides, *widths) < 1 or shift < 0 or bias_scale <= 0:
            raise LabError(
                f"airbench needs images of at least {2 ** len(widths) + 1} pixels a side, at least one width ≥ 1, "
                f"shift ≥ 0 and bias_scale > 0: got {height}×{width}, {list(widths)}, {shift} and {bias_scale}"
            )
        self.mirror, self.shift, self.output_scale = mirror, shift, output_scale
        patch = channels * _PATCH_SIZE**2
        self.whiten = nn.Conv2d(channels, 2 * patch, _PATCH_SIZE)
        self.whiten.weight.requires_grad = False
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]  # bias=True
        self.blocks = nn.Sequential(*(_block(*pair, bias_scale) for pair in pairwise([2 * patch, *widths])))
        self.pool = nn.MaxPool2d((sides[0], sides[1]))
        self.linear = nn.Linear(widths[-1], outputs, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs (N, outputs) for images (N, channels, height, width)."""
        if self.training or not (self.mirror or self.shift):
            return self._scores(inputs)
        # On a GPU, one batch of all views is faster than one batch for each view.
        scores = self._scores(torch.cat(_views(inputs, self.shift, mirror=self.mirror)))
        # In float32, because rounding the mean of six scores to bfloat16 could make scores of two classes equal.
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        by_shift = scores.view(3 if self.shift else 1, -1, len(inputs), scores.shape[1]).mean(1)
        if not self.shift:
            return by_shift[0]
        centred, up, down = by_shift.unbind()
        return centred / 2 + (up + down) / 4

    def _scores(self, inputs: Tensor) -> Tensor:
        features = self.pool(self.blocks(F.gelu(self.whiten(inputs))))
        scores: Tensor = self.linear(features.flatten(1)) * self.output_scale
        return scores


class ScaledBias(nn.Module):
    """Adds a bias per channel whose learning rate under SGD is `scale` times that of other parameters.

    The parameter is the bias divided by √scale, so its gradient and the effect of a step are both multiplied by √scale.
    The effect of weight decay does not change, and no parameter groups are needed.
    """

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.sqrt_scale = scale**0.5

    def forward(self, inputs: Tensor) -> Tensor:
        """Add the biases to inputs (N, channels, height, width), and keep their dtype."""
        bias: Tensor = (self.sqrt_scale * self.bias).to(inputs.dtype)
        return inputs + bias[:, None, None]


def _block(before: int, width: int, bias_scale: float) -> nn.Sequential:
    def activation() -> list[nn.Module]:
        return [nn.BatchNorm2d(width, momentum=_MOMENTUM, affine=False), ScaledBias(width, bias_scale), nn.GELU()]

    first = [_convolution(before, width), nn.MaxPool2d(2), *activation()]
    return nn.Sequential(*first, _convolution(width, width), *activation())


def _convolution(before: int, width: int) -> nn.Conv2d:
    layer = nn.Conv2d(before, width, 3, padding=1, bias=False)
    # The first output channels are initialised to copy the input channels, the others by torch's default.
    nn.init.dirac_(layer.weight.data[:before])
    return layer


def _views(inputs: Tensor, shift: int, *, mirror: bool) -> list[Tensor]:
    """Return the images (N, ...), then shifted up-left, then down-right, each followed by its mirror images."""
    views = [inputs]
    if shift:
        height, width = inputs.shape[2:]
        padded = F.pad(inputs, (shift,) * 4, mode="reflect")
        views += [padded[..., start : start + height, start : start + width] for start in (0, 2 * shift)]
    return [view for each in views for view in ((each, each.flip(3)) if mirror else (each,))]

"""A first layer that whitens, computed from the training images before the first step."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from losslab.errors import LabError
from losslab.models.learner import Learner


class Whitening(Callback):
    """Sets a convolution's weight so that its outputs are decorrelated and of equal variance over the training images.

    The weight holds the eigenvectors of the patches' covariance, each divided by √(eigenvalue + eps), and the same
    ones negated (Page 2018; Jordan 2024, arXiv 2404.00498). A run that starts from other weights (ckpt_path) is
    whitened for its own data too.

    Args:
        layer: name of a convolution in the network, with 2 · channels · height · width outputs and a weight that does
            not learn.
        count: how many training images are looked at, the first ones.
        eps: keeps directions that hardly vary from being blown up.
        bias_epochs: the layer's bias learns for so many epochs; then the backward pass no longer comes this far.
    """

    def __init__(self, layer: str = "whiten", count: int = 5_000, eps: float = 5e-4, bias_epochs: int = 3) -> None:
        self.layer, self.count, self.eps, self.bias_epochs = layer, count, eps, bias_epochs

    def on_fit_start(self, trainer: Trainer, pl_module: Learner) -> None:
        weight = self._layer(pl_module).weight
        data = trainer.datamodule  # type: ignore[attr-defined]
        source = data.splits["train"]
        images = source.take(torch.arange(min(self.count, source.size), device=source.device)).inputs
        computed = whitening(covariance(images, data.transform, weight.shape[2:]), self.eps)
        # From one process to all: the sign of an eigenvector is a matter of the processor that computed it.
        computed = trainer.strategy.broadcast(computed)
        with torch.no_grad():
            weight.copy_(computed.view_as(weight))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        bias = self._layer(pl_module).bias
        # With several processes its gradient goes on being computed: they wait for that of each parameter they know.
        if bias is not None and self._still(trainer) and trainer.world_size == 1:
            bias.requires_grad = False

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Learner, optimizer: Optimizer) -> None:
        bias = self._layer(pl_module).bias
        if bias is not None and self._still(trainer):
            bias.grad = None

    def _still(self, trainer: Trainer) -> bool:
        return trainer.current_epoch >= self.bias_epochs

    def _layer(self, learner: Learner) -> nn.Conv2d:
        layer = dict(learner.network.named_modules()).get(self.layer)
        if not isinstance(layer, nn.Conv2d) or layer.out_channels != 2 * layer.weight[0].numel():
            raise LabError(
                f"callbacks.whitening.layer={self.layer} names no convolution that can whiten in this network"
            )
        return layer


def covariance(images: Tensor, transform: Callable[[Tensor], Tensor] | None, window: Sequence[int]) -> Tensor:
    """The second moments of all patches of the images, in float64 → (D, D), D = channels · height · width.

    Args:
        images: as they lie in memory, uint8 (N, height, width, channels).
        transform: what the loader does to them → (N, channels, height, width).
        window: height and width of a patch.
    """
    total, seen = torch.zeros(()), 0
    for part in images.split(500):  # all at once would take most of a gigabyte
        inputs = transform(part) if transform is not None else part
        patches = F.unfold(inputs.double(), tuple(window)).transpose(1, 2).flatten(0, 1)
        total, seen = total.to(patches) + patches.T @ patches, seen + len(patches)
    return total.cpu() / seen


def whitening(moments: Tensor, eps: float) -> Tensor:
    """The whitening directions of second moments (D, D), largest variance first, then their opposites → (2 D, D)."""
    variances, directions = torch.linalg.eigh(moments)
    rows = (directions / (variances + eps).sqrt()).T.flip(0)
    return torch.cat([rows, -rows])

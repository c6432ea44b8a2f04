"""The callback that initialises the first layer of a network so that it whitens patches of the training images."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from losslab.errors import LabError
from losslab.models.learner import Learner


class Whitening(Callback):
    """Sets a convolution's weight so that half of its outputs are uncorrelated, with equal variance over the images.

    The filters are the eigenvectors of the patches' second moments, each divided by √(eigenvalue + eps), and the
    negatives of these (Page 2018; Jordan 2024, arXiv 2404.00498). A weight loaded with ckpt_path is replaced, too.

    Args:
        layer: the name of a convolution with a frozen weight, and with twice as many filters as a filter has elements.
        count: the number of training images to use, from the start of the split.
        eps: a constant added to each eigenvalue, so that directions of little variance are not amplified too much.
        bias_epochs: the number of epochs for which the layer's bias is trained. Afterwards backpropagation ends before
            this layer.
    """

    def __init__(self, layer: str = "whiten", count: int = 5_000, eps: float = 5e-4, bias_epochs: int = 3) -> None:
        self.layer, self.count, self.eps, self.bias_epochs = layer, count, eps, bias_epochs

    def on_fit_start(self, trainer: Trainer, pl_module: Learner) -> None:
        weight = self._find_layer(pl_module).weight
        data = trainer.datamodule  # type: ignore[attr-defined]
        source = data.splits["train"]
        images = source.take(torch.arange(min(self.count, source.size), device=source.device)).inputs
        filters = whitening(second_moments(images, data.transform, weight.shape[2:]), self.eps)
        # Broadcast from rank 0, because the sign of an eigenvector depends on the processor.
        filters = trainer.strategy.broadcast(filters)
        with torch.no_grad():
            weight.copy_(filters.view_as(weight))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        bias = self._find_layer(pl_module).bias
        # With several ranks the bias keeps its gradient, because DDP waits for the gradient of every parameter.
        if bias is not None and trainer.current_epoch >= self.bias_epochs and trainer.world_size == 1:
            bias.requires_grad = False

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Learner, optimizer: Optimizer) -> None:
        bias = self._find_layer(pl_module).bias
        if bias is not None and trainer.current_epoch >= self.bias_epochs:
            bias.grad = None

    def _find_layer(self, learner: Learner) -> nn.Conv2d:
        layer = dict(learner.network.named_modules()).get(self.layer)
        if not isinstance(layer, nn.Conv2d) or layer.out_channels != 2 * layer.weight[0].numel():
            raise LabError(
                f"callbacks.whitening.layer={self.layer} is not a convolution of this network with twice as many "
                "filters as a filter has elements: choose another layer, or another model"
            )
        return layer


def second_moments(images: Tensor, transform: Callable[[Tensor], Tensor] | None, window: Sequence[int]) -> Tensor:
    """Return the second moments of all patches, float64 (D, D), where D is channels · height · width of a patch.

    Args:
        images: the stored images, uint8 (N, height, width, channels).
        transform: the function of the loader that converts images to (N, channels, height, width); None if they are.
        window: the height and width of a patch.
    """
    total, count = torch.zeros(()), 0
    for chunk in images.split(500):  # all at once would take most of a gigabyte
        inputs = transform(chunk) if transform is not None else chunk
        patches = F.unfold(inputs.double(), tuple(window)).transpose(1, 2).flatten(0, 1)
        total, count = total.to(patches) + patches.T @ patches, count + len(patches)
    return total.cpu() / count


def whitening(moments: Tensor, eps: float) -> Tensor:
    """Return whitening filters (2 D, D) for second moments (D, D): D by decreasing variance, then their negatives."""
    variances, directions = torch.linalg.eigh(moments)
    rows = (directions / (variances + eps).sqrt()).T.flip(0)
    return torch.cat([rows, -rows])

"""Gradient norms for TensorBoard, and a word when they vanish or explode on their way through the network."""

import logging
import math
from dataclasses import dataclass

import torch
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from losslab.models.learner import Learner
from losslab.training.callbacks.async_copy import Later

logger = logging.getLogger(__name__)


class GradientNorms(Callback):
    """Logs grad_norm/total, weights/grad_norm/LAYER and the learning rate, every `trainer.log_every_n_steps` steps.

    Norms are those before clipping. Layers are compared by the root mean square of their gradient, so that a large
    layer does not look steep. A layer whose gradient is `ratio` times smaller (larger) than that of the last layer
    is named once as vanishing (exploding): a ratio between layers, since near the optimum all of them become small.

    Args:
        ratio: how many times smaller or larger counts as vanished or exploded.
    """

    def __init__(self, ratio: float = 1e4) -> None:
        self.ratio = ratio
        self._told: set[str] = set()
        self._asked: _Norms | None = None

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Learner, optimizer: Optimizer) -> None:
        self._report(trainer)
        step = trainer.global_step
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every == 0 or step % every:
            return
        with torch.no_grad():
            norms = layer_norms(pl_module.network)
        if not norms:
            return
        flat = torch.stack([norm for norm, _ in norms.values()])
        counts = {name: count for name, (_, count) in norms.items()}
        self._asked = _Norms(Later(flat), counts, step, optimizer.param_groups[0]["lr"])
        if flat.device.type != "cuda":
            self._report(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._report(trainer)

    def _report(self, trainer: Trainer) -> None:
        """Log what was asked for: at once, or of a GPU one step later."""
        asked, self._asked = self._asked, None
        if asked is None:
            return
        sizes = dict(zip(asked.counts, asked.values.read().tolist(), strict=True))
        if not all(math.isfinite(norm) for norm in sizes.values()):
            return  # under GradScaler that is a step to be skipped; otherwise the guard has the word
        # Not grad_norm/LAYER: TensorBoard's hparams page shows the first tags of the alphabet as results, and should
        # not show layers before it comes to test/accuracy.
        values = {f"weights/grad_norm/{name}": norm for name, norm in sizes.items()}
        values["grad_norm/total"] = sum(norm**2 for norm in sizes.values()) ** 0.5
        values["lr"] = asked.rate
        for writer in trainer.loggers:
            writer.log_metrics(values, asked.step)
        self._compare({name: norm / asked.counts[name] ** 0.5 for name, norm in sizes.items()}, asked.step)

    def _compare(self, steepness: dict[str, float], step: int) -> None:
        *earlier, last = steepness
        if steepness[last] == 0:
            return
        for layer in earlier:
            share = steepness[layer] / steepness[last]
            word = "vanish" if share < 1 / self.ratio else "explode" if share > self.ratio else None
            if word and f"{word} {layer}" not in self._told:
                self._told.add(f"{word} {layer}")
                logger.warning(
                    "gradients %s: at step %d the gradient of layer %s is %.1e times that of the last layer %s",
                    word, step + 1, layer, share, last,
                )  # fmt: skip


@dataclass
class _Norms:
    """The norms of a step, perhaps still on their way from the GPU, and what else is logged of it."""

    values: Later
    counts: dict[str, int]
    step: int
    rate: float


def layer_norms(network: nn.Module) -> dict[str, tuple[Tensor, int]]:
    """For each layer that has gradients, in the order of the network: their 2-norm () and how many they are."""
    layers: dict[str, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            layers.setdefault(name.rpartition(".")[0] or type(network).__name__.lower(), []).append(parameter.grad)
    return {
        name: (torch.nn.utils.get_total_norm(grads), sum(grad.numel() for grad in grads))
        for name, grads in layers.items()
    }

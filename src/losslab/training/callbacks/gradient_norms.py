"""Gradient norms for TensorBoard, and a warning when gradients vanish or explode between layers."""

import logging
import math

import torch
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from losslab.models.learner import Learner
from losslab.training.callbacks.async_copy import AsyncHostCopy

logger = logging.getLogger(__name__)


class GradientNorms(Callback):
    """Logs grad_norm/total, weights/grad_norm/LAYER and lr every `trainer.log_every_n_steps` steps.

    Norms are taken before clipping. The root mean square of a layer's gradient, which does not depend on the layer's
    size, is compared with that of the last layer, since near the optimum all gradients become small. The first time
    that the quotient is below 1 / `ratio` or above `ratio`, a warning reports the layer as vanishing or exploding.

    Args:
        ratio: the ratio between two layers that counts as vanished or exploded.
    """

    def __init__(self, ratio: float = 1e4) -> None:
        self.ratio = ratio
        self._warned: set[str] = set()
        self._pending: tuple[AsyncHostCopy, dict[str, int], int, float] | None = None
        """Norms of a step (possibly still being copied from a GPU), layer sizes, step, and learning rate."""

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
        stacked = torch.stack([norm for norm, _ in norms.values()])
        counts = {name: count for name, (_, count) in norms.items()}
        self._pending = AsyncHostCopy(stacked), counts, step, optimizer.param_groups[0]["lr"]
        if stacked.device.type != "cuda":
            self._report(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._report(trainer)

    def _report(self, trainer: Trainer) -> None:
        """Log the pending norms; on a GPU these are the norms of the previous step."""
        if self._pending is None:
            return
        (copied, counts, step, lr), self._pending = self._pending, None
        norms = dict(zip(counts, copied.read().tolist(), strict=True))
        if not all(map(math.isfinite, norms.values())):
            return  # GradScaler skips such a step; otherwise FiniteGuard reports it
        # Not grad_norm/LAYER: the hparams page of TensorBoard shows the alphabetically first tags as results, and
        # would show layers instead of test/accuracy.
        values = {f"weights/grad_norm/{name}": norm for name, norm in norms.items()}
        values["grad_norm/total"] = sum(norm**2 for norm in norms.values()) ** 0.5
        values["lr"] = lr
        for logger_ in trainer.loggers:
            logger_.log_metrics(values, step)
        self._compare({name: norm / counts[name] ** 0.5 for name, norm in norms.items()}, step)

    def _compare(self, rms: dict[str, float], step: int) -> None:
        *layers, last = rms
        if rms[last] == 0:
            return
        for layer in layers:
            ratio = rms[layer] / rms[last]
            verb = "vanish" if ratio < 1 / self.ratio else "explode" if ratio > self.ratio else None
            if verb and f"{verb} {layer}" not in self._warned:
                self._warned.add(f"{verb} {layer}")
                logger.warning(
                    "gradients %s: at step %d the gradient of layer %s is %.1e times that of the last layer %s",
                    verb, step + 1, layer, ratio, last,
                )  # fmt: skip


def layer_norms(network: nn.Module) -> dict[str, tuple[Tensor, int]]:
    """Return the 2-norm () of each layer's gradient and its number of elements, in the order of the network."""
    layers: dict[str, list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            layers.setdefault(name.rpartition(".")[0] or type(network).__name__.lower(), []).append(parameter.grad)
    return {
        name: (torch.nn.utils.get_total_norm(grads), sum(grad.numel() for grad in grads))
        for name, grads in layers.items()
    }

"""The callback that logs gradient norms and warns when gradients vanish or explode between layers."""

import logging
import math
from collections.abc import Iterable
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from losslab.models.learner import Learner
from losslab.models.optimizers import learning_rate

logger = logging.getLogger(__name__)


class GradientNorms(Callback):
    """Logs grad_norm/total, weights/grad_norm/LAYER and lr every `trainer.log_every_n_steps` steps.

    Norms are measured before clipping. The root mean square (RMS) of each layer's gradient is divided by that of the
    last layer, because near the optimum all gradients become small. If the quotient is below 1 / `ratio` or above
    `ratio`, a warning says that the gradients vanish or explode, once for each layer.
    """

    def __init__(self, ratio: float = 1e4) -> None:
        self.ratio = ratio
        self._warned: dict[str, str] = {}
        self._step = -1  # the number of the last step
        self._pending: tuple[AsyncHostCopy, dict[str, int], int, float] | None = None
        """The norms (layers,) of a step, the number of elements of each layer, the step, and the learning rate."""

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Learner, optimizer: Optimizer) -> None:
        step = trainer.global_step
        if step == self._step:
            return  # LBFGS, for example, evaluates the gradient several times in a step: the first one counts
        self._step = step
        self._report(trainer)
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every == 0 or step % every:
            return
        with torch.no_grad():
            norms = layer_norms(pl_module.network)
        if not norms:
            return
        stacked = torch.stack([norm for norm, _ in norms.values()])
        counts = {name: count for name, (_, count) in norms.items()}
        self._pending = AsyncHostCopy(stacked), counts, step, learning_rate(optimizer)
        if stacked.device.type != "cuda":
            self._report(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._report(trainer)

    def _report(self, trainer: Trainer) -> None:
        """Log the pending norms and compare the layers. On a GPU the norms are those of the previous logged step."""
        if self._pending is None:
            return
        (host_copy, counts, step, lr), self._pending = self._pending, None
        norms = dict(zip(counts, host_copy.read().tolist(), strict=True))
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
        """Warn about layers whose gradients vanish or explode; `rms` maps each layer to the RMS of its gradient."""
        *layers, last = rms
        if rms[last] == 0:
            return
        for layer in layers:
            ratio = rms[layer] / rms[last]
            if not 1 / self.ratio <= ratio <= self.ratio:
                warn_once(self._warned, layer, last, ratio, step)


def warn_once(warned: dict[str, str], layer: str, last: str, ratio: float, step: int, job: str = "") -> None:
    """Log that the gradients of a layer vanish or explode, and add this to `warned`, unless it contains it."""
    verb = "vanish" if ratio < 1 else "explode"
    if f"{verb} {layer}" not in warned:
        times = f"{ratio:.1e} times that of the last layer {last}"
        line = f"gradients {verb}: at step {step + 1} the gradient of layer {layer} is {times}"
        warned[f"{verb} {layer}"] = line
        logger.warning("%s%s", job, line)


def layer_norms(network: nn.Module) -> dict[str, tuple[Tensor, int]]:
    """Map each layer, in the order of the network, to the 2-norm (a scalar) and number of elements of its gradient."""
    layers = layer_gradients(network, network.named_parameters())
    return {
        name: (torch.nn.utils.get_total_norm(grads), sum(grad.numel() for grad in grads))
        for name, grads in layers.items()
    }


def layer_gradients(network: nn.Module, parameters: Iterable[tuple[str, Tensor]]) -> dict[str, list[Tensor]]:
    """Map each layer of a network to the gradients of its `parameters`, which are given with their names."""
    layers: dict[str, list[Tensor]] = {}
    for name, parameter in parameters:
        if parameter.grad is not None:
            layer = name.rpartition(".")[0] or type(network).__name__.lower()
            layers.setdefault(layer, []).append(parameter.grad)
    return layers


class AsyncHostCopy:
    """Copies a tensor (N,) to the host without blocking the host.

    Reading a number from a GPU waits for all operations queued before. Instead, the constructor queues a copy to pinned
    memory, which has usually completed one step later. On other devices the tensor is cloned. The caller may
    overwrite the tensor as soon as the constructor returns.
    """

    def __init__(self, values: Tensor) -> None:
        self._copy_done: Any = None
        if values.device.type == "cuda":
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._copy_done = torch.cuda.Event()
            self._copy_done.record()
        else:
            self._host = values.clone()

    def read(self) -> Tensor:
        """Return the values on the host. This waits until they are copied."""
        if self._copy_done is not None:
            self._copy_done.synchronize()  # waits only for the copy, not for work queued after it
        return self._host

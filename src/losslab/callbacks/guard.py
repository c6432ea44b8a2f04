"""Stop at the first loss, gradient or weight that is NaN or infinite, and say where it came from."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from losslab.data.batch import Batch
from losslab.errors import NonFiniteError
from losslab.learner import Learner

_WHAT = ("loss", "gradient", "weight")
_CURE = "lower optimizer.lr, clip with trainer.gradient_clip_val=1, or look at the data"


class FiniteGuard(Callback):
    """Ends the run with a NonFiniteError that names step, loss and layer.

    On the CPU at once, before the bad step reaches the weights; on a GPU, where asking at once would stall it, when
    the next step ends. Under 16-bit GradScaler infinite gradients are normal: such steps are skipped, not an error.
    """

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self._peaks: dict[str, Tensor] = {}
        self._asked: tuple[int, Tensor, Any] | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: Learner, batch: Batch, batch_idx: int) -> None:
        self._batch, self._peaks = batch, {}

    def on_before_backward(self, trainer: Trainer, pl_module: Learner, loss: Tensor) -> None:
        self._look(trainer, pl_module, "loss", loss.detach().abs())

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Learner, optimizer: Optimizer) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            self._look(trainer, pl_module, "gradient", _peak(p.grad for p in pl_module.parameters()))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: Learner,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        self._look(trainer, pl_module, "weight", _peak(p.detach() for p in pl_module.parameters()))
        if pl_module.device.type == "cuda":
            self._answer(trainer, pl_module)
            self._ask(trainer, pl_module.device)

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._answer(trainer, pl_module)
        self._batch, self._asked = None, None

    def _look(self, trainer: Trainer, module: Learner, what: str, peak: Tensor) -> None:
        if peak.device.type == "cuda":
            self._peaks[what] = peak
        elif not torch.isfinite(peak):
            # A weight is looked at after its step was counted, the others before.
            self._stop(module, what, trainer.global_step + (what != "weight"), trainer.current_epoch)

    def _ask(self, trainer: Trainer, device: torch.device) -> None:
        one = torch.ones((), device=device)
        flags = torch.stack([self._peaks.get(what, one).float().isfinite() for what in _WHAT])
        host = torch.empty(flags.shape, dtype=torch.bool, pin_memory=True)
        host.copy_(flags, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()
        self._asked = trainer.global_step, host, copied

    def _answer(self, trainer: Trainer, module: Learner) -> None:
        if self._asked is None:
            return
        step, host, copied = self._asked
        copied.synchronize()  # of the step before, whose work is long done: the device keeps running
        for what, finite in zip(_WHAT, host.tolist(), strict=True):
            if not finite:
                self._stop(module, what, step, trainer.current_epoch)

    def _stop(self, module: Learner, what: str, step: int, epoch: int) -> None:
        layer = culprit(module, what, self._batch)
        message = (
            f"step {step} (epoch {epoch + 1}): a {what} became NaN or infinite under {type(module.loss).__name__}, "
            f"first in {layer}: {_CURE}"
        )
        raise NonFiniteError(message)


def _peak(tensors: Iterable[Tensor | None]) -> Tensor:
    """The largest magnitude; NaN or infinite if any element is. Cannot overflow, as a 2-norm can."""
    return get_total_norm([tensor for tensor in tensors if tensor is not None], norm_type=torch.inf)


def culprit(module: Learner, what: str, batch: Batch | None) -> str:
    """Name the layer in which something non-finite is met first.

    For a gradient that is the layer nearest to the output, where backpropagation began to go wrong; for a weight the
    first layer that holds one; for a loss the first layer whose output is not finite, found by running it again.
    """
    bad_weights = [name for name, p in module.named_parameters() if not torch.isfinite(p).all()]
    if bad_weights and what != "gradient":
        return f"the weights of {_layer(bad_weights[0])}"
    if what == "gradient":
        grads = [(name, p.grad) for name, p in module.named_parameters() if p.grad is not None]
        bad = [name for name, grad in grads if not torch.isfinite(grad).all()]
        if bad:
            return f"the gradient of {_layer(bad[-1])}"
    if batch is not None:
        if not torch.isfinite(batch.inputs).all():
            return "the inputs of the batch"
        return _first_bad_output(module.network, batch.inputs) or "the loss itself: the network's outputs are finite"
    return "an unknown layer"


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter


def _first_bad_output(network: nn.Module, inputs: Tensor) -> str | None:
    met: list[str] = []

    def watch(name: str, layer: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                met.append(f"the output of {name} ({type(layer).__name__})")

        return layer.register_forward_hook(hook)

    leaves = [(name, layer) for name, layer in network.named_modules() if not list(layer.children())]
    handles = [watch(f"network.{name}".rstrip("."), layer) for name, layer in leaves]
    with torch.no_grad():
        network(inputs)
    for handle in handles:
        handle.remove()
    return met[0] if met else None

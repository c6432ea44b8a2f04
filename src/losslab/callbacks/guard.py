"""Stop at the first loss, gradient or weight that is NaN or infinite, and say where it came from."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from losslab.callbacks.later import Later
from losslab.data.batch import Batch
from losslab.errors import NonFiniteError
from losslab.learner import Learner, uncompiled

_CURE = "lower optimizer.lr, clip with trainer.gradient_clip_val=1, or look at the data"


class FiniteGuard(Callback):
    """Ends the run with a NonFiniteError that names step, loss and layer.

    On the CPU at once, before a bad step reaches the weights; on a GPU, where asking at once would stall it, when the
    next step ends. Under 16-bit GradScaler infinite gradients are normal: such steps are skipped, not an error.
    A validation or test loss is looked at when its split was measured.
    """

    def __init__(self) -> None:
        self._batch: Batch | None = None
        self._seen: dict[str, Tensor] = {}
        self._asked: _Question | None = None
        self._parameters: list[nn.Parameter] = []

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._parameters = list(pl_module.parameters())  # once: to walk the network costs more than to look at it

    def on_train_batch_start(self, trainer: Trainer, pl_module: Learner, batch: Batch, batch_idx: int) -> None:
        self._batch, self._seen = batch, {}

    def on_before_backward(self, trainer: Trainer, pl_module: Learner, loss: Tensor) -> None:
        if loss.device.type == "cuda":
            self._seen["loss"] = torch.isfinite(loss.detach()).reshape(1)
        elif not math.isfinite(loss.item()):
            _stop(trainer, pl_module, "loss", culprit(pl_module, "loss", self._batch))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Learner, optimizer: Optimizer) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            self._look(trainer, pl_module, "gradient", [p.grad for p in self._parameters if p.grad is not None])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:  # fmt: skip
        self._look(trainer, pl_module, "weight", [parameter.detach() for parameter in self._parameters])
        if self._seen:
            self._answer(trainer, pl_module)
            self._asked = _Question.of(self._seen, trainer.global_step)

    def on_validation_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._answer(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._answer(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._answer(trainer, pl_module)
        self._batch = None

    def on_validation_end(self, trainer: Trainer, pl_module: Learner) -> None:
        _check_split(trainer, pl_module, "val")

    def on_test_end(self, trainer: Trainer, pl_module: Learner) -> None:
        _check_split(trainer, pl_module, "test")

    def _look(self, trainer: Trainer, learner: Learner, what: str, tensors: list[Tensor]) -> None:
        if not tensors:
            return
        # What get_total_norm calls, at a quarter of its cost.
        if tensors[0].device.type == "cuda":
            # One flag a tensor, because when the answer is read the tensors will have been overwritten.
            peaks = torch._foreach_norm(tensors, torch.inf)  # noqa: SLF001
            self._seen[what] = torch.isfinite(torch.stack([peak.float() for peak in peaks]))
            return
        # Squares are summed in a fifth of the time in which the largest value is found. Their sum can overflow where
        # no value is infinite: then, and only then, the largest is looked at.
        for order in (2.0, torch.inf):
            norms = torch.stack(torch._foreach_norm(tensors, order))  # noqa: SLF001
            if math.isfinite(norms.max().item()):
                return
        _stop(trainer, learner, what, culprit(learner, what, self._batch))

    def _answer(self, trainer: Trainer, learner: Learner) -> None:
        question, self._asked = self._asked, None
        if question is None:
            return
        flags = question.answer()
        if all(map(all, flags.values())):
            return
        named = {"gradient": list(_gradients(learner)), "weight": [name for name, _ in learner.named_parameters()]}
        for what, finite in flags.items():
            bad = [index for index, good in enumerate(finite) if not good]
            if bad and what == "loss":
                _stop(trainer, learner, what, "the forward pass (trainer=cpu names the layer)", question.step)
            elif bad:
                name = named[what][bad[-1] if what == "gradient" else bad[0]]
                _stop(trainer, learner, what, f"the {what} of {_layer(name)}", question.step)


@dataclass
class _Question:
    """Flags on their way from the GPU: asked for at the end of a step, read at the end of the next."""

    sizes: dict[str, int]
    flags: Later
    step: int

    @classmethod
    def of(cls, seen: dict[str, Tensor], step: int) -> "_Question":
        return cls({what: len(part) for what, part in seen.items()}, Later(torch.cat(list(seen.values()))), step)

    def answer(self) -> dict[str, list[bool]]:
        parts = self.flags.read().split(list(self.sizes.values()))
        return {what: part.tolist() for what, part in zip(self.sizes, parts, strict=True)}


def culprit(learner: Learner, what: str, batch: Batch | None) -> str:
    """Name the layer in which something non-finite is met first.

    For a gradient that is the layer nearest to the output, where backpropagation began to go wrong; for a weight the
    first layer that holds one; for a loss the first layer whose output is not finite, found by running it again.
    """
    if what == "gradient":
        bad = [name for name, grad in _gradients(learner).items() if not torch.isfinite(grad).all()]
        return f"the gradient of {_layer(bad[-1])}"
    bad = [name for name, p in learner.named_parameters() if not torch.isfinite(p).all()]
    if bad:
        return f"the weights of {_layer(bad[0])}"
    if batch is not None and not torch.isfinite(batch.inputs).all():
        return "the inputs of the batch"
    if batch is not None and not torch.isfinite(batch.target).all():
        return "the targets of the batch"
    first = _first_bad_output(learner.network, batch.inputs) if batch is not None else None
    return first or "the loss itself, as the network's outputs are finite"


def _gradients(learner: Learner) -> dict[str, Tensor]:
    return {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter


def _stop(trainer: Trainer, learner: Learner, what: str, where: str, step: int | None = None) -> None:
    if step is None:
        # A weight is looked at after its step was counted, the others before.
        step = trainer.global_step + (what != "weight")
    message = (
        f"step {step} (epoch {trainer.current_epoch + 1}): a {what} became NaN or infinite under "
        f"{type(learner.loss).__name__}, first in {where}; {_CURE}"
    )
    raise NonFiniteError(message)


def _check_split(trainer: Trainer, learner: Learner, split: str) -> None:
    if not math.isfinite(learner.values.get(f"{split}/loss", 0.0)):
        message = (
            f"step {trainer.global_step} (epoch {trainer.current_epoch + 1}): {split}/loss is NaN or infinite under "
            f"{type(learner.loss).__name__}: look for such values in the {split} data"
        )
        raise NonFiniteError(message)


def _first_bad_output(network: nn.Module, inputs: Tensor) -> str | None:
    met: list[str] = []

    def watch(name: str, layer: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                met.append(f"the output of {name} ({type(layer).__name__})")

        return layer.register_forward_hook(hook)

    leaves = [(name, layer) for name, layer in network.named_modules() if not list(layer.children())]
    handles = [watch(f"network.{name}".rstrip("."), layer) for name, layer in leaves]
    with torch.no_grad(), uncompiled(network):
        network(inputs)
    for handle in handles:
        handle.remove()
    return met[0] if met else None

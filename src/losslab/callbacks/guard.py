"""Stop at the first loss, gradient or weight that is NaN or infinite, and say where it came from."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from losslab.callbacks.bad_batch import FirstBadBatch
from losslab.callbacks.culprit import culprit, layer, own_gradient, under
from losslab.callbacks.finding import Finding, Moment, gathered
from losslab.callbacks.later import Later
from losslab.data.batch import Batch
from losslab.errors import NonFiniteError
from losslab.learner import Learner


class FiniteGuard(Callback):
    """Ends the run with a NonFiniteError that names step, batch, loss and layer, and of several processes which.

    On the CPU at once, before a bad step reaches the weights; on a GPU, where asking at once would stall it, when the
    next step ends. Under 16-bit GradScaler infinite gradients are normal: such steps are skipped, not an error.
    A validation or test loss is looked at when its split was measured.

    One of several processes that found something cannot end alone: the others would wait for its share of a sum. It
    goes on to the end of the batch, where all hear of it and end with the same error.
    """

    def __init__(self) -> None:
        self.asks_later = False
        """Whether a flag is read one step after it was asked for, as on GPUs."""
        self._world = 1
        self._batch: Batch | None = None
        self._number = 0
        self._seen: dict[str, Tensor] = {}
        self._asked: _Question | None = None
        self._found: Finding | None = None
        self._parameters: list[nn.Parameter] = []
        self._validation, self._test = FirstBadBatch("val"), FirstBadBatch("test")

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._parameters = list(pl_module.parameters())  # once: to walk the network costs more than to look at it
        self.asks_later = self.asks_later or pl_module.device.type == "cuda"
        self._world = trainer.world_size
        self._found = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: Learner, batch: Batch, batch_idx: int) -> None:
        self._batch, self._number, self._seen = batch, batch_idx, {}

    def on_before_backward(self, trainer: Trainer, pl_module: Learner, loss: Tensor) -> None:
        if self.asks_later:
            self._seen["loss"] = torch.isfinite(loss.detach()).reshape(1)
        elif not math.isfinite(loss.item()):
            self._meet(trainer, pl_module, "loss", culprit(pl_module, "loss", self._batch))

    def on_after_backward(self, trainer: Trainer, pl_module: Learner) -> None:
        # The gradient of a batch that is accumulated is this process's own: once summed, it would be anyone's.
        if self._world > 1 and not self.asks_later and trainer.fit_loop._should_accumulate():  # noqa: SLF001
            self._look_at_gradients(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Learner, optimizer: Optimizer) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            self._look_at_gradients(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:  # fmt: skip
        if not self._finite("weight", [parameter.detach() for parameter in self._parameters]):
            self._meet(trainer, pl_module, "weight", culprit(pl_module, "weight", batch))
        if self._seen:
            self._answer(pl_module)
            self._asked = _Question.of(self._seen, _moment(trainer, "weight", batch_idx), self._world)
        elif self._world > 1:
            anywhere = torch.tensor([self._found is not None], dtype=torch.int32)
            distributed.all_reduce(anywhere, distributed.ReduceOp.MAX)
            if anywhere.item():
                self._stop()

    def on_validation_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._answer(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._answer(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._answer(pl_module)
        self._batch = None

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:  # fmt: skip
        self._validation.look(trainer, pl_module, batch, batch_idx, later=self.asks_later)

    def on_validation_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._validation.check(trainer, pl_module)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:  # fmt: skip
        self._test.look(trainer, pl_module, batch, batch_idx, later=self.asks_later)

    def on_test_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._test.check(trainer, pl_module)

    def _look_at_gradients(self, trainer: Trainer, learner: Learner) -> None:
        if self._finite("gradient", [p.grad for p in self._parameters if p.grad is not None]):
            return
        where, shared = culprit(learner, "gradient", self._batch), False
        if self._found is None and self._world > 1 and not trainer.fit_loop._should_accumulate():  # noqa: SLF001
            assert self._batch is not None  # noqa: S101 -- for the type checker
            own = own_gradient(trainer, learner, self._batch, self._number)
            where, shared = own or where, own is None
        self._meet(trainer, learner, "gradient", where, shared=shared)
        for parameter in self._parameters:
            parameter.grad = None  # the batch is finished, but nothing is learnt from it

    def _finite(self, what: str, tensors: list[Tensor]) -> bool:
        """Whether they are; True also where that is only asked now."""
        if not tensors:
            return True
        # What get_total_norm calls, at a quarter of its cost.
        if self.asks_later:
            # One flag a tensor, because when the answer is read the tensors will have been overwritten.
            peaks = torch._foreach_norm(tensors, torch.inf)  # noqa: SLF001
            self._seen[what] = torch.isfinite(torch.stack([peak.float() for peak in peaks]))
            return True
        # Squares are summed in a fifth of the time in which the largest value is found. Their sum can overflow where
        # no value is infinite: then, and only then, the largest is looked at.
        for order in (2.0, torch.inf):
            norms = torch.stack(torch._foreach_norm(tensors, order))  # noqa: SLF001
            if math.isfinite(norms.max().item()):
                return True
        return False

    def _meet(self, trainer: Trainer, learner: Learner, what: str, where: str, *, shared: bool = False) -> None:
        """Remember what was found first; who is alone need not wait for the end of the batch."""
        moment = _moment(trainer, what, self._number)
        self._found = self._found or Finding(what, where, _named(learner, what), moment, shared=shared)
        if self._world == 1:
            raise NonFiniteError(str(self._found))

    def _stop(self) -> None:
        """All processes end here, with one message."""
        error = NonFiniteError(str(gathered(self._found) if self._world > 1 else self._found))
        error.everywhere = True
        raise error

    def _answer(self, learner: Learner) -> None:
        question, self._asked = self._asked, None
        if question is None:
            return
        flags = question.answer()
        if all(map(all, flags.values())):
            return
        named = list(learner.named_parameters())
        names = {"weight": [name for name, _ in named], "gradient": [name for name, p in named if p.grad is not None]}
        for what, finite in flags.items():
            bad = [index for index, good in enumerate(finite) if not good]
            if not bad or what == "anywhere" or self._found is not None:
                continue
            where = "the forward pass (trainer=cpu names the layer)"
            if what != "loss":
                where = f"the {what} of {layer(names[what][bad[-1] if what == 'gradient' else bad[0]])}"
            shared = what == "gradient" and self._world > 1
            self._found = Finding(what, where, _named(learner, what), question.moment, shared=shared)
        self._stop()


@dataclass
class _Question:
    """Flags on their way from the GPU: asked for at the end of a step, read at the end of the next."""

    sizes: dict[str, int]
    flags: Later
    moment: Moment

    @classmethod
    def of(cls, seen: dict[str, Tensor], moment: Moment, world: int) -> "_Question":
        if world > 1:
            anywhere = torch.cat(list(seen.values())).all().int().reshape(1)
            distributed.all_reduce(anywhere, distributed.ReduceOp.MIN)
            seen = seen | {"anywhere": anywhere.bool()}
        return cls({what: len(part) for what, part in seen.items()}, Later(torch.cat(list(seen.values()))), moment)

    def answer(self) -> dict[str, list[bool]]:
        parts = self.flags.read().split(list(self.sizes.values()))
        return {what: part.tolist() for what, part in zip(self.sizes, parts, strict=True)}


def _moment(trainer: Trainer, what: str, batch_idx: int) -> Moment:
    # A weight is looked at after its step was counted, the others before.
    return Moment(trainer.global_step + (what != "weight"), trainer.current_epoch + 1, batch_idx + 1)


def _named(learner: Learner, what: str) -> str:
    return under(learner) if what == "loss" else type(learner.loss).__name__

"""Where in a network, a batch or a loss something is met first that is NaN or infinite.

A number that is NaN or infinite: what is said of it, and which of several processes' is the cause.

Which batch of validation or test gave the first loss that is NaN or infinite, and in which process.

Stop at the first loss, gradient or weight that is NaN or infinite, and say where it came from.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from losslab.data.batch import Batch
from losslab.errors import NonFiniteError
from losslab.models.learner import Learner, uncompiled
from losslab.targets import encode
from losslab.training.callbacks.async_copy import Later


def culprit(learner: Learner, what: str, batch: Batch | None) -> str:
    """Name the layer in which something non-finite is met first.

    For a gradient that is the layer nearest to the output, where backpropagation began to go wrong; for a weight the
    first layer that holds one; for a loss the first layer whose output is not finite, found by running it again.
    """
    if what == "gradient":
        return _first_bad_gradient({name: p.grad for name, p in learner.named_parameters()}) or "no gradient"
    bad = [name for name, p in learner.named_parameters() if not torch.isfinite(p).all()]
    if bad:
        return f"the weights of {layer(bad[0])}"
    if batch is None:
        return "a batch that is not known"
    for name, values in (("inputs", batch.inputs), ("targets", batch.target)):
        wrong = ~torch.isfinite(values).flatten(1).all(1) if values.ndim > 1 else ~torch.isfinite(values)
        if wrong.any():
            return f"the {name} of the batch ({_named_example(batch.index[wrong])})"
    where = _first_bad_output(learner.network, batch.inputs)
    return where or f"the loss itself, as the network's outputs are finite{_bad_scores(learner, batch)}"


def under(learner: Learner, split: str = "train") -> str:
    """The loss; of a sum also its terms whose sums over the split so far are not finite."""
    averages, name = learner.averages[split], type(learner.loss).__name__
    terms = [term for term in learner.loss.term_names if not torch.isfinite(averages[f"loss/{term}"].total)]
    return f"{name} (its term{'s' * (len(terms) > 1)} {', '.join(terms)})" if terms else name


def own_gradient(trainer: Trainer, learner: Learner, batch: Batch, number: int) -> str | None:
    """Where the gradient of this process's share of a batch, computed again without the others', is not finite."""
    learner.on_train_batch_start(batch, number)  # the same dropout
    with torch.enable_grad(), trainer.precision_plugin.train_step_context():
        loss = learner.training_step(batch, number)
    parameters = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return _first_bad_gradient(dict(zip(parameters, gradients, strict=True)))


def layer(parameter: str) -> str:
    """The name of the layer that a parameter is of."""
    return parameter.rpartition(".")[0] or parameter


def _first_bad_gradient(gradients: Mapping[str, Tensor | None]) -> str | None:
    bad = [name for name, grad in gradients.items() if grad is not None and not torch.isfinite(grad).all()]
    return f"the gradient of {layer(bad[-1])}" if bad else None


def _named_example(index: Tensor) -> str:
    rest = f" and {len(index) - 5} more" if len(index) > 5 else ""
    return f"example{'s' * (len(index) > 1)} {', '.join(map(str, index[:5].tolist()))}{rest}"


def _bad_scores(learner: Learner, batch: Batch) -> str:
    with torch.no_grad(), uncompiled(learner.network):
        outputs = learner(batch.inputs)
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        target = encode(batch.target, learner.facts.kind, learner.kind, learner.facts.targets, dtype)
        scores = learner.loss.per_example(learner.loss.loss_inputs(outputs, batch.inputs, learner.network), target)
    wrong = ~torch.isfinite(scores)
    return f" ({_named_example(batch.index[wrong])})" if wrong.any() else ""


def _first_bad_output(network: nn.Module, inputs: Tensor) -> str | None:
    met: list[str] = []

    def watch(name: str, part: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                met.append(f"the output of {name} ({type(part).__name__})")

        return part.register_forward_hook(hook)

    leaves = [(name, part) for name, part in network.named_modules() if not list(part.children())]
    handles = [watch(f"network.{name}".rstrip("."), part) for name, part in leaves]
    with torch.no_grad(), uncompiled(network):
        network(inputs)
    for handle in handles:
        handle.remove()
    return met[0] if met else None


_CURE = "lower optimizer.lr, clip with trainer.gradient_clip_val=1, or look at the data"


@dataclass(frozen=True)
class Moment:
    """When it was: all count from 1."""

    step: int
    epoch: int
    batch: int


@dataclass(frozen=True)
class Finding:
    """A loss, gradient or weight that is NaN or infinite, and where it is met first."""

    what: str
    where: str
    under: str
    """The loss, and of a sum its terms that are not finite."""
    moment: Moment
    rank: str = ""
    """The process; empty where there is but one."""
    shared: bool = False
    """Whether the processes have summed it, and this one has added nothing that is not finite."""

    def __str__(self) -> str:
        when = f"step {self.moment.step} (epoch {self.moment.epoch}, batch {self.moment.batch}{self.rank})"
        return f"{when}: a {self.what} became NaN or infinite under {self.under}, first in {self.where}; {_CURE}"


def cause(findings: Sequence[Finding | None]) -> Finding | None:
    """What to name of the findings of all processes, by rank: one that is a process's own, before a sum's."""
    named = [replace(found, rank=f", rank {rank}") for rank, found in enumerate(findings) if found is not None]
    own = [found for found in named if not found.shared]
    if own or len(named) < len(findings):  # a sum that is not the same everywhere went wrong where it was found
        return next(iter(own or named), None)
    return replace(named[0], rank=", every rank")


def gathered(mine: Finding | None) -> Finding | None:
    """The cause among the findings of all processes, on each of them. All must call it."""
    findings: list[Finding | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(findings, mine)
    return cause(findings)


class FirstBadBatch:
    """Watches the sum of a split's losses grow, and says afterwards which batch made it NaN or infinite.

    Nothing is learnt meanwhile: it is enough to say so once the split was measured, in all processes at once.

    Args:
        split: "val" or "test".
    """

    def __init__(self, split: str) -> None:
        self.split = split
        self._found: Finding | None = None
        self._finite: list[Tensor] = []

    def look(self, trainer: Trainer, learner: Learner, batch: Batch, number: int, *, later: bool) -> None:
        """After a batch. Where reading a flag means waiting for a GPU, it is read `later`, with all the others."""
        total = learner.averages[self.split]["loss"].total
        if later:
            self._finite.append(torch.isfinite(total))
        elif self._found is None and not math.isfinite(total.item()):
            self._found = self._finding(trainer, learner, number, culprit(learner, "loss", batch))

    def check(self, trainer: Trainer, learner: Learner) -> None:
        """After the split.

        Raises:
            NonFiniteError: its loss is NaN or infinite.
        """
        found, flags = self._found, self._finite
        self._found, self._finite = None, []
        if math.isfinite(learner.values.get(f"{self.split}/loss", 0.0)):
            return
        if flags and not (finite := torch.stack(flags)).all():
            where = "the forward pass (trainer=cpu names the layer)"
            found = self._finding(trainer, learner, int((~finite).int().argmax()), where)
        if trainer.world_size > 1:
            found = gathered(found)
        error = NonFiniteError(str(found or self._nothing_found(trainer, learner)))
        error.on_all_ranks = True  # the processes have summed it
        raise error

    def _finding(self, trainer: Trainer, learner: Learner, number: int, where: str) -> Finding:
        epoch = trainer.current_epoch + (self.split == "val")  # testing comes after the last
        moment = Moment(trainer.global_step, epoch, number + 1)
        return Finding(f"{self.split}/loss", where, under(learner, self.split), moment)

    def _nothing_found(self, trainer: Trainer, learner: Learner) -> str:
        return (
            f"step {trainer.global_step} (epoch {trainer.current_epoch + 1}): {self.split}/loss is NaN or infinite "
            f"under {type(learner.loss).__name__} though each batch's sum is finite: does it weigh any example?"
        )


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
        error.on_all_ranks = True
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

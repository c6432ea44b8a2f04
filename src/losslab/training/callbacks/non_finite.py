"""The callback that stops a run at the first NaN or infinite loss, gradient or weight, and reports its origin."""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import torch
from lightning import Callback, Trainer
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from losslab.data.batch import Batch
from losslab.doctor.probe import uncompiled
from losslab.errors import NonFiniteError
from losslab.losses.base import Loss
from losslab.models.learner import Learner
from losslab.training.callbacks.gradient_norms import AsyncHostCopy

_UNKNOWN_LAYER = "the forward pass (run with trainer=cpu to find the layer)"
_Position = tuple[int, int, int]
"""The numbers of step, epoch and batch, each counted from 1."""


class FiniteGuard(Callback):
    """Ends the run with a NonFiniteError that names step, batch, rank, loss and layer.

    On a CPU the error is raised at once, before a bad step changes the weights. On a GPU it is raised at the end of the
    next step, because reading a result earlier would wait for the GPU. With a GradScaler (16-mixed), gradients are not
    checked: infinite gradients are normal, and the scaler skips such steps. Validation and test losses are checked at
    the end of the split.

    One of several ranks cannot end alone, because the others would wait for it in a collective. Therefore it continues
    to the end of the batch, where all ranks exchange their findings and raise the same error.
    """

    def __init__(self) -> None:
        self.deferred = False
        """Whether the results of the checks are read one step later, as on GPUs."""
        self._world_size = 1
        self._batch: Batch | None = None
        self._batch_idx = 0
        self._flags: dict[str, Tensor] = {}
        self._pending: _PendingFlags | None = None
        self._finding: Finding | None = None
        self._parameters: list[nn.Parameter] = []
        self._evaluations = {split: EvaluationGuard(split) for split in ("val", "test")}

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._parameters = list(pl_module.parameters())  # once: iterating over the modules costs more than the check
        self.deferred = self.deferred or pl_module.device.type == "cuda"
        self._world_size = trainer.world_size
        self._finding = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: Learner, batch: Batch, batch_idx: int) -> None:
        self._batch, self._batch_idx, self._flags = batch, batch_idx, {}

    def on_before_backward(self, trainer: Trainer, pl_module: Learner, loss: Tensor) -> None:
        if self.deferred:
            self._flags["loss"] = torch.isfinite(loss.detach()).reshape(1)
        elif not math.isfinite(loss.item()):
            self._record(pl_module, "loss", locate_non_finite(pl_module, "loss", self._batch))

    def on_after_backward(self, trainer: Trainer, pl_module: Learner) -> None:
        # While batches are accumulated, each rank has its own gradient; before a step it is a sum over the ranks.
        if self._world_size > 1 and not self.deferred and trainer.fit_loop._should_accumulate():  # noqa: SLF001
            self._check_gradients(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Learner, optimizer: Optimizer) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            self._check_gradients(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: Learner, *_: Any) -> None:
        if not self._finite("weight", [parameter.detach() for parameter in self._parameters]):
            self._record(pl_module, "weight", locate_non_finite(pl_module, "weight", self._batch))
        if self._flags:
            self._check_pending(pl_module)
            position = _position(trainer, "weight", self._batch_idx)
            self._pending = _PendingFlags.start(self._flags, position, self._world_size)
        elif self._world_size > 1:
            any_rank = torch.tensor([self._finding is not None], dtype=torch.int32)
            distributed.all_reduce(any_rank, distributed.ReduceOp.MAX)
            if any_rank.item():
                raise_on_all_ranks(self._finding, self._world_size)

    def on_validation_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._check_pending(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._check_pending(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._check_pending(pl_module)
        self._batch = None

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:  # fmt: skip
        guard = self._evaluations["test" if trainer.testing else "val"]
        guard.after_batch(trainer, pl_module, batch, batch_idx, deferred=self.deferred)

    def on_validation_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._evaluations["test" if trainer.testing else "val"].after_split(trainer, pl_module)

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]
    on_test_end = on_validation_end  # type: ignore[assignment]

    def _check_gradients(self, trainer: Trainer, learner: Learner) -> None:
        if self._finite("gradient", [p.grad for p in self._parameters if p.grad is not None]):
            return
        where, is_sum = locate_non_finite(learner, "gradient", self._batch), False
        if self._finding is None and self._world_size > 1 and not trainer.fit_loop._should_accumulate():  # noqa: SLF001
            assert self._batch is not None  # noqa: S101 -- for the type checker
            own = locate_in_own_gradient(trainer, learner, self._batch, self._batch_idx)
            where, is_sum = own or where, own is None
        self._record(learner, "gradient", where, is_sum=is_sum)
        for parameter in self._parameters:
            parameter.grad = None  # the batch is completed, but does not change the weights

    def _finite(self, what: str, tensors: list[Tensor]) -> bool:
        """Return whether all tensors are finite. If `self.deferred`, start a check named `what` and return True."""
        if not tensors:
            return True
        # _foreach_norm is what get_total_norm calls, at a quarter of its cost.
        if self.deferred:
            # One flag per tensor, because the tensors will have changed when the flags are read.
            peaks = torch._foreach_norm(tensors, torch.inf)  # noqa: SLF001
            self._flags[what] = torch.isfinite(torch.stack([peak.float() for peak in peaks]))
            return True
        # The 2-norm takes a fifth of the time of the maximum norm, but may overflow although all values are finite:
        # the maximum norm is computed only if the 2-norm is not finite.
        # Their maximum as a tensor would take longer than reading each.
        for order in (2.0, torch.inf):
            if all(math.isfinite(norm.item()) for norm in torch._foreach_norm(tensors, order)):  # noqa: SLF001
                return True
        return False

    def _record(
        self, learner: Learner, what: str, where: str, position: _Position | None = None, *, is_sum: bool = False
    ) -> None:  # fmt: skip
        """Store the finding unless the batch already has one. If the run has a single process, raise it at once."""
        position = position or _position(learner.trainer, what, self._batch_idx)
        loss = describe_loss(learner) if what == "loss" else type(learner.loss).__name__
        self._finding = self._finding or Finding(what, where, loss, position, is_sum=is_sum)
        if self._world_size == 1:
            raise NonFiniteError(str(self._finding))

    def _check_pending(self, learner: Learner) -> None:
        """Read the flags of the previous step, and raise if one is False."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        flags = pending.read()
        if all(map(all, flags.values())):
            return
        named = list(learner.named_parameters())
        names = {"weight": [name for name, _ in named], "gradient": [name for name, p in named if p.grad is not None]}
        for what, finite in flags.items():
            bad = [index for index, flag in enumerate(finite) if not flag]
            if not bad or what == "all ranks" or self._finding is not None:
                continue
            where = _UNKNOWN_LAYER
            if what != "loss":
                first = bad[-1] if what == "gradient" else bad[0]  # backpropagation starts at the last layer
                where = f"the {what} of {layer_name(names[what][first])}"
            is_sum = what == "gradient" and self._world_size > 1
            self._record(learner, what, where, pending.position, is_sum=is_sum)
        raise_on_all_ranks(self._finding, self._world_size)


class EvaluationGuard:
    """Checks the loss of the split "val" or "test" at the end of the split, and reports the first bad batch.

    The weights do not change in the meantime, so all ranks can wait for the end and raise together.
    """

    def __init__(self, split: str) -> None:
        self.split = split
        self._finding: Finding | None = None
        self._flags: list[Tensor] = []

    def after_batch(self, trainer: Trainer, learner: Learner, batch: Batch, batch_idx: int, *, deferred: bool) -> None:
        """Check the sum of the losses so far. If `deferred`, only start the check; `after_split` reads its result."""
        total = learner.averages[self.split]["loss"].total
        if deferred:
            self._flags.append(torch.isfinite(total))
        elif self._finding is None and not math.isfinite(total.item()):
            where = locate_non_finite(learner, "loss", batch)
            self._finding = self._finding_in(trainer, learner, batch_idx, where)

    def after_split(self, trainer: Trainer, learner: Learner) -> None:
        """Raise a NonFiniteError on all ranks if the loss of the split is not finite."""
        finding, flags = self._finding, self._flags
        self._finding, self._flags = None, []
        if math.isfinite(learner.values.get(f"{self.split}/loss", 0.0)):
            return
        if flags and not (finite := torch.stack(flags)).all():
            finding = self._finding_in(trainer, learner, int((~finite).int().argmax()), _UNKNOWN_LAYER)
        name = type(learner.loss).__name__
        default_message = no_finite_mean(self.split, name, trainer.global_step, trainer.current_epoch + 1)
        raise_on_all_ranks(finding, trainer.world_size, default_message)

    def _finding_in(self, trainer: Trainer, learner: Learner, batch_idx: int, where: str) -> "Finding":
        epoch = trainer.current_epoch + (self.split == "val")  # after training, current_epoch is one more
        position = (trainer.global_step, epoch, batch_idx + 1)
        return Finding(f"{self.split}/loss", where, describe_loss(learner, self.split), position)


def no_finite_mean(split: str, loss: str, step: int, epoch: int) -> str:
    """Return the message for the loss of a split that is not finite, although the sum of each batch is."""
    return (
        f"step {step} (epoch {epoch}): {split}/loss is NaN or infinite with loss {loss}, though the sum of each batch "
        "is finite: is the sum of the example weights 0?"
    )


@dataclass(frozen=True)
class Finding:
    """The first occurrence of NaN or infinity in a loss, gradient or weight."""

    what: str
    """The kind of value: "loss", "gradient", "weight", "val/loss" or "test/loss"."""
    where: str
    """The layer, batch or examples with the first non-finite value."""
    loss: str
    """The name of the loss; for a weighted sum, also the names of the terms that are not finite."""
    position: _Position
    rank: str = ""
    """The rank as in the message, such as ", rank 1"; empty for a single process."""
    is_sum: bool = False
    """Whether the value is a sum over the ranks, and this rank contributed only finite values."""

    def __str__(self) -> str:
        step, epoch, batch = self.position
        return (
            f"step {step} (epoch {epoch}, batch {batch}{self.rank}): a {self.what} became NaN or infinite "
            f"with loss {self.loss}, first in {self.where}; "
            "lower optimizer.lr, clip with trainer.gradient_clip_val=1, or inspect the data"
        )


def common_cause(findings: Sequence[Finding | None]) -> Finding | None:
    """Return the finding to report, given the findings of all ranks; None if no rank has one.

    A non-finite value of one rank is the cause of non-finite sums over the ranks, so it is reported first.
    """
    named = [replace(each, rank=f", rank {rank}") for rank, each in enumerate(findings) if each is not None]
    own = [finding for finding in named if not finding.is_sum]
    if own or len(named) < len(findings):  # a sum that only some ranks have was corrupted on one of them
        return next(iter(own or named), None)
    return replace(named[0], rank=", every rank")


def raise_on_all_ranks(finding: Finding | None, world_size: int, default_message: str = "") -> NoReturn:
    """Raise the same NonFiniteError on all ranks. All ranks must call this, each with its own finding or None.

    `default_message` is the message if no rank has a finding.
    """
    if world_size > 1:
        findings: list[Finding | None] = [None] * world_size
        distributed.all_gather_object(findings, finding)
        finding = common_cause(findings)
    error = NonFiniteError(str(finding or default_message))
    error.on_all_ranks = True
    raise error


@dataclass
class _PendingFlags:
    """Flags (True means finite) that are copied from the GPU after a step and read after the next step."""

    sizes: dict[str, int]
    flags: AsyncHostCopy
    position: _Position

    @classmethod
    def start(cls, flags: dict[str, Tensor], position: _Position, world_size: int) -> "_PendingFlags":
        """Start copying flags (n,) by name. With several ranks, add a flag "all ranks": all flags of all ranks."""
        if world_size > 1:
            all_finite = torch.cat(list(flags.values())).all().int().reshape(1)
            distributed.all_reduce(all_finite, distributed.ReduceOp.MIN)
            flags = flags | {"all ranks": all_finite.bool()}
        sizes = {what: len(part) for what, part in flags.items()}
        return cls(sizes, AsyncHostCopy(torch.cat(list(flags.values()))), position)

    def read(self) -> dict[str, list[bool]]:
        parts = self.flags.read().split(list(self.sizes.values()))
        return {what: part.tolist() for what, part in zip(self.sizes, parts, strict=True)}


def _position(trainer: Trainer, what: str, batch_idx: int) -> _Position:
    # Weights are checked after Lightning has counted the step, losses and gradients before.
    return trainer.global_step + (what != "weight"), trainer.current_epoch + 1, batch_idx + 1


def describe_loss(learner: Learner, split: str = "train") -> str:
    """Return the name of the loss, and the terms of a weighted sum whose totals over the split are not finite."""
    averages = learner.averages[split]
    terms = [term for term in learner.loss.term_names if not torch.isfinite(averages[f"loss/{term}"].total)]
    return name_with_terms(learner.loss, terms)


def name_with_terms(loss: Loss, terms: Sequence[str]) -> str:
    """Return the name of a loss, with these of its terms."""
    name = type(loss).__name__
    return f"{name} (its term{'s' * (len(terms) > 1)} {', '.join(terms)})" if terms else name


def locate_non_finite(learner: Learner, what: str, batch: Batch | None) -> str:
    """Describe where a "gradient", "weight" or "loss" (`what`) is not finite first.

    For "gradient" this is the layer nearest to the output, where backpropagation went wrong. For "weight" it is the
    first layer. For "loss" it is the first of these: weights, inputs, targets, the output of a layer in a second
    forward pass, the loss itself.
    """
    if what == "gradient":
        gradients = {name: p.grad for name, p in learner.named_parameters()}
        return _bad_gradient_nearest_to_output(gradients) or "an unknown layer"
    bad = [name for name, p in learner.named_parameters() if not torch.isfinite(p).all()]
    if bad:
        return f"the weights of {layer_name(bad[0])}"
    if batch is None:
        return "an unknown batch"
    for name, values in (("inputs", batch.inputs), ("targets", batch.target)):
        wrong = ~torch.isfinite(values).flatten(1).all(1) if values.ndim > 1 else ~torch.isfinite(values)
        if wrong.any():
            return f"the {name} of the batch ({_list_examples(batch.index[wrong])})"
    where = _first_bad_output(learner.network, batch.inputs)
    return where or f"the loss itself, since the network's outputs are finite{_describe_bad_losses(learner, batch)}"


def locate_in_own_gradient(trainer: Trainer, learner: Learner, batch: Batch, batch_idx: int) -> str | None:
    """Recompute the gradient of this rank's share of a batch. Describe where it is not finite; None if it is finite."""
    learner.on_train_batch_start(batch, batch_idx)  # sets the seed of the dropout masks again
    with torch.enable_grad(), trainer.precision_plugin.train_step_context():
        loss = learner.training_step(batch, batch_idx)
    parameters = {name: p for name, p in learner.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return _bad_gradient_nearest_to_output(dict(zip(parameters, gradients, strict=True)))


def layer_name(parameter: str) -> str:
    """Return the name of a parameter's layer."""
    return parameter.rpartition(".")[0] or parameter


def _bad_gradient_nearest_to_output(gradients: Mapping[str, Tensor | None]) -> str | None:
    bad = [name for name, grad in gradients.items() if grad is not None and not torch.isfinite(grad).all()]
    return f"the gradient of {layer_name(bad[-1])}" if bad else None


def _list_examples(index: Tensor) -> str:
    noun = "examples" if len(index) > 1 else "example"
    rest = f" and {len(index) - 5} more" if len(index) > 5 else ""
    return f"{noun} {', '.join(map(str, index[:5].tolist()))}{rest}"


def _describe_bad_losses(learner: Learner, batch: Batch) -> str:
    """Return the examples whose loss is not finite, as " (examples 3, 7)"; an empty string if there are none."""
    if not learner.loss.scores_examples:
        return ""
    with torch.no_grad(), uncompiled(learner.network):
        outputs = learner(batch.inputs)
        target = learner.encode_target(batch.target, outputs.dtype)
        scores = learner.loss.per_example(learner.loss.loss_inputs(outputs, batch.inputs, learner.network), target)
    wrong = ~torch.isfinite(scores)
    return f" ({_list_examples(batch.index[wrong])})" if wrong.any() else ""


def _first_bad_output(network: nn.Module, inputs: Tensor) -> str | None:
    bad: list[str] = []

    def check(name: str, module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not torch.isfinite(output).all():
            bad.append(f"the output of {name} ({type(module).__name__})")

    with ExitStack() as hooks, torch.no_grad(), uncompiled(network):
        for name, module in network.named_modules():
            if not list(module.children()) and not isinstance(module, torch.jit.ScriptModule):  # it takes no hooks
                hooks.enter_context(module.register_forward_hook(partial(check, f"network.{name}".rstrip("."))))
        network(inputs)
    return bad[0] if bad else None

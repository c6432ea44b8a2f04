"""`FusedLearner`, the LightningModule that trains all members of a group in one step, and their learning rates."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from losslab.data.batch import Batch, DataSpec
from losslab.losses.base import Loss
from losslab.models.learner import Learner, learner_for
from losslab.models.learner_base import BaseLearner, with_known_signature
from losslab.models.schedules import make_schedule
from losslab.runs import RunFolder
from losslab.targets import Task
from losslab.training.fused.metrics import RunningMeans, StackedMetrics
from losslab.training.fused.optimizers import StackedOptimizer, clip_gradients, gradient_norms
from losslab.training.fused.stack import LossStack, Stacked


@dataclass
class Member:
    """One of the runs that train together, as built from its configuration."""

    number: int
    """The number of its job."""
    config: dict[str, Any]
    folder: RunFolder
    network: nn.Module
    loss: Loss
    optimizer: Callable[..., Optimizer]
    scheduler: Callable[..., Any] | None
    module: int
    """The index of its data module."""
    finished: bool = False
    resumes: bool = False
    anneal: dict[str, Any] = field(default_factory=dict)
    """The configuration of its callback `anneal`; empty without it."""

    @property
    def setting(self) -> str:
        """The configuration of optimizer and scheduler as text. Members with the same share a torch optimizer."""
        return repr((self.config["optimizer"], self.config["scheduler"]))

    @property
    def interval(self) -> str:
        """How often its scheduler steps, "step" or "epoch"."""
        interval: str = self.config["scheduler"]["interval"]
        return interval

    @property
    def clipping(self) -> float:
        """The largest norm or value of its gradient; infinite if it is not clipped."""
        limit = self.config["trainer"].get("gradient_clip_val")
        return math.inf if limit is None else float(limit)

    def learner(self, spec: DataSpec) -> Learner:
        """Return an ordinary learner of its network and loss."""
        return learner_for(spec.task)(self.network, self.loss, spec, self.optimizer, self.scheduler, self.interval)


class StackedSchedule:
    """The schedulers of the torch optimizers in a `StackedOptimizer` that step at the same time.

    Lightning steps it, and saves and restores its state, like a scheduler of torch.
    """

    def __init__(self, optimizer: StackedOptimizer, schedulers: Mapping[int, Any]) -> None:
        self.optimizer, self.schedulers = optimizer, schedulers
        """The scheduler of each setting that has one, by the index of the setting."""

    def step(self) -> None:
        """Step all schedulers."""
        for scheduler in self.schedulers.values():
            scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the schedulers."""
        return {"schedulers": [dict(scheduler.state_dict()) for scheduler in self.schedulers.values()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the states."""
        for scheduler, own in zip(self.schedulers.values(), state["schedulers"], strict=True):
            scheduler.load_state_dict(own)


class FusedLearner(BaseLearner):
    """Trains networks of one architecture as one. Every metric has a value for each member.

    Args:
        members: the members. Their networks have the same shapes, and their data the same specification. A step is
            faster if members with the same setting of the optimizer are neighbours.
        spec: specification of the data.
        track_given_labels: see `Learner`.

    Raises:
        NotFusableError: the members cannot be trained together.
    """

    def __init__(self, members: Sequence[Member], spec: DataSpec, *, track_given_labels: bool = False) -> None:
        super().__init__()
        self.members, self.spec = members, spec
        self.networks = Stacked([member.network for member in members])
        dtype = next((each.dtype for each in members[0].network.parameters()), torch.float32)
        annealed = [*dict.fromkeys(member.anneal["parameter"] for member in members if member.anneal)]
        self.losses = LossStack([member.loss for member in members], spec, dtype, annealed)
        train_metric = learner_for(spec.task).train_metric
        names = ["loss", *(f"loss/{name}" for name in dict.fromkeys(self.losses.term_names))]
        own = [*names, train_metric, *([f"{train_metric}_given"] if track_given_labels else [])]
        self._averages = {"train": own, "val": names, "test": names}
        self._given = own[-1] if track_given_labels else None
        self.train_metric = train_metric
        self.means: dict[str, dict[str, RunningMeans]] = {}
        self.metrics: dict[str, StackedMetrics] = {}
        self.values: dict[str, Tensor] = {}
        """The newest values of each metric, float64 (M,) on the CPU."""
        self.updated_this_epoch: set[str] = set()
        """The names in `values` that are of this epoch."""
        self.active = torch.ones(len(members), dtype=torch.bool)
        """Which members still train, on the CPU."""
        self.on_non_finite: Callable[[str, Tensor, Batch, int], None] | None = None
        """Called with what is not finite ("loss", "gradient", "weight", "val/loss" or "test/loss"), the members (M,) in
        which it is not, the batch and its number."""
        self._limits = torch.tensor([member.clipping for member in members], dtype=torch.float64)
        self._by_value = members[0].config["trainer"].get("gradient_clip_algorithm") == "value"
        self._batch: tuple[Batch, int] | None = None
        self._batch_losses = torch.zeros(len(members))
        self._saved: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        """The number M of members."""
        return len(self.members)

    @cached_property
    def epoch_metric_names(self) -> list[str]:
        """Names of all train and val metrics, in the order of `Learner.epoch_metric_names`."""
        metrics = [*StackedMetrics(self.spec, 1, torch.device("cpu")).names]
        names = {"train": self._averages["train"], "val": [*self._averages["val"], *metrics]}
        return [f"{split}/{name}" for split, own in names.items() for name in own]

    def names_of(self, member: int) -> list[str]:
        """Return the `epoch_metric_names` that a member has: the terms of other losses are left out."""
        own = [f"loss/{name}" for name in self.members[member].loss.term_names]
        terms = {f"loss/{name}" for name in self.losses.term_names}
        names = []
        for name in self.epoch_metric_names:
            split, _, metric = name.partition("/")
            if metric not in terms:
                names.append(name)
            if metric == "loss":
                names += [f"{split}/{each}" for each in own]
        return names

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the raw outputs (M, N, ...) for inputs (M, N, ...), or (N, ...) for all members."""
        outputs: Tensor = self.networks(inputs, shared=self.are_shared(inputs))
        return outputs

    def are_shared(self, inputs: Tensor) -> bool:
        """Return whether inputs are (N, ...), the same for all members."""
        return inputs.ndim == len(self.spec.input_shape) + 1

    def _step(self, batch: Batch, split: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return outputs (M, N, ...), sums of losses and of weights (M,), and the true targets (M, N, ...)."""
        outputs = self(batch.inputs)
        target, truth = batch.target, batch.truth
        if self.are_shared(batch.inputs):
            target, truth = (each.expand(self.size, *each.shape) for each in (target, truth))
        totals, weights, terms = self.losses.totals(outputs, target)
        means = self.means[split]
        means["loss"].update(totals, weights)
        for name, term in terms.items():
            means[f"loss/{name}"].update(term, weights)
        if split == "train":
            with torch.no_grad():
                means[self.train_metric].update(self._metric_sums(outputs, truth), truth.shape[1])
                if self._given is not None:
                    means[self._given].update(self._metric_sums(outputs, target), truth.shape[1])
        return outputs, totals, weights, truth

    def _metric_sums(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return `Learner.batch_metric_sum` of each member, (M,)."""
        if self.spec.task is Task.REGRESSION:
            return (self.losses.predictions(outputs) - truth).square().mean(2).sum(1)
        if self.spec.task is Task.MULTICLASS:
            return (self.losses.predictions(outputs).argmax(2) == truth).sum(1)
        return ((self.losses.probabilities(outputs) > 0.5) == (truth > 0.5)).float().mean(2).sum(1)

    @with_known_signature
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        _, totals, weights, _ = self._step(batch, "train")
        losses = totals / weights
        self._batch, self._batch_losses = (batch, batch_idx), losses.detach()
        if not self.active.all():
            losses = losses.where(self.active.to(losses.device), 0)
        return losses.sum()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self._clear_gradients()
        gradients = self._gradients()
        for what, values in (("loss", self._batch_losses), ("gradient", gradient_norms(gradients))):
            finite = values.isfinite()
            if not finite.all() and what == "gradient":  # the squares may overflow although the values are finite
                finite = finite_rows(gradients)
            if not finite.all():
                self._report(what, ~finite)
                self._clear_gradients()

    def configure_gradient_clipping(self, optimizer: Optimizer, *_: Any, **__: Any) -> None:
        if not self._limits.isinf().all():
            clip_gradients(self._gradients(), self._limits.to(self.device), by_value=self._by_value)

    def on_train_batch_end(self, *_: Any) -> None:
        parameters = [each.detach() for each in self.networks.stacked_parameters if each.requires_grad]
        norms = torch.stack(torch._foreach_norm(parameters))  # noqa: SLF001
        if not norms.isfinite().all():
            finite = finite_rows(parameters)
            if not finite.all():
                self._report("weight", ~finite)

    def _report(self, what: str, members: Tensor) -> None:
        """Pass on the members (M,) that are not finite, except those that have ended before."""
        new = members.cpu() & self.active
        if new.any() and self.on_non_finite is not None and self._batch is not None:
            self.on_non_finite(what, new, *self._batch)

    @property
    def stacked_optimizer(self) -> StackedOptimizer:
        """The optimizer of all members."""
        optimizer: StackedOptimizer = self.trainer.optimizers[0]  # type: ignore[assignment]
        return optimizer

    def state_of(self, member: int) -> dict[str, Any]:
        """Return copies of the weights and the optimizer state of a member, as in a checkpoint."""
        return {
            "state_dict": self.networks.state_of(member, "network.") | self.losses.state_of(member, "loss."),
            "optimizer_state": self.stacked_optimizer.state_of(member),
        }

    def have_finite_states(self) -> Tensor:
        """Return for each member whether all tensors of its checkpoint are finite, bool (M,) on the CPU."""
        finite = finite_rows([*(each.detach() for each in self.networks.parameters()), *self.networks.buffers()])
        optimizer = self.stacked_optimizer
        for first, tensor in zip(optimizer.first_rows(), optimizer.tensors(), strict=True):
            finite[first : first + len(tensor)] &= finite_rows([tensor])
        return finite.cpu()

    def learner_of(self, index: int) -> Learner:
        """Return an ordinary learner with the current weights and gradients of a member."""
        own = self.members[index].learner(self.spec).to(self.device).train(self.training)
        parameters, _ = self.networks.tensors()
        with torch.no_grad():
            own.network.load_state_dict(self.networks.state_of(index))
            for name, parameter in own.network.named_parameters():
                gradient = parameters[name].grad
                parameter.grad = None if gradient is None else gradient[index].clone()
        return own

    def end(self, member: int, *, discard: bool = False) -> None:
        """Stop the training of a member; the others continue. `discard` replaces its weights and state by zeros."""
        self.active[member] = False
        if discard:
            self.stacked_optimizer.discard(member)
            with torch.no_grad():
                for tensor in [*self.parameters(), *self.networks.buffers()]:
                    tensor[member] = 0

    def _clear_gradients(self) -> None:
        """Set the gradients of the members that have ended to 0."""
        if self.active.all():
            return
        ended = (~self.active).nonzero().flatten().to(self.device)
        for gradient in self._gradients():
            gradient.index_fill_(0, ended, 0)

    def _gradients(self) -> list[Tensor]:
        return [each.grad for each in self.networks.stacked_parameters if each.grad is not None]

    def _evaluation_step(self, batch: Batch, batch_idx: int, split: str) -> Tensor:
        outputs, _, _, truth = self._step(batch, split)
        probabilities = None if self.spec.task is Task.REGRESSION else self.losses.probabilities(outputs)
        self.metrics[split].update(self.losses.predictions(outputs), probabilities, truth)
        finite = self.means[split]["loss"].sums[0].isfinite()
        if not finite.all() and self.on_non_finite is not None:
            self.on_non_finite(f"{split}/loss", ~finite.cpu(), batch, batch_idx)
        return outputs

    def _reset_metrics(self, *splits: str) -> None:
        for split in splits:
            self.means[split] = {name: RunningMeans(self.size, self.device) for name in self._averages[split]}
            if split != "train":
                self.metrics[split] = StackedMetrics(self.spec, self.size, self.device)

    def on_train_start(self) -> None:
        saved, self._saved = self._saved, None
        if saved is None:
            return
        loader: Any = self.trainer.train_dataloader
        loader.load_state_dict(saved["loader"])
        for means, sums in zip(self.means["train"].values(), saved["sums"], strict=True):
            means.sums.copy_(sums)

    def on_train_epoch_start(self) -> None:
        self.updated_this_epoch.clear()

    def _log_epoch(self, split: str) -> None:
        values = {name: means.compute() for name, means in self.means[split].items()}
        if split in self.metrics:
            values |= self.metrics[split].compute()
        new = {f"{split}/{name}": value.double().cpu() for name, value in values.items()}
        self.values |= new
        self.updated_this_epoch |= new.keys()
        for means in self.means[split].values():
            means.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state from which an interrupted epoch continues."""
        loader: Any = self.trainer.train_dataloader
        checkpoint["learner"] = {
            "sums": torch.stack([means.sums for means in self.means["train"].values()]).cpu(),
            "values": dict(self.values),
            "fresh": sorted(self.updated_this_epoch),
            "loader": loader.state_dict(),
            "active": self.active.clone(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._saved = saved = checkpoint["learner"]
        self.values, self.updated_this_epoch = dict(saved["values"]), set(saved["fresh"])
        self.active = saved["active"].clone()

    def configure_optimizers(self) -> Any:
        neighbours = [[*own] for _, own in groupby(self.members, key=lambda member: member.setting)]
        first = [own[0] for own in neighbours]
        optimizer = StackedOptimizer(
            [*self.networks.stacked_parameters], [each.optimizer for each in first], [*map(len, neighbours)]
        )
        schedules = []
        for interval in ("step", "epoch"):
            schedulers = {
                index: make_schedule(
                    member.scheduler,
                    optimizer.optimizers[index],
                    self.monitor_mode,
                    lambda: self.schedule_length(interval),  # noqa: B023
                )
                for index, member in enumerate(first)
                if member.scheduler is not None and member.interval == interval
            }
            if schedulers:
                schedules.append({"scheduler": StackedSchedule(optimizer, schedulers), "interval": interval})
        return [optimizer], schedules

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step()


def finite_rows(tensors: Sequence[Tensor]) -> Tensor:
    """Return for each member whether its part of all tensors (M, ...) is finite, bool (M,)."""
    return torch.stack([each.reshape(len(each), -1).isfinite().all(1) for each in tensors]).all(0)

"""What a learner leaves in a checkpoint beside its weights, for an interrupted epoch to go on.

The LightningModules: a network, a loss, and one short step in which no line asks which loss it is.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from losslab.data import random_keys
from losslab.data.batch import Batch, DataSpec
from losslab.errors import LabError
from losslab.losses.base import Loss
from losslab.models import lr_schedulers
from losslab.models.metrics import MONITOR, EvaluationMetrics, RunningMean, monitor_mode
from losslab.targets import Task, choose_kind, encode


def checkpoint_state(
    averages: Iterable[RunningMean], values: dict[str, float], fresh: set[str], loader: Any
) -> dict[str, Any]:
    """The state of a learner, as resumable.py wants it; all processes of a run must ask for it together.

    Args:
        averages: over the training examples of this epoch so far.
        values: the newest ones of the run.
        fresh: the names of those that are of this epoch.
        loader: of the training examples.
    """
    sums = torch.stack([average.sums for average in averages])
    return {
        "sums": _of_all_processes(sums),  # (processes, averages, 2)
        "values": dict(values),
        "fresh": sorted(fresh),
        "loader": loader.state_dict(),
    }


def restore_averages(state: Mapping[str, Any], averages: Iterable[RunningMean], rank: int) -> None:
    """Go on with the averages that the process of this rank had; a process that there was not begins with none."""
    of_processes = state["sums"]
    if rank < len(of_processes):
        for average, sums in zip(averages, of_processes[rank], strict=True):
            average.sums = sums


def _of_all_processes(tensor: Tensor) -> Tensor:
    """The tensors of one shape that the processes of a run have → (processes, ...), on the CPU."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return tensor[None].cpu()
    everyones = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyones, tensor)
    return torch.stack(everyones).cpu()


class Learner(LightningModule):
    """A network that learns under a loss. `Regressor` and `Classifier` say what its outputs mean.

    Args:
        network: from inputs to outputs (N, loss.outputs(targets)).
        loss: any loss that takes the targets the data give, as they are or encoded.
        facts: what the data declare.
        optimizer: makes an optimizer of the parameters.
        scheduler: makes a learning-rate scheduler of the optimizer; None for a constant rate.
        interval: whether the scheduler steps each "step" or each "epoch".
        seed: of the draws inside the network (dropout).
        track_given_labels: whether to hold the outputs in training against the given targets too, beside the truth: where
            they differ, it shows how much of what is wrong the network has learnt by heart.

    Raises:
        LabError: the loss cannot learn from these targets.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        facts: DataSpec,
        optimizer: Callable[..., Optimizer] = torch.optim.Adam,
        scheduler: Callable[..., Any] | None = None,
        interval: str = "epoch",
        seed: int = 0,
        *,
        track_given_labels: bool = False,
    ) -> None:
        super().__init__()
        kind = choose_kind(facts.kind, loss.wants)
        if kind is None:
            raise LabError(
                f"{type(loss).__name__} takes {' or '.join(loss.wants)} targets, these data give {facts.kind}"
            )
        self.network, self.loss, self.facts, self.kind = network, loss, facts, kind
        self.optimizer, self.scheduler, self.interval, self.seed = optimizer, scheduler, interval, seed
        losses = ["loss", *(f"loss/{name}" for name in loss.term_names)]
        self.averages = {split: {name: RunningMean() for name in losses} for split in ("train", "val", "test")}
        self.averages["train"][self.train_metric] = RunningMean()
        self._given = RunningMean() if track_given_labels else None
        if self._given is not None:
            self.averages["train"][f"{self.train_metric}_given"] = self._given
        # In a plain dict, not as submodules: Lightning would cast their float64 sums with the network's precision.
        self.evaluation_metrics = {split: EvaluationMetrics(facts) for split in ("val", "test")}
        self.values: dict[str, float] = {}
        """The newest value of everything that is averaged over an epoch, by name, for callbacks to read."""
        self.updated_this_epoch: set[str] = set()
        """Those of them that are of the current epoch: not every epoch is validated."""
        self._resumed: dict[str, Any] | None = None  # what a checkpoint said, until training starts
        self._weight: Tensor | None = None  # of the batches that were accumulated for the next step

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes some fifty times a step which hook it is in: no parameter, so nn.Module need not look for one.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    train_metric: str
    """The yardstick that is cheap enough to take on every training batch."""

    @property
    def monitor(self) -> str:
        """The metric to checkpoint, stop, tune and compare by: never the loss."""
        return f"val/{MONITOR[self.facts.task]}"

    @property
    def monitor_mode(self) -> str:
        """Whether the monitored metric is better "min" or "max"."""
        return monitor_mode(self.facts.task)

    @cached_property
    def epoch_metric_names(self) -> list[str]:
        """The names of all values of an epoch, in the order of a table."""
        train = [f"train/{name}" for name in self.averages["train"]]
        return [*train, *self._names("val")]

    @property
    def metric_names(self) -> list[str]:
        """The names of all values of a run: of its best epoch, and on the test set."""
        return [*self.epoch_metric_names, *self._names("test")]

    def _names(self, split: str) -> list[str]:
        return [f"{split}/{name}" for name in (*self.averages[split], *self.evaluation_metrics[split].names)]

    def current_values(self) -> dict[str, float]:
        """The values of the current epoch, in the order of a table."""
        return {name: self.values[name] for name in self.epoch_metric_names if name in self.updated_this_epoch}

    def forward(self, inputs: Tensor) -> Tensor:
        """Raw outputs of the network."""
        outputs: Tensor = self.network(inputs)
        return outputs

    def predictions(self, outputs: Tensor) -> Tensor:
        """The values, or scores of classes, that the loss says the outputs stand for, in float32 at least."""
        return self.loss.to_predictions(outputs.to(torch.promote_types(outputs.dtype, torch.float32)))

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """What the outputs mean to the yardsticks; None where they are values."""
        raise NotImplementedError

    def batch_metric_sum(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """The sum over the batch of `train_metric` → ()."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        counts = getattr(self.trainer.datamodule, "class_counts", None)  # type: ignore[attr-defined]
        if counts is not None:
            self.loss.set_class_counts(counts.to(self.device))

    def step(self, batch: Batch, split: str) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs (N, ...), summed loss () and summed weight () of a batch, which are also added to the averages."""
        outputs = self(batch.inputs)
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        target = encode(batch.target, self.facts.kind, self.kind, self.facts.targets, dtype)
        seen = self.loss.loss_inputs(outputs, batch.inputs, self.network)
        total, weight, terms = self.loss.total(seen, target)
        self.averages[split]["loss"].update(total, weight)
        for name, term in terms.items():
            self.averages[split][f"loss/{name}"].update(term, weight)
        return outputs, total, weight

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        outputs, total, weight = self.step(batch, "train")
        with torch.no_grad():
            self.averages["train"][self.train_metric].update(
                self.batch_metric_sum(outputs, batch.truth), len(batch.truth)
            )
            if self._given is not None:
                self._given.update(self.batch_metric_sum(outputs, batch.target), len(batch.target))
        if self._steps_alone:
            return total / weight
        # The weight of the whole step is not known yet: `backward` divides by it. Until then by what it usually is,
        # so that half precision sees gradients of the usual size.
        self._weight = weight.detach() if self._weight is None else self._weight + weight.detach()
        return total * (self.trainer.world_size * self.trainer.accumulate_grad_batches / self._usual_weight)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Backpropagate; at the end of a step make its gradient that of the mean over all its examples.

        Lightning averages the gradients of processes and of accumulated batches as if all had the same weight. Here
        a step learns from one weighted mean, however it is cut into batches and shared among processes.
        """
        loss.backward(*args, **kwargs)
        # The question that Lightning itself asks before it lets the optimizer step.
        if self._weight is None or self.trainer.fit_loop._should_accumulate():  # noqa: SLF001
            return
        weight, self._weight = self._weight, None
        if self.trainer.world_size > 1:
            distributed.all_reduce(weight)
        correction = self._usual_weight / weight
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(correction)

    @property
    def _steps_alone(self) -> bool:
        """Whether a batch is a step: nothing is accumulated, and no other process takes part."""
        return self.trainer.world_size == 1 and self.trainer.accumulate_grad_batches == 1

    @property
    def _usual_weight(self) -> int:
        """The number of examples in a step that is not the last of its epoch."""
        size: int = getattr(self.trainer.train_dataloader, "batch_size", None) or 1
        return size * self.trainer.accumulate_grad_batches

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        outputs = self(batch.inputs)
        probabilities = self.probabilities(outputs)
        return self.predictions(outputs) if probabilities is None else probabilities

    def _evaluate(self, batch: Batch, split: str) -> Tensor:
        """Raw outputs, for callbacks to see."""
        outputs, _, _ = self.step(batch, split)
        self.evaluation_metrics[split].update(self.predictions(outputs), self.probabilities(outputs), batch.truth)
        return outputs

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Averages that an interrupted epoch goes on with, and values that stay for the rest of the run."""
        averages = self.averages["train"].values()
        checkpoint["learner"] = checkpoint_state(averages, self.values, self.updated_this_epoch, self._loader)

    @property
    def _loader(self) -> Any:
        return self.trainer.train_dataloader

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resumed = checkpoint.get("learner")

    def on_train_start(self) -> None:
        resumed, self._resumed = self._resumed, None
        if resumed is None:
            return
        # Lightning does so too, but not where a scheduler has asked for the number of steps before.
        self._loader.load_state_dict(resumed["loader"])
        self.values, self.updated_this_epoch = dict(resumed["values"]), set(resumed["fresh"])
        restore_averages(resumed, self.averages["train"].values(), self.global_rank)

    def on_train_epoch_start(self) -> None:
        self.updated_this_epoch.clear()
        self._weight = None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Keyed like every other draw: a resumed run meets the same dropout masks.
        seed = random_keys.key(self.seed, random_keys.STEP, self.current_epoch, batch_idx, self.global_rank)
        # Not torch.manual_seed, which records a stack trace for every kind of device that is not there.
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif self.device.type == "mps":
            torch.mps.manual_seed(seed)

    def on_fit_start(self) -> None:
        self._prepare("train", "val")

    def on_validation_start(self) -> None:
        self._prepare("val")

    def on_validation_epoch_start(self) -> None:
        # Batch statistics differ between processes; what is measured is to be what is saved, the first one's.
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                distributed.broadcast(buffer, src=0)

    def on_test_start(self) -> None:
        self._prepare("test")

    def on_train_epoch_end(self) -> None:
        self._publish("train")

    def on_validation_epoch_end(self) -> None:
        self._publish("val")

    def on_test_epoch_end(self) -> None:
        self._publish("test")

    def _prepare(self, *splits: str) -> None:
        for split in splits:
            for average in self.averages[split].values():
                average.to(self.device)
            if split in self.evaluation_metrics:
                self.evaluation_metrics[split].to(self.device)
                self.evaluation_metrics[split].reset()

    def _publish(self, split: str) -> None:
        values = {name: average.compute() for name, average in self.averages[split].items()}
        if split in self.evaluation_metrics:
            values |= self.evaluation_metrics[split].compute()
        new = {f"{split}/{name}": value.item() for name, value in values.items()}
        self.values |= new
        self.updated_this_epoch |= new.keys()
        # What self.log would do, without its half millisecond a value: the averages above are already over all
        # examples and processes. Early stopping and schedulers that wait for a metric look into callback_metrics.
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in new.items()})
        for writer in self.loggers:
            writer.log_metrics(new, self.global_step)
        for average in self.averages[split].values():
            average.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        told = lr_schedulers.missing_arguments(
            self.scheduler, self.monitor_mode, lambda: lr_schedulers.total_steps(self.trainer)
        )
        scheduler = self.scheduler(optimizer, **told)
        config = {"scheduler": scheduler, "interval": self.interval}
        config |= lr_schedulers.monitor_config(scheduler, self.monitor, self.trainer)
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[return-value]


class Regressor(Learner):
    """Outputs are values."""

    train_metric = "mse"

    def probabilities(self, outputs: Tensor) -> None:
        """None: values are no probabilities."""

    def batch_metric_sum(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Σ of squared errors, averaged over the values of an example."""
        return (self.predictions(outputs) - truth).square().mean(1).sum()


class Classifier(Learner):
    """Outputs are scores of classes or labels; the loss says which probabilities they stand for."""

    train_metric = "accuracy"

    def probabilities(self, outputs: Tensor) -> Tensor:
        """As the loss defines them, in float32 at least → (N, C) or (N, K)."""
        return self.loss.to_probabilities(outputs.to(torch.promote_types(outputs.dtype, torch.float32)))

    def batch_metric_sum(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """The number of right decisions; for labels, the mean over an example's labels."""
        if self.facts.task is Task.MULTICLASS:
            return (self.predictions(outputs).argmax(1) == truth).sum()
        return ((self.probabilities(outputs) > 0.5) == (truth > 0.5)).float().mean(1).sum()


@contextmanager
def uncompiled(network: nn.Module) -> Iterator[None]:
    """Have a network that was compiled in place run as it was written: for tracing, and for hooks in its layers."""
    compiled, network._compiled_call_impl = network._compiled_call_impl, None  # noqa: SLF001
    try:
        yield
    finally:
        network._compiled_call_impl = compiled  # noqa: SLF001


def learner_for(task: Task) -> type[Learner]:
    """The learner of a task."""
    return Regressor if task is Task.REGRESSION else Classifier

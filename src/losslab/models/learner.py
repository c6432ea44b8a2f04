"""`Learner`, the LightningModule of network, loss and metrics, and its subclasses `Regressor` and `Classifier`."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from losslab.data import random_keys
from losslab.data.batch import Batch, DataSpec
from losslab.errors import LabError
from losslab.losses.base import Loss
from losslab.models.learner_base import BaseLearner, with_known_signature
from losslab.models.logged import LoggedValues
from losslab.models.metrics import EvaluationMetrics, RunningMean, sums_of_ranks
from losslab.models.optimizers import Evaluations, check_accumulation, separate_weights, set_mode
from losslab.models.schedules import make_schedule, schedule_config
from losslab.targets import Task, choose_kind, encode


class Learner(BaseLearner):
    """Base class of the LightningModules that train and evaluate a network with a loss.

    Args:
        network: module that maps inputs to outputs (N, loss.outputs(targets)).
        loss: loss that accepts the targets of the data, either unchanged or encoded.
        spec: specification of the data.
        optimizer: function of the parameters that returns an optimizer.
        scheduler: function of the optimizer that returns a learning-rate scheduler; None for a constant rate.
        interval: "step" or "epoch", how often the scheduler steps.
        seed: seed of random draws inside the network (dropout).
        track_given_labels: whether to also compare training outputs with the targets that the loss gets, which may be
            noisy, as train/accuracy_given or train/mse_given. Its difference from the metric that uses the true targets
            shows how many wrong labels the network has memorised.

    Raises:
        LabError: the loss does not accept these targets.
    """

    train_metric: str
    """Name of the metric that is computed for every training batch. It must be cheap to compute."""

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        spec: DataSpec,
        optimizer: Callable[..., Optimizer] = torch.optim.Adam,
        scheduler: Callable[..., Any] | None = None,
        interval: str = "epoch",
        seed: int = 0,
        *,
        track_given_labels: bool = False,
    ) -> None:
        super().__init__()
        kind = choose_kind(spec.kind, loss.wants)
        if kind is None:
            raise LabError(
                f"{type(loss).__name__} takes {' or '.join(loss.wants)} targets, these data give {spec.kind}"
            )
        self.network, self.loss, self.spec, self.kind = network, loss, spec, kind
        self.optimizer, self.scheduler, self.interval, self.seed = optimizer, scheduler, interval, seed
        losses = ["loss", *(f"loss/{name}" for name in loss.term_names)]
        self.averages = {split: {name: RunningMean() for name in losses} for split in ("train", "val", "test")}
        self.averages["train"][self.train_metric] = RunningMean()
        self._given_average = RunningMean() if track_given_labels else None
        if self._given_average is not None:
            self.averages["train"][f"{self.train_metric}_given"] = self._given_average
        self.evaluation_metrics = {split: EvaluationMetrics(spec) for split in ("val", "test")}
        self.values: dict[str, float] = {}
        """Newest value of each metric by name, for callbacks: of the own metrics, and of those that callbacks log."""
        self.updated_this_epoch: set[str] = set()
        """Names of the metrics in `values` that are of this epoch. Others are older: not every epoch is validated."""
        self._logged = LoggedValues(self.metric_names)
        self._saved: dict[str, Any] | None = None  # learner state of a checkpoint, restored when training starts
        self._accumulated_weight: Tensor | None = None  # weight of the batches since the last optimizer step
        self.evaluates_repeatedly = False
        """Whether the optimizer evaluates the loss several times in a step, as LBFGS does."""
        self._evaluations = Evaluations()  # of the loss in the current step
        self._optimizer_trains = False  # the last mode of `set_mode`

    @cached_property
    def epoch_metric_names(self) -> list[str]:
        """Names of all own train and val metrics, in the order of table columns."""
        return [*(f"train/{name}" for name in self.averages["train"]), *self._evaluation_names("val")]

    @property
    def metric_names(self) -> list[str]:
        """Names of all own metrics of a run: `epoch_metric_names` and the metrics of the test set."""
        return [*self.epoch_metric_names, *self._evaluation_names("test")]

    def _evaluation_names(self, split: str) -> list[str]:
        return [f"{split}/{name}" for name in (*self.averages[split], *self.evaluation_metrics[split].names)]

    def current_values(self) -> dict[str, float]:
        """Return the metrics of this epoch: those in `epoch_metric_names`, in this order, then those of callbacks."""
        self._take_logged()
        names = [*self.epoch_metric_names, *sorted(self.values.keys() - self.metric_names)]
        return {name: self.values[name] for name in names if name in self.updated_this_epoch}

    def logged_values(self) -> dict[str, float]:
        """Return the metrics that callbacks logged in this epoch, or in the last validation or test."""
        return self._logged.newest(self.trainer)

    def _take_logged(self) -> None:
        new = self.logged_values()
        self.values |= new
        self.updated_this_epoch |= new.keys()

    def log(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Log a value, as in Lightning. Raise a LabError if it would replace a metric that the learner computes."""
        self._logged.check_name(name)
        super().log(name, *args, **kwargs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the raw outputs of the network."""
        outputs: Tensor = self.network(inputs)
        return outputs

    def predictions(self, outputs: Tensor) -> Tensor:
        """Return the predicted values or class scores that the loss computes from outputs, in float32 or float64."""
        return self.loss.to_predictions(_at_least_float32(outputs))

    def probabilities(self, outputs: Tensor) -> Tensor | None:
        """Return the probabilities (N, C) or (N, K) that the loss computes from outputs; None for regression."""
        return None

    def batch_metric_sum(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return the sum of `train_metric` over the examples of a batch, as a scalar tensor."""
        raise NotImplementedError

    def encode_target(self, target: Tensor, dtype: torch.dtype) -> Tensor:
        """Encode the target for the loss. One-hot columns have this dtype, or float32 instead of half precision."""
        return encode(target, self.spec.kind, self.kind, self.spec.targets, torch.promote_types(dtype, torch.float32))

    def setup(self, stage: str) -> None:
        counts = getattr(self.trainer.datamodule, "class_counts", None)  # type: ignore[attr-defined]
        if counts is not None:
            self.loss.set_class_counts(counts.to(self.device))

    def step(self, batch: Batch, split: str, *, update: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Compute outputs (N, ...), sum of losses () and sum of weights () of a batch, and `update` the averages."""
        outputs = self(batch.inputs)
        target = self.encode_target(batch.target, outputs.dtype)
        total, weight, terms = self.loss.total(self.loss.loss_inputs(outputs, batch.inputs, self.network), target)
        if update:
            self.averages[split]["loss"].update(total, weight)
            for name, term in terms.items():
                self.averages[split][f"loss/{name}"].update(term, weight)
        return outputs, total, weight

    @with_known_signature
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        first = self._evaluations.start_next(self)
        if not first:
            check_accumulation(self.trainer.optimizers[0], self.trainer.accumulate_grad_batches)
        if not first or self.trainer.world_size > 1:
            self._seed_step(batch_idx)
        outputs, total, weight = self.step(batch, "train", update=first)
        if first:
            with torch.no_grad():
                size = len(batch.truth)
                self.averages["train"][self.train_metric].update(self.batch_metric_sum(outputs, batch.truth), size)
                if self._given_average is not None:
                    self._given_average.update(self.batch_metric_sum(outputs, batch.target), size)
        if self.trainer.world_size == 1 and self.trainer.accumulate_grad_batches == 1:
            return total / weight
        # `backward` divides by the weight of the whole step, which is not known before. Dividing by the size of a full
        # step here keeps half-precision gradients in their usual range.
        weight = weight.detach()
        self._accumulated_weight = weight if self._accumulated_weight is None else self._accumulated_weight + weight
        loss = total * (self.trainer.world_size * self.trainer.accumulate_grad_batches / self._full_step_size)
        if self.evaluates_repeatedly and self.trainer.world_size > 1:
            # The optimizers of all ranks see one value, since they compare it with earlier ones: the mean of the step.
            sums = torch.stack([total.detach(), weight.to(total.dtype)])
            distributed.all_reduce(sums)
            loss = (loss - loss.detach()) + sums[0] / sums[1]  # in this order it is exact
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self._seed_optimizer()
        super().optimizer_step(*args, **kwargs)
        self._evaluations.end_step(self)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Backpropagate. Before the optimizer steps, scale the gradient to the mean over all examples of the step.

        Lightning gives equal weights to the gradients of all ranks and accumulated batches. Here, a step minimises one
        weighted mean over all its examples, independently of how they are divided into batches and ranks.
        """
        loss.backward(*args, **kwargs)
        # Lightning uses the same private method to decide whether the optimizer steps.
        if self._accumulated_weight is None or self.trainer.fit_loop._should_accumulate():  # noqa: SLF001
            return
        weight, self._accumulated_weight = self._accumulated_weight, None
        if self.trainer.world_size > 1:
            distributed.all_reduce(weight)
        correction = self._full_step_size / weight
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(correction)
        self._seed_optimizer()

    @property
    def _full_step_size(self) -> int:
        """Maximum number of examples in an optimizer step. The last step of an epoch can have fewer."""
        size: int = getattr(self.trainer.train_dataloader, "batch_size", None) or 1
        return size * self.trainer.accumulate_grad_batches

    def _evaluation_step(self, batch: Batch, batch_idx: int, split: str) -> Tensor:
        outputs, _, _ = self.step(batch, split)
        self.evaluation_metrics[split].update(self.predictions(outputs), self.probabilities(outputs), batch.truth)
        return outputs

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        outputs = self(batch.inputs)
        probabilities = self.probabilities(outputs)
        return self.predictions(outputs) if probabilities is None else probabilities

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the state from which an interrupted epoch continues. All ranks must call this together.

        The weights of a checkpoint are those to evaluate, also if the optimizer trains others (see `set_mode`).
        """
        sums, logged = sums_of_ranks(self.averages["train"].values()), self._logged.state_of_ranks(self.trainer)
        self._take_logged()
        loader: Any = self.trainer.train_dataloader
        checkpoint["learner"] = {
            "sums": sums,
            "values": dict(self.values),
            "fresh": sorted(self.updated_this_epoch),
            "loader": loader.state_dict(),
            "logged": logged,
        }
        if self._optimizer_trains and "current_model_state" not in checkpoint:  # the latter is of WeightAveraging
            training, evaluated = separate_weights(self.trainer.optimizers[0], self)
            checkpoint["state_dict"] = checkpoint["state_dict"] | evaluated
            checkpoint["learner"] |= {"training_weights": training} if training else {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._saved = checkpoint.get("learner")

    def on_train_start(self) -> None:
        self._set_optimizer_mode(training=True)
        saved, self._saved = self._saved, None
        if saved is None:
            return
        # Lightning restores the loader, too, but not if a scheduler has already asked for the number of steps.
        loader: Any = self.trainer.train_dataloader
        loader.load_state_dict(saved["loader"])
        with torch.no_grad():
            for name, weight in saved.get("training_weights", {}).items():
                self.get_parameter(name).copy_(weight)
        self.values, self.updated_this_epoch = dict(saved["values"]), set(saved["fresh"])
        if self.global_rank < len(saved["sums"]):  # additional ranks start from 0
            for average, sums in zip(self.averages["train"].values(), saved["sums"][self.global_rank], strict=True):
                average.sums.copy_(sums)
            if "logged" in saved:  # early versions did not save this
                self._logged.restore(saved["logged"][self.global_rank], self.trainer)

    def on_train_epoch_start(self) -> None:
        self.updated_this_epoch.clear()
        self._logged.start_epoch(self.trainer)
        self._accumulated_weight = None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        self._evaluations.start_step()
        self._seed_step(batch_idx)

    def _seed_step(self, batch_idx: int) -> None:
        # The seed depends on the step, as for all random draws, so that a resumed run gets the same dropout masks.
        seed = random_keys.key(self.seed, random_keys.STEP, self.current_epoch, batch_idx, self.global_rank)
        random_keys.seed_torch(seed, self.device)

    def _seed_optimizer(self) -> None:
        # What an optimizer draws before and after an evaluation of the loss must be the same on all ranks.
        if self.trainer.world_size > 1:
            position = self.trainer.global_step, self._evaluations.count
            random_keys.seed_torch(random_keys.key(self.seed, random_keys.STEP, *position), self.device)

    def on_validation_start(self) -> None:
        self._set_optimizer_mode(training=False)
        super().on_validation_start()

    def on_validation_end(self) -> None:
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking:
            self._set_optimizer_mode(training=True)

    def on_train_end(self) -> None:
        self._set_optimizer_mode(training=False)

    def _set_optimizer_mode(self, *, training: bool) -> None:
        self._optimizer_trains = training
        for optimizer in self.trainer.optimizers:
            set_mode(optimizer, training=training)

    def on_validation_epoch_start(self) -> None:
        # Batch-norm statistics differ between ranks. Evaluate with those of rank 0, which the checkpoint contains.
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                distributed.broadcast(buffer, src=0)

    def _reset_metrics(self, *splits: str) -> None:
        for split in splits:
            for average in self.averages[split].values():
                average.to(self.device)
            if split in self.evaluation_metrics:
                self.evaluation_metrics[split].to(self.device)

    def on_train_epoch_end(self) -> None:
        self._logged.end_epoch(self.trainer)
        super().on_train_epoch_end()

    def _log_epoch(self, split: str) -> None:
        """Compute the metrics of a split over all ranks, and pass them to callbacks and loggers."""
        new = {f"{split}/{name}": average.compute() for name, average in self.averages[split].items()}
        if split in self.evaluation_metrics:
            values = self.evaluation_metrics[split].compute()
            new |= {f"{split}/{name}": value.item() for name, value in values.items()}
        self.values |= new
        self.updated_this_epoch |= new.keys()
        # self.log would take half a millisecond a value, and these are already reduced over examples and ranks. Early
        # stopping and schedulers read callback_metrics.
        self.trainer.callback_metrics.update({name: torch.tensor(value) for name, value in new.items()})
        for logger in self.loggers:
            logger.log_metrics(new, self.global_step)
        for average in self.averages[split].values():
            average.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        scheduler = make_schedule(
            self.scheduler, optimizer, self.monitor_mode, lambda: self.schedule_length(self.interval)
        )
        config = schedule_config(scheduler, self.trainer, self.interval, self.monitor)
        return {"optimizer": optimizer, "lr_scheduler": config}  # type: ignore[return-value]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        # Overridden also because Lightning otherwise refuses schedulers that are not subclasses of torch's.
        # With val_check_interval, not every epoch has a new value of the metric.
        if metric is None or self.monitor in self.updated_this_epoch:
            super().lr_scheduler_step(scheduler, metric)


class Regressor(Learner):
    """Learner for regression. The outputs are values."""

    train_metric = "mse"

    def batch_metric_sum(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return the sum over the examples of the mean squared error of each example."""
        return (self.predictions(outputs) - truth).square().mean(1).sum()


class Classifier(Learner):
    """Learner for classification. The outputs are scores of classes or labels."""

    train_metric = "accuracy"

    def probabilities(self, outputs: Tensor) -> Tensor:
        return self.loss.to_probabilities(_at_least_float32(outputs))

    def batch_metric_sum(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return the number of correct predictions; for labels, the sum of each example's share of correct labels."""
        if self.spec.task is Task.MULTICLASS:
            return (self.predictions(outputs).argmax(1) == truth).sum()
        return ((self.probabilities(outputs) > 0.5) == (truth > 0.5)).float().mean(1).sum()


def learner_for(task: Task) -> type[Learner]:
    """Return the class of the learner for a task."""
    return Regressor if task is Task.REGRESSION else Classifier


def _at_least_float32(outputs: Tensor) -> Tensor:
    return outputs.to(torch.promote_types(outputs.dtype, torch.float32))

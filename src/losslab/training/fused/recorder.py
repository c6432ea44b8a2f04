"""The callback of a group that records what each member's run folder will contain."""

import copy
import logging
import math
import time
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from torch import Tensor
from torch.optim import Optimizer

from losslab.data.batch import Batch
from losslab.models.schedules import epochs_of_run
from losslab.training.callbacks.checkpoint import is_last_epoch
from losslab.training.callbacks.checkpoint_state import first_non_finite, non_finite_state
from losslab.training.callbacks.gradient_norms import layer_gradients, warn_once
from losslab.training.callbacks.loss_schedules import Anneal
from losslab.training.callbacks.non_finite import Finding, locate_non_finite, name_with_terms, no_finite_mean
from losslab.training.callbacks.progress import epochs_per_line
from losslab.training.callbacks.weight_trajectory import with_row
from losslab.training.distributed import worker
from losslab.training.fused import MemberResult
from losslab.training.fused.learner import FusedLearner
from losslab.training.fused.optimizers import gradient_norms

logger = logging.getLogger("losslab")

_REPORT_SECONDS = 0.25
_SAVED = (
    "rows", "columns", "times", "weights", "gradients", "warnings", "ended", "best", "finals", "shared_states",
    "final_shared", "epochs", "_every", "_rates", "_newest_is_best",
)  # fmt: skip
"""The attributes of a `Recorder` that a checkpoint contains."""


class Recorder(Checkpoint):
    """Records history, best weights, early stopping and failures of all members.

    This class is a Checkpoint, because Lightning calls checkpoint callbacks last.

    Args:
        early_stopping: the callback of each member that has one, by the index of the member.
        annealing: the `Anneal` callback of each member that has one, by the index of the member.
        path: the options of `WeightTrajectory`; none without it.
        ratio: the option of `GradientNorms`; None without it.
    """

    def __init__(
        self,
        early_stopping: dict[int, EarlyStopping],
        annealing: dict[int, Anneal],
        path: dict[str, Any],
        ratio: float | None,
    ) -> None:
        self.early_stopping, self.annealing, self.path, self.ratio = early_stopping, annealing, path, ratio
        self.rows: list[tuple[int, int, Tensor, list[str]]] = []
        """For each epoch its number, the step at its end, learning rate and metrics (1 + metrics, M), and which of the
        `columns` were computed in this epoch."""
        self.columns: list[str] = []
        self.times: list[float] = []
        """The duration of each epoch in seconds."""
        self.weights: list[tuple[int, int, Tensor]] = []
        """For each recorded epoch its number, the step, and all weights (M, P)."""
        self.gradients: list[tuple[int, dict[str, Tensor]]] = []
        """For each recorded step its number, and the norms of the gradient by name, (M,) each."""
        self.warnings: dict[int, dict[str, str]] = {}
        """For each member the warnings of `warn_once`."""
        self.ended: dict[int, dict[str, Any]] = {}
        """For each member that ended early its last epoch and step, and the reason; None for early stopping."""
        self.best: dict[str, Any] = {}
        """Of the best epoch of each member: epoch (M,), 0 if there is none; values (metrics, M); step (M,); state."""
        self.finals: dict[int, dict[str, Any]] = {}
        """The state of each member that was stopped early, as `FusedLearner.state_of` returns it."""
        self.shared_states: dict[int, dict[str, Any]] = {}
        """What the checkpoints of all members have in common, by the step at which they were taken."""
        self.final_shared: dict[str, Any] | None = None
        self.epochs: int | None = None
        """The number of epochs of the run; None if nothing limits it."""
        self._every = 1
        self._rates = torch.zeros(0)
        self._newest_is_best = torch.zeros(0, dtype=torch.bool)
        self._started = self._reported_at = 0.0
        self._results: dict[int, MemberResult] = {}
        self._has_validated = False
        self._stopping: set[int] = set()
        self._findings: dict[int, str] = {}
        """For each member whose loss is not finite in this validation or test, the batch with which this began."""

    def state_dict(self) -> dict[str, Any]:
        stopping = {index: callback.state_dict() for index, callback in self.early_stopping.items()}
        spent = time.perf_counter() - self._started
        return {name: getattr(self, name) for name in _SAVED} | {"stopping": stopping, "spent": spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state = dict(state_dict)
        self._started = time.perf_counter() - state.pop("spent")
        for index, each in state.pop("stopping").items():
            self.early_stopping[index].load_state_dict(each)
        for name, value in state.items():
            setattr(self, name, value)

    def on_fit_start(self, trainer: Trainer, pl_module: FusedLearner) -> None:
        pl_module.on_non_finite = lambda *found: self._fail(trainer, pl_module, *found)

    def on_train_start(self, trainer: Trainer, pl_module: FusedLearner) -> None:
        self.columns, self.epochs = pl_module.epoch_metric_names, epochs_of_run(trainer)
        if not self.best:
            size, networks = pl_module.size, pl_module.networks
            self._newest_is_best = torch.zeros(size, dtype=torch.bool)
            self.best = {
                "epoch": torch.zeros(size, dtype=torch.int64),
                "step": torch.zeros(size, dtype=torch.int64),
                "values": torch.full((len(self.columns), size), torch.nan, dtype=torch.float64),
                "parameters": [each.detach().clone() for each in networks.stacked_parameters],
                "buffers": [each.clone() for each in networks.buffers()],
                "optimizer": [],
            }
            self._record_weights(0, trainer.global_step, pl_module)
        self._anneal(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: FusedLearner) -> None:
        self._started = time.perf_counter()
        self._rates = pl_module.stacked_optimizer.rates()
        self._anneal(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: FusedLearner, optimizer: Optimizer) -> None:
        every, step = trainer.log_every_n_steps, trainer.global_step  # type: ignore[attr-defined]
        if self.ratio is None or not every or step % every:
            return
        layers = layer_gradients(pl_module.members[0].network, pl_module.networks.tensors()[0].items())
        norms = {name: gradient_norms(each).cpu() for name, each in layers.items()}
        if not norms:
            return
        total = {"grad_norm/total": torch.stack([*norms.values()]).square().sum(0).sqrt()}
        self.gradients.append((step, {f"weights/grad_norm/{name}": norm for name, norm in norms.items()} | total))
        # As `GradientNorms` compares the layers.
        sizes = [sum(each[0].numel() for each in own) for own in layers.values()]
        rms = torch.stack([norm / size**0.5 for norm, size in zip(norms.values(), sizes, strict=True)])
        ratios, (*names, last) = rms / rms[-1], norms
        compared = pl_module.active & rms.isfinite().all(0) & (rms[-1] != 0)
        for layer, member in (compared & ((ratios < 1 / self.ratio) | (ratios > self.ratio))).nonzero().tolist():
            warned, job = self.warnings.setdefault(member, {}), f"job {pl_module.members[member].number}: "
            warn_once(warned, names[layer], last, ratios[layer, member].item(), step, job)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: FusedLearner, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_SECONDS:
            self._reported_at = now
            self.report(trainer, pl_module, trainer.current_epoch + 1, batch_idx + 1)

    def report(self, trainer: Trainer, learner: FusedLearner, epoch: int, batch: int) -> None:
        """Send the progress to the parent process: the median of the monitored metric, and the members that failed."""
        values = learner.values.get(learner.monitor)
        median = None if values is None else values[learner.active].nanmedian().item() if learner.active.any() else None
        worker.report_progress({
            "epoch": epoch, "epochs": trainer.max_epochs,
            "batch": batch, "batches": int(trainer.num_training_batches),
            "metric": learner.monitor, "mode": learner.monitor_mode, "value": median, "members": self._results,
        })  # fmt: skip

    def on_validation_start(self, trainer: Trainer, pl_module: FusedLearner) -> None:
        # A run alone keeps, and so checks, the state before the first validation, whose duration is not known.
        if trainer.state.fn == "fit" and not self._has_validated:
            self._end_if_not_finite(trainer, pl_module, finished=False)
        self._has_validated = True

    def on_validation_end(self, trainer: Trainer, pl_module: FusedLearner) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        for member in (~pl_module.values["val/loss"].isfinite() & pl_module.active).nonzero().flatten().tolist():
            self._end(trainer, pl_module, member, self.reason(trainer, pl_module, member, "val"))
        self._findings.clear()
        values = pl_module.values[pl_module.monitor]
        known, old = self.best["epoch"] > 0, self.best["values"][self.columns.index(pl_module.monitor)]
        better = values > old if pl_module.monitor_mode == "max" else values < old
        self._newest_is_best = torch.where(known, better, ~values.isnan()) & pl_module.active
        self._newest_is_best &= pl_module.have_finite_states()
        if self._newest_is_best.any():
            self._keep_best(trainer, pl_module)
        if trainer.check_val_every_n_epoch != 1:
            self._stop_early(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: FusedLearner) -> None:
        trainer.fit_loop._restarting = False  # noqa: SLF001 -- as in BestAndLastCheckpoint
        epoch, values = trainer.current_epoch + 1, self._current_values(pl_module)
        fresh = sorted(pl_module.updated_this_epoch)
        self.rows.append((epoch, trainer.global_step, torch.cat([self._rates.unsqueeze(0), values]), fresh))
        self.times.append(time.perf_counter() - self._started)
        self._record_weights(epoch, trainer.global_step, pl_module)
        is_best = self.best["epoch"] == epoch
        is_train = torch.tensor([[name.startswith("train/")] for name in self.columns])
        # The training averages are complete only now. A later validation of this epoch may be worse than the best.
        self.best["values"] = torch.where(is_best & (is_train | self._newest_is_best), values, self.best["values"])
        if trainer.check_val_every_n_epoch == 1:
            self._stop_early(trainer, pl_module)
        for member in sorted(self._stopping):
            if pl_module.active[member]:
                self._end(trainer, pl_module, member, None)
        self._stopping.clear()
        if is_last_epoch(trainer):
            self._end_if_not_finite(trainer, pl_module, finished=True)
        if is_last_epoch(trainer) or not pl_module.active.any():
            self.final_shared = self._shared_state(trainer, pl_module)
        trainer.should_stop |= not pl_module.active.any()
        self._log(trainer, pl_module, epoch)

    def on_train_end(self, trainer: Trainer, pl_module: FusedLearner) -> None:
        self.final_shared = self.final_shared or self._shared_state(trainer, pl_module)  # None after max_time

    def _end_if_not_finite(self, trainer: Trainer, learner: FusedLearner, *, finished: bool) -> None:
        """End the members whose state contains NaN or infinity, which is not written. `finished`: see `_end`."""
        bad = ~learner.have_finite_states() & learner.active
        for member in bad.nonzero().flatten().tolist():
            name = _non_finite_tensor(learner.state_of(member))
            if name is not None:
                reason = non_finite_state(trainer.global_step, name)
                self._end(trainer, learner, member, reason, finished=finished)

    def _current_values(self, learner: FusedLearner) -> Tensor:
        """Return the values of this epoch (metrics, M); NaN for metrics that were not computed."""
        missing = torch.full((learner.size,), torch.nan, dtype=torch.float64)
        fresh = learner.updated_this_epoch
        return torch.stack([learner.values[name] if name in fresh else missing for name in self.columns])

    def _keep_best(self, trainer: Trainer, learner: FusedLearner) -> None:
        """Copy the state of the members whose newest validation was their best."""
        new, best, step = self._newest_is_best, self.best, trainer.global_step
        self.shared_states[step] = self._shared_state(trainer, learner)
        rows = new.nonzero().flatten().to(learner.device)
        optimizer = learner.stacked_optimizer
        state = optimizer.tensors()
        best["optimizer"] = best["optimizer"] or [torch.zeros_like(each) for each in state]
        tensors = [*(each.detach() for each in learner.networks.parameters()), *learner.networks.buffers(), *state]
        first_rows = [0] * (len(tensors) - len(state)) + optimizer.first_rows()
        kept = [*best["parameters"], *best["buffers"], *best["optimizer"]]
        for first, old, tensor in zip(first_rows, kept, tensors, strict=True):
            own = rows[(rows >= first) & (rows < first + len(tensor))] - first
            old.index_copy_(0, own, tensor.index_select(0, own))
        best["values"] = torch.where(new, self._current_values(learner), best["values"])
        best["epoch"][new], best["step"][new] = trainer.current_epoch + 1, step
        used = {*best["step"].tolist()}
        self.shared_states = {key: state for key, state in self.shared_states.items() if key in used}

    def _shared_state(self, trainer: Trainer, learner: FusedLearner, member: int | None = None) -> dict[str, Any]:
        """Return the parts of a checkpoint that all members share at this step, or what `member` needs of them."""
        connector: Any = trainer._checkpoint_connector  # noqa: SLF001
        loader: Any = trainer.train_dataloader
        optimizer = learner.stacked_optimizer
        configs: Any = trainer.lr_scheduler_configs
        groups = optimizer.parameter_groups()
        wanted = {*range(len(optimizer.optimizers))} if member is None else {int(optimizer.setting_of[member])}
        schedules = {
            index: dict(scheduler.state_dict())
            for config in configs
            for index, scheduler in config.scheduler.schedulers.items()
            if index in wanted
        }
        return copy.deepcopy({
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "loops": connector._get_loops_state_dict(),  # noqa: SLF001
            "loader": loader.state_dict(),
            "fresh": sorted(learner.updated_this_epoch),
            "parameter_groups": {index: groups[index] for index in wanted},
            "schedules": schedules,
        })  # fmt: skip

    def _record_weights(self, epoch: int, step: int, learner: FusedLearner) -> None:
        """Record all weights of small networks, see `WeightTrajectory`."""
        parameters = [each.detach().flatten(1) for each in learner.networks.stacked_parameters]
        if not 0 < sum(each.shape[1] for each in parameters) <= self.path.get("weights", 0):
            return
        row = (epoch, step, torch.cat(parameters, 1).cpu())
        self.weights, self._every = with_row(self.weights, row, self._every, self.path.get("rows", 10_000))

    def _stop_early(self, trainer: Trainer, learner: FusedLearner) -> None:
        """Find the members whose EarlyStopping callback decides that they stop at the end of this epoch."""
        for member, callback in self.early_stopping.items():
            if not learner.active[member] or callback.monitor not in learner.values:
                continue
            # As EarlyStopping does, with the member's own value.
            value = learner.values[callback.monitor][member].float()
            stops, reason = callback._evaluate_stopping_criteria(value)  # noqa: SLF001
            if stops:
                callback.stopped_epoch, callback.stopping_reason_message = trainer.current_epoch, reason
                self._stopping.add(member)

    def _fail(
        self, trainer: Trainer, learner: FusedLearner, what: str, members: Tensor, batch: Batch, batch_idx: int
    ) -> None:
        """Find where the loss, gradient or weights of members are not finite first, and end these members.

        A member whose validation or test loss is not finite is ended after the split, see `reason`.
        """
        split = what.rpartition("/")[0]
        for index in members.nonzero().flatten().tolist():
            ended = self.ended.get(index)
            if index in self._findings or (ended is not None and (ended["reason"] is not None or split != "test")):
                continue
            own = learner.learner_of(index)
            own_batch = batch if learner.are_shared(batch.inputs) else Batch(*(each[index] for each in batch))
            if what in {"loss", "gradient", "weight"}:
                order = trainer.datamodule.own_order(index, trainer.current_epoch, len(own_batch.index))  # type: ignore[attr-defined]
                own_batch = own_batch if order is None else Batch(*(each[order.to(each.device)] for each in own_batch))
            where = locate_non_finite(own, "loss" if split else what, own_batch)
            step, epoch = self._position(trainer, index, split)
            position = step + (what in {"loss", "gradient"}), epoch, batch_idx + 1
            name = type(learner.members[index].loss).__name__
            if what not in {"gradient", "weight"}:
                name = _loss_name(learner, index, split or "train")
            finding = str(Finding(what, where, name, position))
            if split:
                self._findings[index] = finding
            else:
                self._end(trainer, learner, index, finding)

    def reason(self, trainer: Trainer, learner: FusedLearner, member: int, split: str) -> str:
        """Return the line that says why the loss of a split is not finite for a member, as that of `FiniteGuard`."""
        step, epoch = self._position(trainer, member, split)
        name = type(learner.members[member].loss).__name__
        return self._findings.get(member) or no_finite_mean(split, name, step, epoch + (split == "test"))

    def _position(self, trainer: Trainer, member: int, split: str) -> tuple[int, int]:
        """Return the step and the epoch of a member, as an error message says them."""
        if split == "test":  # after training, current_epoch is one more
            ended = self.ended.get(member, {"step": trainer.global_step, "epoch": trainer.current_epoch})
            return ended["step"], ended["epoch"]
        return trainer.global_step, trainer.current_epoch + 1

    def _end(
        self, trainer: Trainer, learner: FusedLearner, member: int, reason: str | None, *, finished: bool = False
    ) -> None:
        """End a member: with the reason of its failure, or None if it was stopped early.

        `finished` says whether a member that failed has finished this epoch.
        """
        epoch, step = trainer.current_epoch + 1, trainer.global_step
        if reason is None:
            state = learner.state_of(member)
            if (name := _non_finite_tensor(state)) is not None:
                reason, finished = non_finite_state(step, name), True
            else:
                self.finals[member] = state | {"shared": self._shared_state(trainer, learner, member)}
        epochs = epoch if reason is None or finished else epoch - 1
        self.ended[member] = {"epoch": epoch, "step": step, "epochs": epochs, "reason": reason}
        if reason is not None:
            logger.error("job %d failed: %s", learner.members[member].number, reason)
            self._results[learner.members[member].number] = MemberResult(reason=reason)
        learner.end(member, discard=reason is not None)

    def _anneal(self, trainer: Trainer, learner: FusedLearner) -> None:
        """Set the hyperparameters of the losses that change from epoch to epoch."""
        paths = dict.fromkeys(callback.parameter for callback in self.annealing.values())
        for path in paths:
            values = [
                callback.value(trainer.current_epoch, self.epochs) if callback else math.nan
                for callback in map(self.annealing.get, range(learner.size))
            ]
            learner.losses.set_hyperparameter(path, torch.tensor(values, device=learner.device))

    def _log(self, trainer: Trainer, learner: FusedLearner, epoch: int) -> None:
        epochs = max(trainer.max_epochs or 0, epoch)
        if epoch % epochs_per_line(epochs) and epoch != epochs:
            return
        values = learner.values.get(learner.monitor)
        median = "" if values is None else f"  median {learner.monitor} {values[learner.active].nanmedian():.4g}"
        logger.info("epoch %*d/%d  %d training%s", len(str(epochs)), epoch, epochs, int(learner.active.sum()), median)


def _non_finite_tensor(state: dict[str, Any]) -> str | None:
    """Return the name of the first tensor in a state of a member that is not finite, as in a checkpoint."""
    return first_non_finite({
        "state_dict": state["state_dict"], "optimizer_states": [{"state": state["optimizer_state"]}]
    })  # fmt: skip


def _loss_name(learner: FusedLearner, member: int, split: str) -> str:
    """Return the name of a member's loss, with the terms that are not finite; see `describe_loss`."""
    loss, means = learner.members[member].loss, learner.means[split]
    terms = [term for term in loss.term_names if not means[f"loss/{term}"].sums[0, member].isfinite()]
    return name_with_terms(loss, terms)

"""Checks before the first step: of the parts, of this machine, and those of `losslab.doctor` on the first batch."""

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from losslab.data.batch import Batch, DataSpec
from losslab.data.module import ExperimentDataModule
from losslab.doctor import Finding, Severity, examine
from losslab.doctor.probe import preserve_state
from losslab.errors import LabError, message_of
from losslab.losses import catalog
from losslab.losses.adapter.adapted import Adapted
from losslab.losses.base import Loss
from losslab.models import schedules
from losslab.models.learner import Learner
from losslab.models.optimizers import check_accumulation, learning_rate, set_mode, try_step
from losslab.targets import Kind, choose_kind, encode
from losslab.training.distributed import environment
from losslab.training.instantiate import format_value

logger = logging.getLogger(__name__)

_ENOUGH_EXAMPLES = 32
"""Number of examples with which networks work that raise an exception for few."""


def check_loss(loss: Loss, spec: DataSpec) -> None:
    """Raise a LabError if the loss does not accept the targets of these data. The message lists losses that do."""
    if spec.targets < 1:
        raise LabError("these data have no classes: choose other data, or change the options of data")
    kind = choose_kind(spec.kind, loss.wants)
    if kind is None:
        fitting = [name for name in catalog.names() if choose_kind(spec.kind, catalog.wants(name)) is not None]
        raise LabError(
            f"loss {type(loss).__name__} takes {' or '.join(loss.wants)} targets, but these data give {spec.kind}: "
            f"choose one of loss={', '.join(fitting)}"
        )
    if isinstance(loss, Adapted):
        return  # `adapt` has already called the loss on such targets
    targets = {
        Kind.INDEX: torch.zeros(2, dtype=torch.int64),
        Kind.PROBABILITIES: torch.full((2, spec.targets), 1 / spec.targets),
    }
    target = targets.get(spec.kind, torch.zeros(2, spec.targets))
    outputs = torch.zeros(2, loss.outputs(spec.targets) * loss.n_views)
    loss.set_class_counts(torch.ones(spec.targets, dtype=torch.int64))  # replaced when the data are read
    loss.total(outputs, encode(target, spec.kind, kind, spec.targets, outputs.dtype))


def check_optimizer(learner: Learner, trainer: Trainer) -> None:
    """Raise a LabError unless the optimizer and the scheduler can be instantiated and take a step in this run.

    The step changes only small copies of the parameters. Set `learner.evaluates_repeatedly`.
    """
    with _list_arguments_on_error("optimizer", learner.optimizer):
        learner.optimizer(learner.parameters())
        optimizer, evaluations = try_step(learner.optimizer, learner.parameters(), trainer.strategy.root_device)
    name, precision = type(optimizer).__name__, trainer.precision_plugin
    scales = getattr(precision, "scaler", None) is not None
    learner.evaluates_repeatedly = evaluations > 1
    if evaluations > 1:
        check_accumulation(optimizer, trainer.accumulate_grad_batches)
    if evaluations > 1 and scales:
        raise LabError(
            f"optimizer: {name} evaluates the loss several times in a step, which trainer.precision=16-mixed does not "
            "allow: set trainer.precision=bf16-mixed or 32-true"
        )
    if isinstance(precision, MixedPrecision) and trainer.gradient_clip_val and _unscales(optimizer):
        raise LabError(
            f"optimizer: a fused {name} cannot be combined with trainer.gradient_clip_val and trainer.precision="
            f"{precision.precision}: leave out optimizer.fused, or set trainer.precision=32-true"
        )
    layer = next((key for key, each in learner.network.named_modules() if isinstance(each, _BatchNorm)), None)
    if layer is not None and set_mode(optimizer, training=False):
        logger.warning(
            "optimizer: %s evaluates other weights than it trains, but running statistics of BatchNorm (network.%s) "
            "are those of the latter: validation may be worse than the weights are", name, layer,
        )  # fmt: skip
    if learner.scheduler is not None:
        _check_scheduler(learner, trainer, optimizer)


def _unscales(optimizer: Optimizer) -> bool:
    """Return whether the optimizer itself divides gradients by the scale of a GradScaler, as fused ones do."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def _check_scheduler(learner: Learner, trainer: Trainer, optimizer: Optimizer) -> None:
    """Raise a LabError unless the scheduler can be instantiated and take a step."""
    factory, length = learner.scheduler, schedules.RunLength(1_000_000, "step", 1000)  # the true one is not known
    assert factory is not None  # noqa: S101 -- for the type checker
    with _list_arguments_on_error("scheduler.scheduler", factory), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns if the scheduler steps before the optimizer
        scheduler = schedules.make_schedule(factory, optimizer, learner.monitor_mode, lambda: length)
        name, required = type(scheduler).__name__, schedules.required_step_arguments(scheduler)
        if not all(hasattr(scheduler, each) for each in ("optimizer", "state_dict", "load_state_dict")):
            raise LabError(f"scheduler.scheduler: {name} is no scheduler of torch.optim.lr_scheduler: choose another")
        if len(required) > 1 or {*required} & {"epoch", "num_updates"}:
            called = f"{name}.step({', '.join(required)})"
            raise LabError(f"scheduler.scheduler: {called} is not called: only step() and step(metric) are")
        if not schedules.monitors_metric(scheduler):
            scheduler.step()
            return
        scheduler.step(0.0)
    if learner.interval == "step":
        raise LabError(
            f"scheduler.interval=step: {name} needs {learner.monitor}, which is new once an epoch at most: "
            "set scheduler.interval=epoch"
        )
    if trainer.limit_val_batches == 0:
        raise LabError(
            f"scheduler: {name} needs {learner.monitor}, but trainer.limit_val_batches=0 leaves validation out: "
            "choose another scheduler"
        )


def check_schedule(learner: Learner, trainer: Trainer, batches: int) -> None:
    """Log a warning if the learning-rate schedule does not fit the length of the run.

    Raises:
        LabError: the schedule would raise an error before the end of the run, or it needs a length that is not limited.
    """
    if learner.scheduler is None:
        return
    optimizer, _ = try_step(learner.optimizer, learner.parameters(), trainer.strategy.root_device)
    find_length = partial(schedules.run_length, trainer, batches, learner.interval)
    scheduler = schedules.make_schedule(learner.scheduler, optimizer, learner.monitor_mode, find_length)
    if not schedules.is_limited(trainer):
        return
    length = find_length()
    if schedules.monitors_metric(scheduler):
        length = replace(length, count=length.count // (trainer.check_val_every_n_epoch or 1))
    for line in schedules.find_misfits(scheduler, length):
        logger.warning("%s", line)


def limited_batches(trainer: Trainer, batches: int, split: str = "train") -> int:
    """Return how many of the batches of an epoch `trainer.limit_SPLIT_batches` leaves."""
    limit = getattr(trainer, f"limit_{split}_batches")
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def check_averaging(trainer: Trainer, batches: int) -> None:
    """Log a warning if an exponential moving average of the weights is longer than the run.

    Raises:
        LabError: it is never updated in the run.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        own = getattr(type(callback), "should_update", None) is not EMAWeightAveraging.should_update
        if own or not schedules.is_limited(trainer):
            continue
        decay = float(callback._kwargs["avg_fn"](torch.ones(()), torch.zeros(()), 1))  # noqa: SLF001
        needed = math.ceil(1 / max(1e-6, 1 - decay) - 1e-3)
        steps, epochs = (schedules.run_length(trainer, batches, unit) for unit in ("step", "epoch"))
        updates = chain(
            (step for step in range(steps.count) if callback.should_update(step_idx=step)),
            (epoch for epoch in range(epochs.count) if callback.should_update(epoch_idx=epoch)),
        )
        count, name = sum(1 for _ in islice(updates, needed)), type(callback).__name__
        if count == 0:
            raise LabError(
                f"callbacks: {name} averages nothing, because this run has {steps}: lower its update_starting_at_step, "
                "or leave it out"
            )
        if count < needed:
            logger.warning(
                "callbacks: %s with decay=%g averages over about %d updates, but this run has %d: the average is close "
                "to the first weights; set a lower decay, or more frequent updates", name, decay, needed, count,
            )  # fmt: skip


@contextmanager
def _list_arguments_on_error(key: str, partial: Any) -> Iterator[None]:
    """Replace an exception of a partial function by a LabError of one line, which lists the arguments."""
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        keywords = getattr(partial, "keywords", {}).items()
        arguments = ", ".join(f"{name}={format_value(value)}" for name, value in keywords) or "its defaults"
        name = getattr(getattr(partial, "func", partial), "__name__", "it")
        raise LabError(" ".join(f"{key}: {name} with {arguments} cannot be used: {error}".split())) from error


def check_trainer(trainer: dict[str, Any]) -> None:
    """Raise a LabError if a value of the trainer is wrong or not supported by this machine."""
    for key in ("max_epochs", "max_steps", "accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps"):
        value = trainer.get(key, 1)
        if not isinstance(value, int | None) or (value is None and key == "accumulate_grad_batches"):
            raise LabError(f"trainer.{key} must be an integer, got {format_value(value)}")
    for key in ("check_val_every_n_epoch", "gradient_clip_val", "accumulate_grad_batches", "val_check_interval"):
        value = trainer.get(key)
        is_wrong_type = key == "gradient_clip_val" and not isinstance(value, int | float | None)
        if is_wrong_type or (isinstance(value, int | float) and not value > 0):
            raise LabError(f"trainer.{key} must be a number above 0, got {format_value(value)}")
    processes = environment.current_rank().world_size
    if processes > 1:  # torchrun, srun or train.py started them
        environment.check_strategy(trainer, processes)
    else:
        count = environment.requested_processes(trainer, torch.cuda.device_count)
        if count > 1:
            raise LabError(
                f"trainer.devices asks for {count} processes, but only this one was started: use `python train.py`, "
                "which starts them, or set trainer.devices=1"
            )
    accelerator = trainer.get("accelerator", "auto")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    available = {"gpu": cuda or mps, "cuda": cuda, "mps": mps}
    if isinstance(accelerator, str) and not available.get(accelerator, True):
        raise LabError(
            f"trainer.accelerator={accelerator}: torch finds no such device on this machine; use trainer=cpu or ddp_cpu"
        )
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not cuda and not mps)
    if on_cpu and str(trainer.get("precision")) in {"16-mixed", "16"}:
        raise LabError(
            "trainer.precision=16-mixed needs a GPU (on a CPU it would silently become bfloat16): use bf16-mixed"
        )


def check_batch_norm(network: nn.Module) -> None:
    """Warn that BatchNorm uses the statistics of each rank's share of a batch."""
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        logger.warning(
            "BatchNorm uses the statistics of each process's share of a batch, so results depend on the number of "
            "processes; on GPUs, trainer.sync_batchnorm=true uses the statistics of the whole batch"
        )


def examine_first_batch(learner: Learner, data: ExperimentDataModule, trainer: Trainer) -> None:
    """Run the checks of `losslab.doctor` on the first training batch: raise its errors, log its warnings.

    This does not change the results of the run. All ranks examine the same whole batch, so they all come to the same
    result. The network and the loss are moved to the device.

    Raises:
        LabError: the checks find errors; the message has a line for each error.
    """
    learner.network.to(trainer.strategy.root_device)
    learner.loss.to(trainer.strategy.root_device)
    findings = examine_batch(learner, first_batch(data))
    options: dict[str, Any] | None = getattr(trainer.strategy, "_ddp_kwargs", None)  # None on one process
    unused = next((finding for finding in findings if finding.name == "unused-parameters"), None)
    if unused and options is not None and not any(map(options.get, ("find_unused_parameters", "static_graph"))):
        raise LabError(
            f"{unused.name}: {unused.problem}, which several processes do not allow: {unused.fix}, or set "
            "+trainer.strategy=ddp_find_unused_parameters_true"
        )
    errors = [finding.line for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        errors[-1] += "; set examine=false to train anyway"
        raise LabError("\n".join(errors))
    counts = data.class_counts
    for finding in findings:
        if finding.name != "classes-missing" or counts is None or counts.all():  # else `find_degenerate` named them
            logger.warning("%s", finding)


def check_last_batch(learner: Learner, data: ExperimentDataModule, trainer: Trainer, *, sync: bool = False) -> None:
    """Check that network and loss take as few examples as a process gets of the last batch of an epoch.

    With `sync`, BatchNorm uses the examples of all processes, so that the whole batch counts.

    Raises:
        LabError: they raise an exception for so few examples, as BatchNorm may for a single one.
    """
    examples, ranks = data.splits["train"].size, 1 if sync else trainer.world_size
    size = min(data.batch_size or examples, examples)
    if not size:
        return
    batches = math.ceil(examples / size)
    uses_last = limited_batches(trainer, batches) == batches
    last = (uses_last and examples % size) or size
    share = max(1, last // ranks)
    if share >= _ENOUGH_EXAMPLES or (last == size and ranks == 1):  # the latter are the batches that the doctor tries
        return
    batch = first_batch(data)
    error = _training_error(learner, batch, share)
    if error is None or _training_error(learner, batch, _ENOUGH_EXAMPLES) is not None:
        return
    enough = next(
        (
            count
            for count in range(share + 1, max(size, _ENOUGH_EXAMPLES))
            if _training_error(learner, batch, count) is None
        ),
        size,
    )
    fits = [count for count in range(1, examples + 1) if (examples % count or count) // ranks >= enough]
    near = sorted(fits, key=lambda count: abs(count - size))[:2]
    share_of = f" ({share} for a process)" if ranks > 1 else ""
    advice = f"set data.batch_size={' or '.join(map(str, sorted(near)))}" if near else "use fewer processes"
    raise LabError(
        f"the last batch of an epoch has {last} example{'s' * (last > 1)}{share_of}, too few for this network and loss "
        f"({message_of(error, 100)}): {advice}"
    )


def _training_error(learner: Learner, batch: Batch, count: int) -> Exception | None:
    """Return the exception that network and loss raise for the first `count` examples in training; None if none."""
    weight = next((p for p in learner.network.parameters() if p.is_floating_point()), batch.inputs)
    inputs, target = batch.inputs[:count].to(weight), batch.target[:count].to(weight.device)
    with preserve_state(learner.network, learner.loss), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training will repeat every warning
        learner.network.train()
        try:
            outputs = learner(inputs.clone())
            target = learner.encode_target(target, outputs.dtype)
            learner.loss.total(learner.loss.loss_inputs(outputs, inputs, learner.network), target)
        except Exception as error:  # noqa: BLE001 -- it may raise anything
            return error
    return None


def first_batch(data: ExperimentDataModule) -> Batch:
    """Return the first batch of the first epoch, with the examples of all ranks, on the device of the data."""
    return data.train_dataloader().peek()


def examine_batch(learner: Learner, batch: Batch) -> list[Finding]:
    """Examine network, loss and optimizer with `losslab.doctor` on a batch, with targets encoded as in training."""
    dtype = next((p.dtype for p in learner.network.parameters() if p.is_floating_point()), torch.float32)
    target = learner.encode_target(batch.target, dtype)
    target = target.to(dtype) if target.is_floating_point() else target
    loss = learner.loss if learner.loss.n_views == 1 else _SameViews(learner.loss)
    optimizer = learner.optimizer(learner.parameters())
    return examine(learner.network, loss, (batch.inputs.to(dtype), target), optimizer=optimizer)


class _SameViews(Loss):
    """Scores one set of outputs as every view of a loss, so that `losslab.doctor` can examine the network alone."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss, self.wants, self.name = loss, loss.wants, type(loss).__name__

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss (N,) of outputs (N, C)."""
        return self.loss.score(torch.cat([outputs] * self.loss.n_views, dim=1), target)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Return the probabilities (N, C) of outputs (N, C)."""
        return self.loss.to_probabilities(outputs)


def describe_setup(choices: Mapping[str, str | None], learner: Learner, batch: Batch) -> str:
    """Describe network, loss, optimizer and batch in three lines."""
    parameters = sum(p.numel() for p in learner.network.parameters())
    rate = learning_rate(learner.optimizer(learner.parameters()))
    name = getattr(learner.loss, "name", type(learner.loss).__name__)
    loss = name if name == choices["loss"] else f"{choices['loss']} ({name})"
    return (
        f"network     {choices['model']}, {parameters:,} parameters\n"
        f"loss        {loss}, {choices['optimizer']} at lr {rate:g}\n"
        f"batch       {choices['data']}, inputs {tuple(batch.inputs.shape)}, {learner.kind} targets"
    )

"""Learning-rate schedules: arguments that depend on the length of the run, and schedules that do not fit the run."""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, inf
from typing import Any, Literal

from lightning import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.optim import Optimizer, lr_scheduler
from torch.optim.swa_utils import SWALR

from losslab.errors import LabError

_LENGTHS = ("total_steps", "T_max")
"""Arguments that are filled in with the length of the run, even if they have a default."""
_REQUIRED_LENGTHS = ("num_training_steps", "max_steps", "num_steps", "total_iters", "max_iters", "max_iter")
_REQUIRED_EPOCHS = ("epochs", "max_epochs", "num_epochs", "total_epochs")
_PER_EPOCH = re.compile("per_?epoch|epoch_?(size|len)|loader|batches")
"""An argument like this means that `epochs` count epochs. In other schedules, they count what the schedule steps by."""
_NEGLIGIBLE = 1e-6
"""A schedule that lowers the rate to this fraction by the middle of the run has effectively ended there."""


@dataclass(frozen=True)
class RunLength:
    """The number of times that a schedule steps in a run."""

    count: int
    """The number of optimizer steps or of epochs. A last epoch that max_steps ends early is counted, too."""
    unit: Literal["step", "epoch"]
    per_epoch: int
    """The number of steps of the schedule in an epoch; 1 if it steps once an epoch."""

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return ceil(self.count / self.per_epoch)

    def __str__(self) -> str:
        return f"{self.count} {self.unit}{'s' * (self.count != 1)}"


def is_limited(trainer: Trainer) -> bool:
    """Return whether a run has a largest number of epochs or of steps."""
    return trainer.max_epochs not in (None, -1) or trainer.max_steps != -1


def run_length(trainer: Trainer, batches: int, interval: str) -> RunLength:
    """Return the length of a run with this number of training batches in an epoch.

    Raises:
        LabError: neither the number of epochs nor of steps is limited.
    """
    epochs = inf if trainer.max_epochs in (None, -1) else trainer.max_epochs
    limit = inf if trainer.max_steps == -1 else trainer.max_steps
    if not is_limited(trainer):
        raise LabError("this scheduler needs a number of steps: set trainer.max_epochs or trainer.max_steps")
    kind = GradientAccumulationScheduler
    varying = next((each for each in trainer.callbacks if isinstance(each, kind)), None)  # type: ignore[attr-defined]
    per_epoch = max(1, ceil(batches / trainer.accumulate_grad_batches))
    epoch = 0 if varying else min(epochs, ceil(limit / per_epoch) if limit < inf else inf)
    steps = epoch * per_epoch
    while varying and epoch < epochs and steps < limit:
        per_epoch = max(1, ceil(batches / varying.get_accumulate_grad_batches(int(epoch))))
        epoch, steps = epoch + 1, steps + per_epoch
    if interval == "epoch":
        return RunLength(int(epoch), "epoch", 1)
    return RunLength(int(min(steps, limit)), "step", per_epoch)


def epochs_of_run(trainer: Trainer) -> int | None:
    """Return the number of epochs of a run, also if `max_steps` limits it; None if nothing does.

    Call this in on_train_start or later, when the number of batches is known.
    """
    return run_length(trainer, int(trainer.num_training_batches), "epoch").count if is_limited(trainer) else None


def make_schedule(factory: Callable[..., Any], optimizer: Optimizer, mode: str, length: Callable[[], RunLength]) -> Any:
    """Make a scheduler and the schedulers and functions nested in it. Fill in the arguments that depend on the run.

    Args:
        factory: function of the optimizer, usually a partial function. Its keywords may be such functions themselves,
            as the `schedulers` of a SequentialLR, or partial functions that need the length, as an `lr_lambda`.
        optimizer: the optimizer.
        mode: "min" or "max", for schedulers that monitor the metric.
        length: returns the length of the run; it is called only if an argument needs it.
    """
    keywords = getattr(factory, "keywords", {})
    nested = {}
    for name, value in keywords.items():
        if isinstance(value, Sequence) and any(isinstance(each, partial) for each in value):
            lengths = [length] * len(value)
            if getattr(factory, "func", None) is lr_scheduler.SequentialLR:
                lengths = [partial(_segment, length, keywords["milestones"], index) for index in range(len(value))]
            nested[name] = [_complete(each, optimizer, mode, own) for each, own in zip(value, lengths, strict=True)]
        elif isinstance(value, partial):
            nested[name] = _complete(value, optimizer, mode, length)
    arguments = nested | _missing_arguments(factory, mode, length)
    if "optimizer" in inspect.signature(factory).parameters:  # not always the first: see ChainedScheduler
        return factory(optimizer=optimizer, **arguments)
    return factory(optimizer, **arguments)


def _complete(value: Any, optimizer: Optimizer, mode: str, length: Callable[[], RunLength]) -> Any:
    if not isinstance(value, partial):
        return value
    if "optimizer" in inspect.signature(value).parameters:
        return make_schedule(value, optimizer, mode, length)
    return partial(value, **_missing_arguments(value, mode, length))


def schedule_config(scheduler: Any, trainer: Trainer, interval: str, metric: str) -> dict[str, Any]:
    """Return when Lightning shall call `step` of a scheduler, and with which metric if the scheduler takes one."""
    config = {"scheduler": scheduler, "interval": interval}
    if monitors_metric(scheduler):
        # Step in epochs with validation only: the others have no new value of the metric.
        frequency = trainer.check_val_every_n_epoch or 1
        config |= {"reduce_on_plateau": True, "monitor": metric, "frequency": frequency, "strict": False}
    return config


def _segment(length: Callable[[], RunLength], milestones: Sequence[int], index: int) -> RunLength:
    """Return the part of the run in which a SequentialLR uses the schedule with this index."""
    whole = length()
    bounds = [0, *milestones, whole.count]
    return replace(whole, count=max(1, bounds[index + 1] - bounds[index]))


def _missing_arguments(factory: Callable[..., Any], mode: str, length: Callable[[], RunLength]) -> dict[str, Any]:
    """Return the arguments that depend on the run and that the configuration leaves open.

    The length is counted in the unit in which the schedule steps, also if the argument is called `epochs`, unless the
    schedule knows the number of steps per epoch.
    """
    given = {name for name, value in getattr(factory, "keywords", {}).items() if value is not None}
    parameters = {name: each for name, each in inspect.signature(factory).parameters.items() if name not in given}
    required = {name for name, each in parameters.items() if each.default is each.empty}
    pair = {"epochs", "steps_per_epoch"}  # of OneCycleLR, instead of total_steps
    open_lengths = parameters.keys() & set(_LENGTHS) | required & set(_REQUIRED_LENGTHS)
    open_epochs = required & {*_REQUIRED_EPOCHS, "steps_per_epoch"}
    if pair & given:
        open_lengths -= {"total_steps"}
        open_epochs |= pair & parameters.keys()
    arguments: dict[str, Any] = {}
    if open_lengths or open_epochs:
        run = length()
        epochs = run.epochs if _knows_epochs(inspect.signature(factory).parameters) else run.count
        arguments |= dict.fromkeys(open_lengths, run.count) | dict.fromkeys(open_epochs, epochs)
        if "steps_per_epoch" in open_epochs:
            arguments["steps_per_epoch"] = run.per_epoch
    if "mode" in parameters and parameters["mode"].default in (inspect.Parameter.empty, "min", "max"):
        arguments["mode"] = mode  # of ReduceLROnPlateau and the like; the mode of CyclicLR is another
    return arguments


def _knows_epochs(names: Iterable[str]) -> bool:
    return any(map(_PER_EPOCH.search, names))


def required_step_arguments(scheduler: Any) -> list[str]:
    """Return the names of the arguments without a default of a scheduler's `step`."""
    parameters = inspect.signature(scheduler.step).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in variable]


def monitors_metric(scheduler: Any) -> bool:
    """Return whether `step` takes the value of the monitored metric, as that of ReduceLROnPlateau."""
    return isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) or bool(required_step_arguments(scheduler))


def find_misfits(
    scheduler: Any, length: RunLength, key: str = "scheduler.scheduler", whose: str = "this run"
) -> Iterator[str]:  # fmt: skip
    """Yield a line for each part of a schedule that never reaches its end or peak in the run, or ends long before it.

    Args:
        scheduler: the scheduler; the schedulers of a SequentialLR or ChainedScheduler are examined, too.
        length: the length of the run; for a scheduler that monitors a metric, the number of its values.
        key: config key of the scheduler.
        whose: what has this length, for the lines.

    Raises:
        LabError: the scheduler would raise an error before the end of the run.
    """
    name, parts = type(scheduler).__name__, getattr(scheduler, "_schedulers", ())
    bounds = [0] * len(parts)
    if isinstance(scheduler, lr_scheduler.SequentialLR):
        bounds, whose = [0, *scheduler._milestones], "its part of the run"  # noqa: SLF001
    ends = [*bounds[1:], length.count] if any(bounds) else [length.count] * len(parts)
    for index, (part, start, end) in enumerate(zip(parts, bounds, ends, strict=True)):
        own = replace(length, count=min(end, length.count) - start)
        if own.count > 0:
            yield from find_misfits(part, own, f"{key}.schedulers[{index}]", whose)
        else:
            problem = f"{type(part).__name__} starts after {start} {length.unit}s"
            yield f"scheduler: {problem}, but this run has {length}: set {key}.milestones below {length.count}"
    for argument, value, problem, fix in _misfits(scheduler, length):
        shown = f"{value:g}" if isinstance(value, float) else value
        line = f"scheduler: {name} {problem.format(f'{argument}={shown} {length.unit}s')}, but {whose} has {length}"
        line += f": set {key}.{argument}{fix or f'={length.count}'}"
        other = "epoch" if length.unit == "step" else "step"
        if fix is None and (value > length.count) == (length.unit == "epoch"):
            line += f", or scheduler.interval={other} if it counts {other}s"
        if isinstance(scheduler, lr_scheduler.OneCycleLR) and value < length.count:
            raise LabError(line)  # it raises an error if it steps too often
        yield line


def _misfits(  # noqa: C901, PLR0912 -- a case for each kind of scheduler
    scheduler: Any, length: RunLength
) -> Iterator[tuple[str, Any, str, str | None]]:
    """Yield (argument, value, problem, fix) for a scheduler without those nested in it.

    In the problem, {} stands for the argument, its value and unit. The fix None sets it to the length of the run.
    """
    count, last = length.count, length.count - 1  # the rate after the last step is never used
    too_long, below = "ends after {}", f" below {count}"
    higher = " higher, or scheduler.interval=epoch" if length.unit == "step" else " higher"
    match scheduler:
        case lr_scheduler.ReduceLROnPlateau(patience=patience) if patience + 2 > last:
            yield "patience", patience, "lowers the rate after more than {} without improvement", f" below {count - 2}"
        case lr_scheduler.OneCycleLR(total_steps=total) if total != count:
            yield "total_steps", total, too_long, None
        case lr_scheduler.CosineAnnealingLR(T_max=total) if total > count or total < last:
            yield "T_max", total, too_long if total > count else "raises the rate again after {}", None
        case lr_scheduler.CosineAnnealingWarmRestarts(T_0=total) if total > count:
            yield "T_0", total, too_long, None
        case lr_scheduler.CyclicLR(total_size=total, step_ratio=ratio) if total > count:
            yield "step_size_up", round(total * ratio), "rises for {} and then falls", f"={max(1, count // 2)} or less"
        case lr_scheduler.StepLR(step_size=size) if size > last:
            yield "step_size", size, "lowers the rate after {}", below
        case lr_scheduler.StepLR(step_size=size, gamma=gamma) if abs(gamma) ** (count // 2 // size) < _NEGLIGIBLE:
            yield "step_size", size, "lowers the rate every {}, almost to 0 by the middle of the run", higher
        case lr_scheduler.ExponentialLR(gamma=gamma) if abs(gamma) ** (count // 2) < _NEGLIGIBLE:
            yield "gamma", gamma, "lowers the rate almost to 0 by the middle of the run", higher
        case lr_scheduler.MultiStepLR(milestones=milestones) if max(milestones, default=0) > last:
            late = min(each for each in milestones if each > last)
            yield "milestones", late, "lowers the rate after {}", below
        case lr_scheduler.LinearLR(total_iters=total) | lr_scheduler.ConstantLR(total_iters=total) if total > count:
            yield "total_iters", total, too_long, None
        case lr_scheduler.PolynomialLR(total_iters=total) if total > count or total < last:
            yield "total_iters", total, too_long if total > count else "lowers the rate to 0 after {}", None
        case SWALR(anneal_epochs=total) if total > count:
            yield "anneal_epochs", total, "reaches swa_lr after {}", f"={count} or less"
        case lr_scheduler.LinearLR(total_iters=total, end_factor=0) if total < last:
            yield "total_iters", total, "lowers the rate to 0 after {}", None
    yield from _misfits_of_own_numbers(scheduler, length)


def _misfits_of_own_numbers(scheduler: Any, length: RunLength) -> Iterator[tuple[str, Any, str, str | None]]:
    """Yield the same for the lengths and warm-ups that a scheduler or an `lr_lambda` from outside torch contains."""
    holders = [] if type(scheduler).__module__.startswith("torch.") else [vars(scheduler)]
    for function in getattr(scheduler, "lr_lambdas", ()):
        if inspect.isfunction(function):
            holders.append(inspect.getclosurevars(function).nonlocals)
        else:
            holders.append(getattr(function, "keywords", None) or getattr(function, "__dict__", {}))
    numbers = {name: value for holder in holders for name, value in holder.items() if type(value) in (int, float)}
    names = {*_LENGTHS, *_REQUIRED_LENGTHS, *_REQUIRED_EPOCHS}
    if isinstance(scheduler, lr_scheduler.OneCycleLR | lr_scheduler.CosineAnnealingLR | lr_scheduler.PolynomialLR):
        names = set()  # `_misfits` has compared it
    knows_epochs = _knows_epochs([*inspect.signature(type(scheduler)).parameters, *numbers])
    for name, value in numbers.items():
        is_epoch = knows_epochs and "epoch" in name
        count = length.epochs if is_epoch else length.count
        shown = f"{name}={value} epochs of {length.per_epoch} steps" if is_epoch and length.unit == "step" else "{}"
        if re.search("warm_?up", name.lower()) and value > count:
            yield name, value, f"warms up for {shown}", f" below {count}"
        elif name in names and not count - 1 <= value <= count:
            yield name, value, f"ends after {shown}", f"={count}"

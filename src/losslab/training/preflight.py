"""The doctor in the lab: the first training batch of a run is looked at before its first step.

What is looked at before anything is computed: do the parts fit each other, and this machine?
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import ReduceLROnPlateau

from losslab.data.batch import Batch, DataSpec
from losslab.data.module import ExperimentDataModule
from losslab.doctor import Finding, Severity, examine
from losslab.errors import LabError
from losslab.losses import catalog
from losslab.losses.adapter.adapted import Adapted
from losslab.losses.base import Loss
from losslab.models.learner import Learner, missing_scheduler_arguments
from losslab.targets import Kind, choose_kind, encode
from losslab.training import instantiate
from losslab.training.distributed import environment

logger = logging.getLogger(__name__)


def check(learner: Learner, data: ExperimentDataModule, device: torch.device) -> None:
    """Refuse a run in which something is surely wrong, and warn of what is likely wrong.

    Nothing that the run computes is changed by it. Every process of a run looks at the same batch, the whole of the
    first, so all of them refuse it or none. The network is moved to the device now, as training would.

    Raises:
        LabError: a line for each thing that is surely wrong.
    """
    learner.network.to(device)
    learner.loss.to(device)
    found = findings(learner, first_batch(data))
    wrong = [finding.line for finding in found if finding.severity is Severity.ERROR]
    if wrong:
        wrong[-1] += "; examine=false trains all the same"
        raise LabError("\n".join(wrong))
    for finding in found:
        logger.warning("%s", finding)


def first_batch(data: ExperimentDataModule) -> Batch:
    """The first batch of the first epoch, over all processes, on the CPU unless the data lie elsewhere."""
    return data.train_dataloader().peek()


def findings(learner: Learner, batch: Batch) -> list[Finding]:
    """What the doctor finds in a learner's network, loss and optimizer on a batch, encoded as the learner does it."""
    dtype = next((p.dtype for p in learner.network.parameters() if p.is_floating_point()), torch.float32)
    target = encode(batch.target, learner.spec.kind, learner.kind, learner.spec.targets, dtype)
    optimizer = learner.optimizer(learner.parameters())
    loss = learner.loss if learner.loss.n_views == 1 else _Agreeing(learner.loss)
    return examine(learner.network, loss, (batch.inputs.to(dtype), _as(dtype, target)), optimizer=optimizer)


class _Agreeing(Loss):
    """A loss that scores several sets of outputs, given the same in each: what can be tried on a network alone."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss, self.wants, self.name = loss, loss.wants, type(loss).__name__

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, C) and the target → (N,)."""
        return self.loss.score(torch.cat([outputs] * self.loss.n_views, dim=1), target)

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """As the loss says → (N, C)."""
        return self.loss.to_probabilities(outputs)


def looked_at(choices: Mapping[str, str | None], learner: Learner, batch: Batch) -> str:
    """What an examination of this batch looks at, in three lines."""
    parameters = sum(p.numel() for p in learner.network.parameters())
    group = learner.optimizer(learner.parameters()).param_groups[0]
    name = getattr(learner.loss, "name", type(learner.loss).__name__)
    lines = {
        "network": f"{choices['model']}, {parameters:,} parameters",
        "loss": f"{choices['loss']} ({name}), {choices['optimizer']} at lr {group['lr']:g}",
        "batch": f"{choices['data']}, inputs {tuple(batch.inputs.shape)}, {learner.kind} targets",
    }
    return "\n".join(f"{label:<11} {value}" for label, value in lines.items())


def _as(dtype: torch.dtype, target: Tensor) -> Tensor:
    """Real values in the precision that training will bring them to; indices as they are."""
    return target.to(dtype) if target.is_floating_point() else target


def check_pair(loss: Loss, spec: DataSpec) -> None:
    """Refuse a loss that cannot learn from these targets, or that was set up for others.

    Raises:
        LabError: it names the losses that would fit.
    """
    if spec.targets < 1:
        raise LabError("these data have no classes")
    kind = choose_kind(spec.kind, loss.wants)
    if kind is None:
        raise LabError(
            f"loss {type(loss).__name__} takes {' or '.join(loss.wants)} targets, but these data give {spec.kind}: "
            f"choose one of loss={', '.join(fitting_losses(spec.kind))}"
        )
    if isinstance(loss, Adapted):
        return  # it was tried when it was adapted
    target = _specimen(spec)
    outputs = torch.zeros(len(target), loss.outputs(spec.targets) * loss.n_views)
    loss.set_class_counts(torch.ones(spec.targets, dtype=torch.int64))  # of the data, when they are read
    loss.per_example(outputs, encode(target, spec.kind, kind, spec.targets, outputs.dtype))


def check_optimizer(learner: Learner) -> None:
    """Refuse now what the optimizer or the scheduler would refuse when training begins, or after its first step.

    Raises:
        LabError: in their own words.
    """
    with _tried("optimizer", learner.optimizer):
        optimizer = learner.optimizer(learner.parameters())
    if type(optimizer).__module__.startswith("torch.optim."):  # another may need the network's own parameters
        weight = nn.Parameter(torch.zeros(2, 2, dtype=next(learner.parameters()).dtype))
        weight.grad = torch.zeros_like(weight)
        with _tried("optimizer", learner.optimizer):
            optimizer = learner.optimizer([weight])
            optimizer.step(lambda: 0.0)
    if learner.scheduler is None:
        return
    with _tried("scheduler.scheduler", learner.scheduler), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its step comes before the optimizer's
        told = missing_scheduler_arguments(learner.scheduler, learner.monitor_mode, lambda: _MANY)
        scheduler = learner.scheduler(optimizer, **told)
        scheduler.step(*([0.0] if isinstance(scheduler, ReduceLROnPlateau) else []))


_MANY = 1_000_000
"""Steps of a run whose length is not known yet."""


@contextmanager
def _tried(place: str, made: Any) -> Iterator[None]:
    """Whatever is raised by what a user has chosen, as a line that says what was chosen."""
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        chosen = ", ".join(f"{key}={instantiate.shown(value)}" for key, value in getattr(made, "keywords", {}).items())
        name = getattr(getattr(made, "func", made), "__name__", "it")
        raise LabError(
            " ".join(f"{place}: {name} with {chosen or 'its defaults'} cannot be used: {error}".split())
        ) from error


def check_length(config: dict[str, Any]) -> None:
    """Refuse a training that would take no step.

    Raises:
        LabError: it names the setting.
    """
    for key in ("max_epochs", "max_steps", "limit_train_batches"):
        if config["train"] and config["trainer"].get(key) == 0:
            raise LabError(f"trainer.{key}=0 trains nothing: set it above 0, or train=false to test alone")


def check_machine(trainer: dict[str, Any]) -> None:
    """Refuse numbers that are none, devices that are not here, and a precision that would become another.

    Raises:
        LabError: it names the setting that works.
    """
    for key in ("max_epochs", "max_steps", "accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps"):
        if not isinstance(trainer.get(key), int | None):
            raise LabError(f"trainer.{key} must be a whole number, got {trainer[key]!r}")
    every, clip = trainer.get("check_val_every_n_epoch"), trainer.get("gradient_clip_val")
    accumulate = trainer.get("accumulate_grad_batches", 1)
    above_0 = (every is None or every > 0) and (clip is None or (isinstance(clip, int | float) and clip > 0))
    if not above_0 or accumulate is None or accumulate < 1:
        raise LabError(
            "trainer.check_val_every_n_epoch, gradient_clip_val and accumulate_grad_batches must be above 0: "
            f"got {every}, {clip} and {accumulate}"
        )
    within = trainer.get("val_check_interval")
    if isinstance(within, int | float) and not within > 0:
        raise LabError(f"trainer.val_check_interval must be above 0, got {within}")
    _check_processes(trainer)
    accelerator = trainer.get("accelerator", "auto")
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    here = {"gpu": cuda or mps, "cuda": cuda, "mps": mps}
    if isinstance(accelerator, str) and not here.get(accelerator, True):
        raise LabError(
            f"trainer.accelerator={accelerator}: torch sees no such device on this machine; use trainer=cpu or ddp_cpu"
        )
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not cuda and not mps)
    if on_cpu and str(trainer.get("precision")) in {"16-mixed", "16"}:
        raise LabError(
            "trainer.precision=16-mixed needs a GPU (on a CPU it would silently become bfloat16): use bf16-mixed"
        )


def _check_processes(trainer: dict[str, Any]) -> None:
    if environment.current_rank().world_size > 1:
        return  # whoever started these processes decided how many there are
    count = environment.requested_processes(trainer, torch.cuda.device_count)
    if count > 1:
        raise LabError(
            f"trainer.devices asks for {count} processes, and here is one: `python train.py` starts them by itself, "
            f"from Python set trainer.devices=1"
        )


def check_shares(network: nn.Module, examples: int, batch_size: int | None, world: int) -> None:
    """Refuse batches of which a process would get nothing to take BatchNorm's statistics of, and warn that they differ.

    Raises:
        LabError: it names the size of the batch.
    """
    names = [name for name, module in network.named_modules() if isinstance(module, _BatchNorm)]
    if not names:
        return
    last = examples % (batch_size or examples) or (batch_size or examples)
    if last <= world:
        raise LabError(
            f"the last batch of an epoch has {last} examples: too few for the BatchNorm of {world} processes "
            f"(network.{names[0]}); choose another data.batch_size"
        )
    logger.warning(
        "BatchNorm takes its statistics of each process's share of a batch, so results depend on their number; "
        "on GPUs trainer.sync_batchnorm=true takes those of the whole"
    )


def fitting_losses(kind: Kind) -> list[str]:
    """The names of the configured losses that can learn from targets of this kind."""
    return [name for name in catalog.names() if choose_kind(kind, catalog.wants(name)) is not None]


def _specimen(spec: DataSpec) -> Tensor:
    """Two targets such as these data give."""
    if spec.kind is Kind.INDEX:
        return torch.zeros(2, dtype=torch.int64)
    if spec.kind is Kind.PROBABILITIES:
        return torch.full((2, spec.targets), 1 / spec.targets)
    return torch.zeros(2, spec.targets)

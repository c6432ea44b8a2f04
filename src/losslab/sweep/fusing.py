"""Forms groups of jobs that train as one (`hydra.launcher.fuse`). Imports no torch."""

import contextlib
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from losslab import runs
from losslab.errors import LabError, message_of
from losslab.io import atomic
from losslab.io.terminal import ignore_output_errors
from losslab.io.untrusted import read_json
from losslab.runs import RunFolder
from losslab.runs.config import identity
from losslab.runs.renames import rename_targets
from losslab.runs.trust import leaves
from losslab.sweep.state import Fuse, Job, JobGroup, Sweep
from losslab.training.fused import REFUSAL, FusedMember, MemberResult

logger = logging.getLogger("losslab")

RESULTS = "results.json"
"""The file in the folder of a group that is written when the group has ended."""
_AUTO_SIZE = 1024
"""The largest number of jobs in a group with fuse=auto."""
_AUTO_MODELS = ("losslab.models.linear.linear", "losslab.models.linear.mlp")
"""The models of which groups were measured to be faster than single jobs on every device."""
_MAY_DIFFER = (
    "seed", "name", "run_dir", "tags", "notes", "choices", "per_run", "made_with", "optimized_metric", "loss",
    "scheduler",
)  # fmt: skip
"""Keys whose values may differ between the members of a group, with all keys below them."""
_OPTIMIZERS = ("torch.optim.SGD", "torch.optim.Adam", "torch.optim.AdamW", "torch.optim.RMSprop")
_SCHEDULE_CALLBACKS = ("lightning.pytorch.callbacks.EarlyStopping", "losslab.training.callbacks.loss_schedules.Anneal")
"""Callbacks whose numbers may differ between the members of a group."""
_CALLBACKS = (
    *_SCHEDULE_CALLBACKS,
    "lightning.pytorch.callbacks.early_stopping.EarlyStopping",
    "losslab.training.callbacks.checkpoint.BestAndLastCheckpoint",
    "losslab.training.callbacks.gradient_norms.GradientNorms",
    "losslab.training.callbacks.history.History",
    "losslab.training.callbacks.non_finite.FiniteGuard",
    "losslab.training.callbacks.progress.ProgressBar",
    "losslab.training.callbacks.tensorboard.Dashboard",
    "losslab.training.callbacks.weight_trajectory.WeightTrajectory",
)
_NEEDED = (
    "losslab.training.callbacks.checkpoint.BestAndLastCheckpoint",
    "losslab.training.callbacks.history.History",
    "losslab.training.callbacks.non_finite.FiniteGuard",
)
"""Callbacks whose effect on the results or the files a group always has."""
_LOGGER = "losslab.training.loggers.RunLogger"
_TRAINER: dict[str, tuple[Any, ...]] = {
    "accelerator": ("auto", "cpu", "gpu", "cuda"),
    "devices": (1, "1"),
    "num_nodes": (1,),
    "strategy": ("auto",),
    "max_steps": (-1,),
    "precision": ("32-true", "64-true", "bf16-mixed", "32", "64", 32, 64),
    "accumulate_grad_batches": (1,),
    "deterministic": (False,),
    "fast_dev_run": (False,),
    "overfit_batches": (0, 0.0),
    "limit_train_batches": (1.0,),
    "limit_val_batches": (1.0,),
    "limit_test_batches": (1.0,),
    "num_sanity_val_steps": (0,),
    "sync_batchnorm": (False, True),
    "benchmark": (False, True),
    "enable_checkpointing": (True,),
    "inference_mode": (True,),
    "use_distributed_sampler": (False, True),
    "detect_anomaly": (False,),
    "barebones": (False,),
    "reload_dataloaders_every_n_epochs": (0,),
}
"""The values that the arguments of a trainer may have in a group, besides None."""
_TRAINER_ANY = (
    "_target_", "max_epochs", "gradient_clip_val", "gradient_clip_algorithm", "check_val_every_n_epoch",
    "log_every_n_steps", "enable_progress_bar", "enable_model_summary", "default_root_dir",
)  # fmt: skip
"""The arguments of a trainer that may have any value in a group."""
_OTHER_NETWORKS = ("GaussianNLL", "CosineSoftmax", "LDAM")
"""Losses for which the last layer of a network differs from that for other losses."""


class RecordedMember(NamedTuple):
    """A member of a group as recorded in jobs.json."""

    job: int
    identity: str
    """The value of `losslab.runs.config.identity` for its configuration."""


def parse_fuse(fuse: object) -> Fuse:
    """Return the value of `hydra.launcher.fuse`.

    Raises:
        LabError: it is not valid.
    """
    if fuse == "auto":
        return "auto"
    if fuse is None or (isinstance(fuse, int) and not isinstance(fuse, bool) and fuse >= 2):
        return fuse
    raise LabError(f"hydra.launcher.fuse must be an integer of at least 2, auto, or null: got {fuse!r}")


def why_alone(config: Mapping[str, Any]) -> str | None:
    """Return why a job with this resolved configuration cannot train in a group; None if it can."""
    for find in (_run_problem, _trainer_problem, _model_problem, _data_problem, _loss_problem, _part_problem):
        problem = find(config)
        if problem is not None:
            return problem
    return None


def _run_problem(config: Mapping[str, Any]) -> str | None:
    if config.get("compile"):
        return "compile=true"
    if config.get("train") is False:
        return "train=false"
    if config.get("ckpt_path") is not None:
        return "ckpt_path is set"
    if config.get("mix"):
        return f"mix={config['choices'].get('mix') or 'custom'}"
    if config.get("teacher"):
        return "a teacher"
    return None


def _trainer_problem(config: Mapping[str, Any]) -> str | None:
    trainer = config["trainer"]
    epochs = trainer.get("max_epochs")
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        return f"no number of epochs (trainer.max_epochs={epochs})"
    for key, value in trainer.items():
        if value is None or key in _TRAINER_ANY:
            continue
        # 1 and 1.0 differ: as limit_train_batches, Lightning reads 1 as one batch.
        if not any(value == each and type(value) is type(each) for each in _TRAINER.get(key, ())):
            shown = value["_target_"] if isinstance(value, dict) and "_target_" in value else value
            return f"trainer.{key}={shown}"
    return None


def _model_problem(config: Mapping[str, Any]) -> str | None:
    for key, value in leaves(config["model"]):
        name = key.rpartition(".")[2]
        if name == "_target_" and "Dropout" in str(value).rpartition(".")[2]:
            return f"dropout (model.{key}={value})"
        if "drop" in name.lower() and isinstance(value, int | float) and value > 0:
            return f"dropout (model.{key}={value})"
    return None


def _data_problem(config: Mapping[str, Any]) -> str | None:
    data = config["data"]
    if str(data["_target_"]).endswith(".ImageFolder") and data.get("in_memory") is not True:
        return f"its images may not be in memory (data.in_memory={json.dumps(data.get('in_memory'))})"
    if data.get("in_memory") is False:
        return "its data are not in memory (data.in_memory=false)"
    return None


def _loss_problem(config: Mapping[str, Any]) -> str | None:
    for key, value in leaves(config["loss"]):
        section, _, name = key.rpartition(".")
        if name == "_target_" and str(value).endswith((".Distillation", ".network_of")):
            return "distillation"
        if name == "_target_" and section.rpartition(".")[2] == "view":
            return f"random views of the inputs (loss.{section})"
    return None


def _part_problem(config: Mapping[str, Any]) -> str | None:
    """Return which optimizer, schedule, callback or logger does not fit in a group."""
    optimizer, schedule = str(config["optimizer"].get("_target_")), config["scheduler"].get("scheduler")
    if optimizer not in _OPTIMIZERS:
        return f"the optimizer {_class(optimizer)}"
    if schedule is not None:
        target = str(schedule.get("_target_"))
        if not target.startswith("torch.optim.lr_scheduler.") or target.endswith(".ReduceLROnPlateau"):
            return f"the schedule {_class(target)}"
    return _callback_problem(config)


def _callback_problem(config: Mapping[str, Any]) -> str | None:
    """Return which callback or logger cannot be used in a group, or is missing."""
    callbacks = {name: callback for name, callback in (config.get("callbacks") or {}).items() if callback is not None}
    for name, callback in callbacks.items():
        if callback.get("_target_") not in _CALLBACKS:
            return f"callbacks.{name}"
    missing = {*_NEEDED} - {str(callback["_target_"]) for callback in callbacks.values()}
    if missing:
        return f"it lacks a callback that a group has ({', '.join(sorted(map(_class, missing)))})"
    for name, options in (config.get("logger") or {}).items():
        if options is not None and options.get("_target_") != _LOGGER:
            return f"logger.{name}"
    return None


def _class(target: str) -> str:
    return target.rpartition(".")[2]


def similarity(config: Mapping[str, Any]) -> str:
    """Return a string that is equal for the resolved configurations of jobs that may train in one group."""
    shared = {key: value for key, value in config.items() if key not in _MAY_DIFFER}
    for key in config.get("per_run", ()):  # values that follow from the seed, the name or the folder
        shared = _without(shared, key.split("."))
    for key in ("trainer.gradient_clip_val", "trainer.gradient_clip_algorithm"):
        shared = _without(shared, key.split("."))
    shared["optimizer"] = _without_numbers(shared["optimizer"])
    shared["callbacks"] = {
        name: _without_numbers(options) if options and options.get("_target_") in _SCHEDULE_CALLBACKS else options
        for name, options in (shared.get("callbacks") or {}).items()
    }
    classes = {_class(str(value)) for key, value in leaves(config["loss"]) if key.rpartition(".")[2] == "_target_"}
    shared["network of the loss"] = sorted(classes & {*_OTHER_NETWORKS})
    return json.dumps(shared, sort_keys=True)


def _without(values: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return a copy of nested mappings without a key; only what changes is copied."""
    first, *rest = keys
    if first not in values or (rest and not isinstance(values[first], dict)):
        return values
    if not rest:
        return {key: value for key, value in values.items() if key != first}
    return values | {first: _without(values[first], rest)}


def _without_numbers(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options without those that are None, a number or a list of numbers."""
    return {key: value for key, value in options.items() if not _is_numeric(value)}


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_numeric, value))
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def group_jobs(jobs: Sequence[Job], fuse: Fuse, unfusable: str | None = None) -> tuple[list[list[Job]], Counter[str]]:
    """Form groups of at least 2 jobs. Return them, and for each reason the number of jobs that run alone.

    `unfusable` is the reason why no job can train in a group, if there is one.
    """
    size = _AUTO_SIZE if fuse == "auto" else fuse or 1
    similar: defaultdict[str, list[Job]] = defaultdict(list)
    reasons = Counter[str]()
    for job in jobs:
        if job.config is None or job.task is None:  # it will fail
            continue
        reason = unfusable or why_alone(job.config)
        if reason is None and fuse == "auto" and job.config["model"]["_target_"] not in _AUTO_MODELS:
            name = job.config["choices"].get("model") or _class(job.config["model"]["_target_"])
            reason = f"model={name}, since fuse=auto fuses only linear and mlp"
        if reason is None:
            similar[similarity(job.config)].append(job)
        else:
            reasons[reason] += 1
    groups: list[list[Job]] = []
    for members in similar.values():
        count = -(-len(members) // size)  # groups of about the same size
        bounds = [index * len(members) // count for index in range(count + 1)]
        groups += [members[start:end] for start, end in pairwise(bounds)]
    single = sum(len(group) == 1 for group in groups)
    if single:
        reasons["no other job of its kind"] += single
    return [group for group in groups if len(group) > 1], reasons


def form_groups(sweep: Sweep, jobs: Sequence[Job], recorded: Mapping[int, Sequence[RecordedMember]]) -> None:
    """Add the groups of these jobs to `sweep.groups`, and log them.

    A recorded group continues if it has a checkpoint or has not ended. Otherwise, its jobs that are not done run alone.
    New groups contain only jobs that have not started.
    """
    by_number = {job.number: job for job in jobs if job.config is not None}
    for number, rows in recorded.items():
        found = [by_number[row.job] for row in rows if row.job in by_number and _is_same(by_number[row.job], row)]
        if len(found) < len(rows):  # this command has other jobs
            continue
        for job in found:
            job.group = number
        atomic.remove_temporary_files(sweep.fused_folder(number))
        if all(job.reused for job in found):
            _remove_checkpoints(sweep.fused_folder(number))
        elif _continues(sweep.fused_folder(number), found):
            _add_group(sweep, number, found)
            logger.info("fused       group %d of %d jobs continues", number, len(found))
    if sweep.fuse is None:
        return
    new = [job for job in jobs if job.group is None and not job.reused and not job.resumes]
    groups, reasons = group_jobs(new, sweep.fuse, sweep.unfusable)
    first = 1 + max(_used_numbers(sweep, recorded), default=-1)
    for number, members in enumerate(groups, first):
        _add_group(sweep, number, members)
    if groups:
        count = sum(map(len, groups))
        logger.info("fused       %d jobs in %s", count, "1 group" if len(groups) == 1 else f"{len(groups)} groups")
    for reason, count in reasons.items():
        logger.info("alone       %s: %s", "1 job" if count == 1 else f"{count} jobs", reason)


def _add_group(sweep: Sweep, number: int, members: list[Job]) -> None:
    in_all = set.intersection(*(set(job.overrides) for job in sweep.jobs))
    shared = set.intersection(*(set(job.overrides) for job in members)) - in_all
    label = " ".join(override for override in members[0].overrides if override in shared)
    sweep.groups.append(JobGroup(number, members, sweep.fused_folder(number), label))
    for job in members:
        job.group = number


def _is_same(job: Job, row: RecordedMember) -> bool:
    return job.config is not None and identity(job.config) == row.identity


def _continues(folder: Path, members: Sequence[Job]) -> bool:
    """Return whether a recorded group runs again, given the jobs that are its members."""
    has_own = any(has_checkpoint(Path(job.config["run_dir"])) for job in members if job.config and not job.reused)
    return has_checkpoint(folder) or not (has_own or (folder / RESULTS).exists())


def has_checkpoint(folder: Path) -> bool:
    """Return whether the folder of a run or of a group contains a checkpoint to resume from."""
    return any(os.path.lexists(path) for path in _checkpoints(folder))


def _remove_checkpoints(folder: Path) -> None:
    """Remove what a group has left that was killed after all its members had finished."""
    for path in _checkpoints(folder):
        atomic.remove(path)


def _checkpoints(folder: Path) -> list[Path]:
    parts = [folder, *(path.parent for path in folder.glob("part*/checkpoints"))]  # a group may train in several parts
    return [path for run in map(RunFolder, parts) for path in (run.last, run.previous)]


def _used_numbers(sweep: Sweep, recorded: Iterable[int]) -> Iterator[int]:
    """Yield the numbers of groups that a new group must not get."""
    yield from recorded
    yield from (group.number for group in sweep.groups)
    with contextlib.suppress(OSError):  # there are no groups yet
        yield from (int(path.name) for path in sweep.fused_folder(0).parent.iterdir() if path.name.isdecimal())


def recorded_groups(sweep: Path) -> dict[int, list[RecordedMember]]:
    """Return the members of each group that jobs.json records, in order; {} if it records none or cannot be read."""
    try:
        rows = read_json(sweep / runs.JOBS)["jobs"]
        groups: defaultdict[int, list[RecordedMember]] = defaultdict(list)
        for row in rows:
            if row.get("group") is not None:
                member = RecordedMember(row["job"], identity(rename_targets(row["config"])))
                groups[int(row["group"])].append(member)
    except (LabError, LookupError, TypeError, ValueError, AttributeError):
        return {}
    return dict(groups)


def is_refusal(result: MemberResult) -> bool:
    """Return whether a member was not trained, since only building its parts showed that it does not fit the group."""
    return result.reason is not None and result.reason.startswith(REFUSAL)


def run_group(members: Sequence[FusedMember], folder: Path) -> dict[int, MemberResult]:
    """Train the members of a group in this process, which is their worker.

    The file RESULTS in the folder says that the group has ended, and how. A group that was interrupted has none.
    """
    from losslab.training.fused.group import train_group  # noqa: PLC0415 -- imports torch

    ignore_output_errors()
    try:
        results = train_group(members, folder)
    except Exception as error:
        if _was_interrupted(error):
            raise KeyboardInterrupt from error
        runs.write_json(folder / RESULTS, {"reason": message_of(error)})
        raise
    runs.write_json(folder / RESULTS, {"results": {str(number): asdict(each) for number, each in results.items()}})
    return results


def _was_interrupted(error: BaseException | None) -> bool:
    """Return whether an interrupt caused an error: the interrupted import of a C++ module raises an ImportError."""
    while isinstance(error, Exception):
        error = error.__cause__ or error.__context__
    return error is not None

"""`train_group` builds the members of a group, trains them as one, and writes their run folders."""

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer

from losslab import runs
from losslab.data.machine import keep_freed_memory
from losslab.errors import LabError
from losslab.io import atomic
from losslab.io.terminal import PrintableFormatter
from losslab.io.untrusted import read_json
from losslab.runs import RunFolder, resume_checkpoint
from losslab.training.callbacks.checkpoint import BestAndLastCheckpoint
from losslab.training.callbacks.checkpoint_state import current_state
from losslab.training.experiment import made_with
from losslab.training.fused import REFUSAL, FusedMember, MemberResult
from losslab.training.fused.data import FusedData
from losslab.training.fused.files import GroupFiles
from losslab.training.fused.learner import FusedLearner, Member
from losslab.training.fused.members import BuiltGroup, annealing, build_group, early_stopping, partition
from losslab.training.fused.recorder import Recorder
from losslab.training.global_state import global_state
from losslab.training.trainer import make_trainer, suppress_lightning_noise

logger = logging.getLogger("losslab")


def train_group(members: Sequence[FusedMember], folder: Path, largest: int = sys.maxsize) -> dict[int, MemberResult]:
    """Train runs as one, and write their run folders. Return the result of each by the number of its job.

    Args:
        members: the members of the group; those that are finished keep their place, and nothing is written.
        folder: folder for the checkpoint of the group while it trains. If it contains one, training resumes from it.
        largest: the largest number of members that train as one.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM ended the training, after the group was saved.
    """
    started = time.perf_counter()
    keep_freed_memory()
    _log_to_stdout()
    logger.info("group       of %d jobs, from job %d to job %d", len(members), members[0].number, members[-1].number)
    with global_state():
        group = build_group(members)
        results = {number: MemberResult(reason=reason) for number, reason in group.failures.items()}
        _log_failures(members, group.failures)
        parts, alone = _recorded_partition(group, folder, *partition(group, largest))
        results |= {number: MemberResult(reason=f"{REFUSAL}: {reason}") for number, reason in alone.items()}
        folders = [RunFolder(folder / f"part{number}" if len(parts) > 1 else folder) for number in range(len(parts))]
        for part, own in zip(parts, folders, strict=True):
            if not all(member.finished for member in part):
                results |= FusedRun(part, group, own).run()
        for own in folders:  # now, since a part with members that failed would be trained again without its checkpoint
            atomic.remove(own.last)
            atomic.remove(own.previous)
    share = (time.perf_counter() - started) / max(1, len(members))
    return {number: MemberResult(result.value, result.reason, share) for number, result in results.items()}


def _recorded_partition(
    group: BuiltGroup, folder: Path, parts: list[list[Member]], alone: dict[int, str]
) -> tuple[list[list[Member]], dict[int, str]]:
    """Return the partition that was recorded when the group started: another one may fit into memory now.

    Record `parts` if the group starts, or if the recorded partition is of other members.
    """
    file, numbers = folder / "parts.json", [[member.number for member in part] for part in parts]
    with suppress(LabError, TypeError, KeyError):
        recorded = read_json(file)["parts"]
        if sorted(chain(*recorded)) == sorted(chain(*numbers)):
            members = {member.number: member for member in group.members}
            return [[members[number] for number in part] for part in recorded], alone
    runs.write_json(file, {"parts": numbers})
    return parts, alone


def _log_failures(members: Sequence[FusedMember], failures: Mapping[int, str]) -> None:
    """Write the reason to train.log of each member that could not be built, as the run alone does."""
    for member in members:
        if (reason := failures.get(member.number)) is not None:
            log = RunFolder(Path(member.config["run_dir"])).log
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("a", encoding="utf-8") as file:
                file.write(f"job {member.number} failed: {reason}\n")


def _log_to_stdout() -> None:
    """Log to stdout, which is the log of the group, unless the program has chosen other handlers."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
        root.addHandler(handler)
        root.setLevel(logging.INFO)


class FusedRun:
    """The training of members that fit together.

    Args:
        members: the members.
        group: the group of which they are a part.
        folder: folder of the group's checkpoint.
    """

    def __init__(self, members: Sequence[Member], group: BuiltGroup, folder: RunFolder) -> None:
        settings = [*dict.fromkeys(member.setting for member in members)]
        members = sorted(members, key=lambda member: settings.index(member.setting))
        self.members, self.folder = members, folder
        config = members[0].config
        spec = group.modules[members[0].module].spec
        self.data = FusedData(group.modules, [member.module for member in members], group.seeds(members))
        self.learner = FusedLearner(members, spec, track_given_labels=bool(config.get("noise")))
        lead, norms = group.leads[0].learner, _callback(members[0], "gradient_norms")
        self.recorder = Recorder(
            {
                index: early_stopping(member.config, lead)
                for index, member in enumerate(members)
                if _callback(member, "early_stopping")
            },
            {index: annealing(member.anneal, member.loss) for index, member in enumerate(members) if member.anneal},
            _callback(members[0], "path"),
            norms.get("ratio", 1e4) if norms else None,
        )
        every = float(_callback(members[0], "checkpoints").get("every_seconds", 30))
        callbacks = [self.recorder, GroupCheckpoint(str(folder.path), every)]
        options = config["trainer"] | {"gradient_clip_val": None, "enable_progress_bar": False}
        self.trainer = make_trainer(
            config | {"trainer": options, "logger": {}, "run_dir": str(folder.path)}, None, callbacks
        )

    def run(self) -> dict[int, MemberResult]:
        """Train, test and write the files. Return the result of each member by the number of its job."""
        unfinished = [member.folder.path for member in self.members if not member.finished]
        for folder in (self.folder.path, *unfinished):
            folder.mkdir(parents=True, exist_ok=True)
        with runs.lock_all(unfinished):
            return self._run_locked()

    def _run_locked(self) -> dict[int, MemberResult]:
        point = resume_checkpoint.find_resume_point(self.folder)
        if point is not None:
            logger.info("resumed     from step %d", point.step)
        self._write_start()
        with suppress_lightning_noise():
            try:
                path = None if point is None else point.path
                self.trainer.fit(self.learner, datamodule=self.data, ckpt_path=path, weights_only=True)
                files = self._files()
                tested = self._test()
            except SystemExit as error:
                if isinstance(error.__context__, KeyboardInterrupt):
                    where = f"epoch {self.trainer.current_epoch + 1} after step {self.trainer.global_step}"
                    logger.error("interrupted in %s; it continues when the sweep is completed", where)  # noqa: TRY400
                    raise KeyboardInterrupt from error
                raise
        return self._write_end(files, tested)

    def _write_start(self) -> None:
        """Write the files that mark the folders as runs."""
        with atomic.flush_together():
            metadata = [module.metadata.as_json() for module in self.data.modules]
            for member, index in zip(self.members, self.data.module_of, strict=True):
                folder, module = member.folder, self.data.modules[index]
                if member.finished or member.resumes:
                    continue
                if module.manifest is not None:
                    runs.write_json(folder.faults, module.manifest)
                runs.write_json(folder.metadata, metadata[index])
                versions: dict[str, Any] = made_with(self.trainer) | {"fused": len(self.members)}
                runs.write_json(folder.config, member.config | {"made_with": versions})

    def _files(self) -> GroupFiles:
        """Take the last state of each member, before the weights are replaced by the best ones."""
        recorder, learner = self.recorder, self.learner
        finals = {
            index: recorder.finals.get(index) or learner.state_of(index)
            for index in range(learner.size)
            if recorder.ended.get(index, {"reason": None})["reason"] is None
        }
        return GroupFiles(learner, recorder, finals)

    def _test(self) -> dict[str, torch.Tensor]:
        """Evaluate the best weights of all members on the test split, and return each metric (M,)."""
        if not self.members[0].config["test"]:
            return {}
        best, networks = self.recorder.best, self.learner.networks
        validated = best["epoch"] > 0
        with torch.no_grad():
            for kept, current in (
                *zip(best["parameters"], networks.stacked_parameters, strict=True),
                *zip(best["buffers"], networks.buffers(), strict=True),
            ):
                rows = validated.to(current.device)
                current[rows] = kept.to(current.device)[rows]
        self.trainer.test(self.learner, datamodule=self.data, verbose=False)
        return {name: values for name, values in self.learner.values.items() if name.startswith("test/")}

    def _write_end(self, files: GroupFiles, tested: dict[str, torch.Tensor]) -> dict[int, MemberResult]:
        endings = {index: files.ending(index) for index in range(len(self.members))}
        written = {}
        with atomic.flush_together():
            for index, member in enumerate(self.members):
                if not member.finished:
                    written[index] = files.write_training(index, log=self._log(index, endings[index].reason))
        results = {}
        # Last, since metrics.json marks a run as finished.
        with atomic.flush_together():
            for index, own in written.items():
                member, reason = self.members[index], endings[index].reason
                others = {f"test/loss/{name}" for name in self.learner.losses.term_names}
                others -= {f"test/loss/{name}" for name in member.loss.term_names}
                values = {name: float(tested[name][index]) for name in tested if name not in others}
                if reason is None and values and not math.isfinite(values["test/loss"]):
                    reason = self.recorder.reason(self.trainer, self.learner, index, "test")
                files.write_test(index, values if reason is None else {})
                if reason is None:
                    runs.write_json(member.folder.metrics, own | values)
                metric = member.config["optimized_metric"] or self.learner.monitor
                results[member.number] = MemberResult((own | values).get(metric) if reason is None else None, reason)
        return results

    def _log(self, index: int, reason: str | None) -> str:
        """Return the content of train.log of a member."""
        member = self.members[index]
        lines = [
            f"job {member.number}: {member.config['name']}, trained as one with {len(self.members) - 1} other runs",
            f"log of the group: {runs.display_path(self.folder.log)}",
            *self.recorder.warnings.get(index, {}).values(),
            *([] if reason is None else [f"failed: {reason}"]),
        ]
        return "".join(f"{line}\n" for line in lines)


def _callback(member: Member, name: str) -> dict[str, Any]:
    """Return the options of a callback; none without it."""
    options: dict[str, Any] = (member.config.get("callbacks") or {}).get(name) or {}
    return options


class GroupCheckpoint(BestAndLastCheckpoint):
    """Writes last.ckpt of the whole group, from which an interrupted group resumes bit-exactly.

    The best state of each member is part of it. The file is written as `BestAndLastCheckpoint` does it: at intervals,
    at a signal and at the end.
    """

    @property
    def state_key(self) -> str:
        return "GroupCheckpoint"

    def _state(self, trainer: Trainer) -> dict[str, Any]:
        return current_state(trainer)  # the state of a member may be infinite, which must not end the others

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing: there is no state."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        trainer.should_stop |= "trained" in checkpoint  # all members may have been stopped early

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self.signals.deferred, self._before_validation = True, None
        self._validation_seconds = time.monotonic() - self._validation_began

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Do nothing: `Recorder` records the end of an epoch."""

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._request.submit_and_wait(self.signals.request())
        self.signals.uninstall()
        self._write_last(trainer, self._state(trainer) | {"trained": {"epochs": trainer.current_epoch}})
        self._end_if_requested(trainer)

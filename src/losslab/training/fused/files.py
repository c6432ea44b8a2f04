"""Writes the run folders of the members of a group: the files of ordinary runs, with fewer TensorBoard points."""

import os
import socket
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from io import BytesIO
from itertools import accumulate
from typing import Any

import lightning
import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import custom_scalars, hparams

from losslab.io import atomic
from losslab.runs.config import hyperparameters
from losslab.training.callbacks.checkpoint import write_checkpoint
from losslab.training.callbacks.tensorboard import Dashboard, chart_layout
from losslab.training.callbacks.weight_trajectory import element_names
from losslab.training.fused.learner import FusedLearner, Member
from losslab.training.fused.recorder import Recorder
from losslab.training.weights import entries_below

_LARGEST_NUMBER_OF_POINTS = 50
"""The largest number of epochs of a curve in TensorBoard."""


@dataclass
class Ending:
    """How the training of a member ended."""

    epoch: int
    """The number of its last epoch."""
    step: int
    best_epoch: int | None
    values: dict[str, float]
    """The metrics of its best epoch, or of its last epoch if there was no validation."""
    reason: str | None
    """Why it failed, in one line; None for success."""

    @property
    def results(self) -> dict[str, float]:
        """The results of training, as `training_results` returns them."""
        counts: dict[str, float] = {"epochs": self.epoch, "steps": self.step}
        return counts | ({} if self.best_epoch is None else {"best_epoch": self.best_epoch}) | self.values


class GroupFiles:
    """Writes the files of all members from what a `Recorder` recorded.

    Args:
        learner: the learner of the group after training.
        recorder: the callback that recorded the training.
        finals: for each member, the last state: see `FusedLearner.state_of`. The keys are the indices of the members.
    """

    def __init__(self, learner: FusedLearner, recorder: Recorder, finals: Mapping[int, dict[str, Any]]) -> None:
        self.learner, self.recorder, self.finals = learner, recorder, finals
        self._started = time.time() - sum(recorder.times)

    @cached_property
    def _table(self) -> Any:
        """Learning rate and metrics of all epochs, (M, epochs, 1 + metrics), as a NumPy array."""
        return torch.stack([row[2] for row in self.recorder.rows]).permute(2, 0, 1).numpy()

    @cached_property
    def _weights(self) -> Any:
        """The recorded weights of all epochs, (M, epochs, P), as a NumPy array."""
        weights = torch.stack([row[2] for row in self.recorder.weights]).transpose(0, 1)
        return weights.to(torch.promote_types(weights.dtype, torch.float32)).numpy()  # NumPy has no bfloat16

    @cache  # noqa: B019 -- a group of files lives only until they are written
    def ending(self, index: int) -> Ending:
        """Return how the training of a member ended."""
        recorder, names = self.recorder, self.learner.names_of(index)
        early = recorder.ended.get(index)
        epoch, step = recorder.rows[-1][:2] if recorder.rows else (0, 0)
        if early is not None:
            epoch, step = early["epoch"], early["step"]
        best_epoch = int(recorder.best["epoch"][index]) or None
        if best_epoch is not None:
            column = dict(zip(recorder.columns, recorder.best["values"][:, index].tolist(), strict=True))
            values = {name: column[name] for name in names if name in column}
            fresh = recorder.rows[best_epoch - 1][3] if best_epoch <= len(recorder.rows) else names
            values = {name: value for name, value in values.items() if name in fresh}
        else:
            newest = self.rows(index, range(self.epochs(index))[-1:])
            values = {name: value for row in newest for name, value in row.items() if name.startswith("train/")}
        return Ending(epoch, step, best_epoch, values, None if early is None else early["reason"])

    def rows(self, index: int, numbers: Sequence[int]) -> list[dict[str, float]]:
        """Return some rows of history.csv of a member, without missing values, by the indices of the rows."""
        own = {*self.learner.names_of(index)}
        rows = []
        for number in numbers:
            epoch, step, _, fresh = self.recorder.rows[number]
            rate, *values = self._table[index, number].tolist()
            named = zip(self.recorder.columns, values, strict=True)
            present = {name: value for name, value in named if name in own and name in fresh}
            rows.append({"epoch": epoch, "step": step, "lr": rate} | present)
        return rows

    def _newest(self, index: int) -> dict[str, float]:
        """Return the newest value of each metric of a member: not every epoch has a validation."""
        newest: dict[str, float] = {}
        for number in reversed(range(self.epochs(index))):
            [row] = self.rows(index, [number])
            newest = {name: value for name, value in row.items() if "/" in name} | newest
            if newest.keys() >= {*self.learner.names_of(index)}:
                break
        return newest

    def epochs(self, index: int) -> int:
        """Return the number of epochs that a member finished."""
        early = self.recorder.ended.get(index)
        if early is None:
            return len(self.recorder.rows)
        count: int = early["epochs"]
        return count

    def write_training(self, index: int, *, log: str) -> dict[str, float]:
        """Write all files of a member but metrics.json, and return the results of training.

        A member that failed gets no last.ckpt, so that a resumed run starts from the beginning. The states of the
        callbacks that write tables are left out of the checkpoints, because training has ended.

        Args:
            index: the index of the member.
            log: the content of train.log.
        """
        member, ending = self.learner.members[index], self.ending(index)
        folder = member.folder
        if member.resumes:  # a process that was killed here may have left events and temporary files
            atomic.remove_temporary_files(folder.path, folder.last.parent)
            for path in folder.path.glob("events.out.tfevents.*"):
                path.unlink(missing_ok=True)
        atomic.write_bytes(folder.history, self._history(index))
        atomic.write_bytes(folder.timing, self._timing(self.epochs(index)))
        if self.recorder.weights:
            atomic.write_bytes(folder.weight_trajectory, self._trajectory(index))
        best = {"best_values": ending.values if ending.best_epoch else {}, "best_epoch": ending.best_epoch}
        callbacks: dict[str, Any] = {"BestAndLast": best}
        if (stopping := self.recorder.early_stopping.get(index)) is not None:
            callbacks[stopping.state_key] = stopping.state_dict()
        if ending.best_epoch is not None:
            shared = self.recorder.shared_states[int(self.recorder.best["step"][index])]
            write_checkpoint(self._checkpoint(index, shared, self._best_state(index, shared), callbacks), folder.best)
        if ending.reason is None:
            state = self.finals[index]
            shared = state.get("shared") or self.recorder.final_shared or {}
            checkpoint = self._checkpoint(index, shared, state, callbacks)
            checkpoint["learner"]["values"] = self._newest(index)
            weights = self._best_state(index, None)["state_dict"] if ending.best_epoch else state["state_dict"]
            write_checkpoint(entries_below("network.", weights), folder.weights)
            write_checkpoint(checkpoint | {"trained": ending.results}, folder.last)
        self._write_events(member, index)
        atomic.write_bytes(folder.log, log.encode())
        return ending.results

    def _history(self, index: int) -> bytes:
        """Return the content of history.csv of a member."""
        epochs, names = self.epochs(index), self.learner.names_of(index)
        values = self._table[index, :epochs].T.tolist()
        columns = dict(zip(["lr", *self.recorder.columns], values, strict=True))
        texts = [*self._counts(epochs), [*map(repr, columns["lr"])]]
        for name in names:
            fresh = self._fresh(name)
            texts.append([repr(each) if known else "" for each, known in zip(columns[name], fresh, strict=False)])
        return _csv(["epoch", "step", "lr", *names], texts)

    @cache  # noqa: B019 -- a group of files lives only until they are written
    def _counts(self, epochs: int) -> tuple[list[str], list[str]]:
        """Return the numbers of the epochs, and of the steps at their ends, as text."""
        rows = self.recorder.rows[:epochs]
        return [str(row[0]) for row in rows], [str(row[1]) for row in rows]

    @cache  # noqa: B019
    def _fresh(self, name: str) -> list[bool]:
        """Return for each epoch whether a metric was computed."""
        return [name in row[3] for row in self.recorder.rows]

    @cache  # noqa: B019
    def _timing(self, epochs: int) -> bytes:
        """Return the content of timing.csv: the duration of each epoch, divided by the number of members."""
        seconds = [f"{each / len(self.learner.members):.4f}" for each in self.recorder.times[:epochs]]
        return _csv(["epoch", "seconds"], [self._counts(epochs)[0], seconds])

    def _trajectory(self, index: int) -> bytes:
        """Return the content of path.csv of a member."""
        network = self.learner.members[index].network
        names = [each for name, weight in network.named_parameters() for each in element_names(name, weight.shape)]
        rows = [row for row in self.recorder.weights if row[0] <= self.epochs(index)]
        # astype(str) writes the shortest decimals that are parsed as the same number.
        columns = self._weights[index, : len(rows)].T.astype(str).tolist()
        return _csv(["epoch", "step", *names], [[str(row[0]) for row in rows], [str(row[1]) for row in rows], *columns])

    def _best_state(self, index: int, shared: dict[str, Any] | None) -> dict[str, Any]:
        """Return weights, and if `shared` is given the optimizer state, of the best epoch of a member."""
        best, networks = self.recorder.best, self.learner.networks
        tensors = dict(zip(networks.parameter_names, best["parameters"], strict=True))
        tensors |= dict(zip(networks.buffer_names, best["buffers"], strict=True))
        state = {f"network.{name}": tensors[name][index].clone() for name in networks.template.state_dict()}
        result: dict[str, Any] = {"state_dict": state | self.learner.losses.state_of(index, "loss.")}
        if shared is not None:
            optimizer = self.learner.stacked_optimizer
            result["optimizer_state"] = optimizer.state_of(index, best["optimizer"], shared["step"])
        return result

    def _checkpoint(
        self, index: int, shared: dict[str, Any], state: dict[str, Any], callbacks: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the content of a Lightning checkpoint of a member."""
        optimizer = self.learner.stacked_optimizer
        setting = int(optimizer.setting_of[index])
        schedule = shared["schedules"].get(setting)
        averages = [name for name in self.learner.names_of(index) if name.startswith("train/")]
        checkpoint = {
            "epoch": shared["epoch"],
            "global_step": shared["step"],
            "pytorch-lightning_version": lightning.__version__,
            "state_dict": state["state_dict"],
            "loops": shared["loops"],
            "callbacks": callbacks,
            "optimizer_states": [
                {"state": state["optimizer_state"], "param_groups": shared["parameter_groups"][setting]}
            ],
            "lr_schedulers": [] if schedule is None else [schedule],
            "learner": {
                "sums": torch.zeros(1, len(averages), 2, dtype=torch.float64),
                "values": callbacks["BestAndLast"]["best_values"],
                "fresh": [name for name in shared["fresh"] if name in {*self.learner.names_of(index)}],
                "loader": shared["loader"],
                "logged": [{}],
            },
            "should_stop": int("shared" in state),  # the last state of a member that was stopped early
        }
        callback = self.recorder.annealing.get(index)
        if callback is not None:
            number = callback.value(shared["epoch"], self.recorder.epochs)
            checkpoint["loss_numbers"] = {callback.parameter: number}
        return checkpoint

    def _write_events(self, member: Member, index: int) -> None:
        """Write the TensorBoard events of training: curves, gradient norms, custom scalars and hyperparameters."""
        if not any((member.config.get("logger") or {}).values()):
            return
        _, start, _ = hparams(Dashboard(hyperparameters(member.config)).hparams, {})
        curves = (self._record(step, _scalars(values)) for step, values in self._curves(index))
        (member.folder.path / self._event_file).write_bytes(b"".join([self._record(0, start), self._layout, *curves]))

    def write_test(self, index: int, values: Mapping[str, float]) -> None:
        """Append the metrics of the test to the TensorBoard events of a member."""
        path = self.learner.members[index].folder.path / self._event_file
        if path.exists():
            records = [self._record(self.ending(index).step, _scalars(values))] if values else []
            with path.open("ab") as file:
                file.write(b"".join([*records, self._record(0, hparams({}, {})[2])]))

    @cached_property
    def _event_file(self) -> str:
        return f"events.out.tfevents.{int(self._started)}.{socket.gethostname()}.{os.getpid()}.0"

    @cached_property
    def _clock(self) -> tuple[list[int], list[float]]:
        """The steps at the start and after each epoch, and the times."""
        steps = [0, *(row[1] for row in self.recorder.rows)]
        return steps, [*accumulate(self.recorder.times, initial=self._started)]

    @cached_property
    def _layout(self) -> bytes:
        """The record of the custom scalars page, which is the same for all members."""
        return self._record(0, custom_scalars(chart_layout(self.recorder.columns)))

    def _curves(self, index: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield steps and values for TensorBoard: of at most 50 epochs, always of the last, and the gradient norms."""
        epochs = self.epochs(index)
        every = -(-epochs // _LARGEST_NUMBER_OF_POINTS) or 1
        kept = self.rows(index, range(epochs)[::-1][::every])
        curves = {
            int(row["step"]): {name: value for name, value in row.items() if "/" in name or name == "lr"}
            for row in kept
        }
        last = max(curves, default=0)
        for step, norms in self.recorder.gradients:
            if step <= last:
                curves[step] = {name: float(values[index]) for name, values in norms.items()} | curves.get(step, {})
        yield from sorted(curves.items())

    def _record(self, step: int, summary: Any) -> bytes:
        """Return an event at the time of its step, as a record of an event file."""
        steps, times = self._clock
        now, content = times[min(bisect_left(steps, step), len(times) - 1)], BytesIO()
        RecordWriter(content).write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
        return content.getvalue()


def _scalars(values: Mapping[str, float]) -> Any:
    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])


def _csv(header: Sequence[str], columns: Sequence[Sequence[str]]) -> bytes:
    """Format columns of numbers, as `losslab.io.tables.csv_text` formats rows, which takes three times as long."""
    return "".join(f"{line}\n" for line in [",".join(header), *map(",".join, zip(*columns, strict=True))]).encode()

"""Writes the run folders of the members of a group: the files of ordinary runs, with fewer TensorBoard points."""

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

import lightning
import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from torch.utils.tensorboard.summary import custom_scalars, hparams

from losslab.io import atomic
from losslab.io.tables import write_csv
from losslab.runs.config import hyperparameters
from losslab.training.callbacks.checkpoint import write_checkpoint
from losslab.training.callbacks.tensorboard import chart_layout
from losslab.training.callbacks.weight_trajectory import element_names
from losslab.training.fused.learner import FusedLearner, Member
from losslab.training.fused.recorder import Recorder
from losslab.training.weights import entries_below

_LARGEST_NUMBER_OF_POINTS = 200
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
        finals: for each member, the last state: see `member_state`. The keys are the indices of the members.
        optimizer: the optimizer of the group, to read the state of the best epochs.
    """

    def __init__(self, learner: FusedLearner, recorder: Recorder, finals: Mapping[int, dict[str, Any]]) -> None:
        self.learner, self.recorder, self.finals = learner, recorder, finals
        self._started = time.time() - sum(recorder.times)

    @cached_property
    def _table(self) -> Any:
        """Learning rate and metrics of all epochs, (M, epochs, 1 + metrics), as a NumPy array."""
        return torch.stack([row[2] for row in self.recorder.rows]).permute(2, 0, 1).numpy()

    @cached_property
    def _weights(self) -> tuple[Any, Tensor]:
        """The recorded weights as decimals (M, epochs, P), the shortest for each number, and as numbers."""
        weights = torch.stack([row[2] for row in self.recorder.weights]).transpose(0, 1)
        weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
        return weights.contiguous().numpy().astype(str), weights

    def ending(self, index: int) -> Ending:
        """Return how the training of a member ended."""
        recorder, names = self.recorder, self.learner.names_of(index)
        last = recorder.rows[-1] if recorder.rows else None
        early = recorder.ended.get(index)
        epoch, step = (last[0], last[1]) if early is None and last is not None else (0, 0)
        epoch, step = (early["epoch"], early["step"]) if early is not None else (epoch, step)
        best_epoch = int(recorder.best["epoch"][index]) or None
        if best_epoch is not None:
            column = dict(zip(recorder.columns, recorder.best["values"][:, index].tolist(), strict=True))
            values = {name: column[name] for name in names if name in column}
            rows = {row[0]: row for row in recorder.rows}
            fresh = {*rows[best_epoch][3]} if best_epoch in rows else {*names}
            values = {name: value for name, value in values.items() if name in fresh}
        else:
            newest = self.rows(index)[-1] if self.rows(index) else {}
            values = {name: value for name, value in newest.items() if name.startswith("train/")}
        return Ending(epoch, step, best_epoch, values, None if early is None else early["reason"])

    def rows(self, index: int) -> list[dict[str, float]]:
        """Return the rows of history.csv of a member, without missing values."""
        own = {*self.learner.names_of(index)}
        columns = ["lr", *self.recorder.columns]
        rows = []
        for (epoch, step, _, fresh), values in zip(self._own_rows(index), self._table[index].tolist(), strict=False):
            present = {"lr", *(name for name in fresh if name in own)}
            rows.append(
                {"epoch": epoch, "step": step}
                | {name: value for name, value in zip(columns, values, strict=True) if name in present}
            )
        return rows

    def _own_rows(self, index: int) -> list[Any]:
        """Return the rows of the epochs that a member finished."""
        early = self.recorder.ended.get(index)
        if early is None:
            return self.recorder.rows
        count = early["epoch"] if early["reason"] is None else early["epoch"] - 1
        return [row for row in self.recorder.rows if row[0] <= count]

    def write_training(self, index: int, *, header: str) -> dict[str, float]:
        """Write all files of a member but metrics.json, and return the results of training.

        A member that failed gets no last.ckpt, so that a resumed run starts from the beginning.
        """
        member, ending, rows = self.learner.members[index], self.ending(index), self.rows(index)
        folder = member.folder
        names = ["epoch", "step", "lr", *self.learner.names_of(index)]
        write_csv(folder.history, names, ([row.get(name) for name in names] for row in rows))
        share = len(self.learner.members)
        seconds = [
            [row["epoch"], f"{time_ / share:.4f}"] for row, time_ in zip(rows, self.recorder.times, strict=False)
        ]
        write_csv(folder.timing, ["epoch", "seconds"], seconds)
        places = self._write_trajectory(index, len(rows))
        best = {"best_values": ending.values if ending.best_epoch else {}, "best_epoch": ending.best_epoch}
        callbacks: dict[str, Any] = {"BestAndLast": best}
        if (stopping := self.recorder.early_stopping.get(index)) is not None:
            callbacks[stopping.state_key] = stopping.state_dict()
        if ending.best_epoch is not None:
            moment = self.recorder.moments[int(self.recorder.best["moment"][index])]
            write_checkpoint(self._checkpoint(index, moment, self._best_state(index, moment), callbacks), folder.best)
        if ending.reason is None:
            state = self.finals[index]
            moment = self.recorder.moments[state["step"]] if "step" in state else self.recorder.final_moment or {}
            callbacks |= places
            checkpoint = self._checkpoint(index, moment, state, callbacks)
            checkpoint["learner"]["values"] = {
                name: value for name, value in (rows[-1] if rows else {}).items() if "/" in name
            }
            weights = self._best_state(index, None)["state_dict"] if ending.best_epoch else state["state_dict"]
            write_checkpoint(entries_below("network.", weights), folder.weights)
            write_checkpoint(checkpoint | {"trained": ending.results}, folder.last)
        self._write_events(member, index, rows)
        atomic.write_bytes(folder.log, header.encode())
        return ending.results

    def _write_trajectory(self, index: int, epochs: int) -> dict[str, Any]:
        """Write path.csv, and return the state that the callback `WeightTrajectory` would have."""
        if not self.recorder.weights:
            return {}
        decimals, weights = self._weights
        places = [(row[0], row[1]) for row in self.recorder.weights if row[0] <= epochs]
        rows = [[*place, *own] for place, own in zip(places, decimals[index].tolist(), strict=False)]
        network = self.learner.members[index].network
        names = [each for name, weight in network.named_parameters() for each in element_names(name, weight.shape)]
        write_csv(self.learner.members[index].folder.weight_trajectory, ["epoch", "step", *names], rows)
        state = {
            "every": 1,
            "places": [*places, places[-1]],
            "weights": [weights[index][[*range(len(places)), -1]].clone()],
        }
        return {"Path": state}

    def _best_state(self, index: int, moment: dict[str, Any] | None) -> dict[str, Any]:
        """Return weights, and if `moment` is given the optimizer state, of the best epoch of a member."""
        best, networks = self.recorder.best, self.learner.networks
        tensors = dict(zip(networks.parameter_names, best["parameters"], strict=True))
        tensors |= dict(zip(networks.buffer_names, best["buffers"], strict=True))
        state = {f"network.{name}": tensors[name][index].clone() for name in networks.template.state_dict()}
        result: dict[str, Any] = {"state_dict": state | self.learner.losses.state_of(index, "loss.")}
        if moment is not None:
            optimizer: Any = self.learner.trainer.optimizers[0]
            result["optimizer_states"] = [optimizer.state_of(index, best["optimizer"], moment["count"])]
        return result

    def _checkpoint(
        self, index: int, moment: dict[str, Any], state: dict[str, Any], callbacks: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the content of a Lightning checkpoint of a member."""
        optimizer: Any = self.learner.trainer.optimizers[0]
        setting = int(optimizer.setting_of[index])
        [own] = state["optimizer_states"]
        schedule = moment["schedules"].get(setting)
        averages = [name for name in self.learner.names_of(index) if name.startswith("train/")]
        checkpoint = {
            "epoch": moment["epoch"],
            "global_step": moment["step"],
            "pytorch-lightning_version": lightning.__version__,
            "state_dict": state["state_dict"],
            "loops": moment["loops"],
            "callbacks": callbacks,
            "optimizer_states": [own | {"param_groups": moment["settings"][setting]}],
            "lr_schedulers": [] if schedule is None else [schedule],
            "learner": {
                "sums": torch.zeros(1, len(averages), 2, dtype=torch.float64),
                "values": callbacks["BestAndLast"]["best_values"],
                "fresh": [name for name in moment["fresh"] if name in {*self.learner.names_of(index)}],
                "loader": moment["loader"],
                "logged": [{}],
            },
            "should_stop": int(index in self.recorder.ended),
        }
        callback = self.recorder.annealing.get(index)
        if callback is not None:
            number = callback.value(moment["epoch"], self.recorder.epochs)
            checkpoint["loss_numbers"] = {callback.parameter: number}
        return checkpoint

    def _write_events(self, member: Member, index: int, rows: Sequence[dict[str, float]]) -> None:
        """Write the TensorBoard events of training: curves, gradient norms, custom scalars and hyperparameters."""
        if not any((member.config.get("logger") or {}).values()):
            return
        with (member.folder.path / self._event_file).open("wb") as file:
            content = BytesIO()
            writer = RecordWriter(content)
            _, start, _ = hparams(_written(hyperparameters(member.config)), {})
            writer.write(self._event(0, start))
            content.write(self._layout)
            for step, values in self._curves(index, rows):
                points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
                writer.write(self._event(step, Summary(value=points)))
            file.write(content.getvalue())

    def write_test(self, index: int, values: Mapping[str, float]) -> None:
        """Append the metrics of the test to the TensorBoard events of a member."""
        member = self.learner.members[index]
        path = member.folder.path / self._event_file
        if not path.exists():
            return
        content = BytesIO()
        writer = RecordWriter(content)
        if values:
            points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            writer.write(self._event(self.ending(index).step, Summary(value=points)))
        writer.write(self._event(0, hparams({}, {})[2]))
        with path.open("ab") as file:
            file.write(content.getvalue())

    @cached_property
    def _event_file(self) -> str:
        return f"events.out.tfevents.{int(self._started)}.{socket.gethostname()}.{os.getpid()}.0"

    @cached_property
    def _layout(self) -> bytes:
        """The record of the custom scalars page, which is the same for all members."""
        content = BytesIO()
        RecordWriter(content).write(self._event(0, custom_scalars(chart_layout(self.recorder.columns))))
        return content.getvalue()

    def _curves(self, index: int, rows: Sequence[dict[str, float]]) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield steps and values for TensorBoard: at most 200 epochs, always the last, and the gradient norms."""
        every = -(-len(rows) // _LARGEST_NUMBER_OF_POINTS) or 1
        kept = [row for number, row in enumerate(reversed(rows)) if number % every == 0]
        curves = {int(row["step"]): {name: value for name, value in row.items() if "/" in name} for row in kept}
        last = int(rows[-1]["step"]) if rows else 0
        for row in kept:
            curves[int(row["step"])]["lr"] = row["lr"]
        for step, norms in self.recorder.gradients:
            if step <= last:
                own = {name: float(values[index]) for name, values in norms.items()}
                curves[step] = own | curves.get(step, {})
        yield from sorted(curves.items())

    def _event(self, step: int, summary: Any) -> bytes:
        content: bytes = Event(wall_time=self._started, step=step, summary=summary).SerializeToString()
        return content


def _written(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if isinstance(value, int | float | str)}

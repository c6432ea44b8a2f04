"""What was made wrong with the training data, in numbers, and a checksum by which the same data are known again.

What a manifest says in a line.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from math import isclose
from typing import Any

import torch
from torch import Tensor

from losslab.data.batch import DataSpec
from losslab.data.corruption.base import Corruption
from losslab.data.corruption.subset import TrainingSplit
from losslab.errors import LabError
from losslab.targets import Task

Manifest = dict[str, Any]
"""Plain containers, as they stand in RUN/faults.json."""


def apply(train: TrainingSplit, faults: Sequence[Corruption], facts: DataSpec) -> tuple[TrainingSplit, Manifest]:
    """The training split with these faults, one after the other, and what they did.

    Raises:
        LabError: these examples cannot have one of them.
    """
    records = []
    for fault in faults:
        before, train = train, fault(train, facts)
        records.append(_record(fault, before, train, facts))
    manifest: Manifest = {"faults": records, "examples": train.size, "sha256": checksum(train)}
    if facts.task is Task.REGRESSION:
        values = train.target.double()
        manifest["targets"] = {"mean": values.mean().item(), "std": values.std(correction=0).item()}
    return train, manifest


def checksum(train: TrainingSplit) -> str:
    """SHA-256 of the indices and after them the targets, as they lie in memory (little-endian)."""
    sha = hashlib.sha256()
    for tensor in (train.index, train.target):
        array = tensor.cpu().contiguous().numpy()
        sha.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return sha.hexdigest()


def verify(found: Manifest | None, promised: Manifest) -> None:
    """Refuse training data that are not those of a run.

    Values may differ in their last bits, as sums and exponentials do between processors; labels may not.

    Raises:
        LabError: they differ.
    """
    ours, theirs = found or {}, promised
    same = ours.get("sha256") == theirs.get("sha256")
    if not same and ours.get("examples") == theirs.get("examples") and "targets" in ours:
        with suppress(KeyError, TypeError):  # a damaged file promises nothing
            same = all(isclose(ours["targets"][key], theirs["targets"][key], rel_tol=1e-4) for key in ("mean", "std"))
    if not same:
        raise LabError(
            f"the training data are not those of this run (SHA-256 {str(ours.get('sha256'))[:12]}…, and in its "
            f"faults.json {str(theirs.get('sha256'))[:12]}…): data.dir or noise.file holds something else, or another "
            f"version of losslab made the run; bring back what it had, or train it again"
        )


def _record(fault: Corruption, before: TrainingSplit, after: TrainingSplit, facts: DataSpec) -> dict[str, Any]:
    record: dict[str, Any] = {"group": fault.group, "kind": fault.kind, "parameters": fault.parameters}
    record |= {"examples_before": before.size, "examples": after.size}
    if fault.group == "noise":
        changed = after.target != after.truth
        labels = facts.task is not Task.REGRESSION
        of = changed.numel() if labels else after.size
        count = int(changed.sum() if labels else changed.reshape(after.size, -1).any(1).sum())
        record |= {"changed": count, "of": of, "realised_rate": round(count / of, 6)}
    if facts.task is Task.REGRESSION:
        moved = (after.target - after.truth).double()
        record["moved"] = {"mean": moved.mean().item(), "std": moved.std(correction=0).item()}
        return record
    record["classes_before"], record["classes"] = _sizes(before.target, facts), _sizes(after.target, facts)
    if fault.group == "noise" and facts.task is Task.MULTILABEL:
        record["flips"] = _flips(after, facts)
    elif fault.group == "noise":
        record["transitions"] = _table(_known(after.truth, facts), _known(after.target, facts), class_names(facts))
    return record


def class_names(facts: DataSpec) -> list[str]:
    """What the classes or labels are called."""
    if facts.class_names:
        return list(facts.class_names)
    return [str(number) for number in range(2 if facts.task is Task.BINARY else facts.targets)]


def _sizes(target: Tensor, facts: DataSpec) -> dict[str, int]:
    """How many examples each class has; of several labels, how many have each."""
    if facts.task is Task.MULTILABEL:
        counts = (target > 0.5).sum(0)
    else:
        counts = torch.bincount(_known(target, facts), minlength=len(class_names(facts)))
    return dict(zip(class_names(facts), counts.tolist(), strict=True))


def _known(target: Tensor, facts: DataSpec) -> Tensor:
    """The classes of those examples that have one, int64."""
    labels = target if facts.task is Task.MULTICLASS else target.squeeze(1).long()
    return labels[(labels >= 0) & (labels < len(class_names(facts)))]


def _flips(train: TrainingSplit, facts: DataSpec) -> dict[str, Any]:
    """By label, true answer ("0" or "1") and given answer, how many examples."""
    columns = zip(class_names(facts), train.truth.long().unbind(1), train.target.long().unbind(1), strict=True)
    return {name: _table(true, given, ["0", "1"]) for name, true, given in columns}


def _table(true: Tensor, given: Tensor, classes: list[str]) -> dict[str, dict[str, int]]:
    """By true class and given class, how many examples; of what does not occur, nothing."""
    pairs = torch.bincount(true * len(classes) + given, minlength=len(classes) ** 2).view(len(classes), -1).tolist()
    return {
        name: {other: count for other, count in zip(classes, row, strict=True) if count}
        for name, row in zip(classes, pairs, strict=True)
    }


def describe(manifest: dict[str, Any]) -> dict[str, str]:
    """For each group that is at work, what it did: "symmetric, rate 0.4, 1,234 of 3,086 labels wrong"."""
    return {record["group"]: f"{_asked(record)}, {_done(record)}" for record in manifest["faults"]}


def _asked(record: dict[str, Any]) -> str:
    shown = {name: value for name, value in record["parameters"].items() if name not in ("seed", "file")}
    return ", ".join([record["kind"], *(f"{name} {value}" for name, value in shown.items())])


def _done(record: dict[str, Any]) -> str:
    if record["group"] == "imbalance":
        sizes = record["classes"].values()
        kept = f"{record['examples']:,} of {record['examples_before']:,} examples kept"
        return f"{kept}, {max(sizes):,} to {min(sizes):,} a class"
    what = "values changed" if "moved" in record else "labels wrong"
    return f"{record['changed']:,} of {record['of']:,} {what}"

"""The manifest of the corruptions (faults.json in a run folder): their changes, and a checksum of the training data."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from math import isclose
from typing import Any

import torch
from torch import Tensor

from losslab.data.batch import DataSpec, Examples, Source
from losslab.data.corruption.base import Corruption, Subset, TrainingSplit
from losslab.errors import LabError
from losslab.targets import Task

Manifest = dict[str, Any]
"""JSON content. "faults" has a record of each corruption; "examples" and "sha256" describe the final training split."""


def apply(source: Source, corruptions: Sequence[Corruption], spec: DataSpec) -> tuple[TrainingSplit, Manifest]:
    """Apply corruptions in order. Return the corrupted split and its manifest. Raises LabError if one does not fit."""
    rows, records = torch.arange(source.size), []
    train: TrainingSplit = source if isinstance(source, Examples | Subset) else Subset(source, rows, source.target)
    for corruption in corruptions:
        before, train = train, corruption(train, spec)
        records.append(_record(corruption, before, train, spec))
    manifest: Manifest = {"faults": records, "examples": train.size, "sha256": checksum(train)}
    if spec.task is Task.REGRESSION:
        values = train.target.double()
        manifest["targets"] = {"mean": values.mean().item(), "std": values.std(correction=0).item()}
    return train, manifest


def checksum(train: TrainingSplit) -> str:
    """Return the SHA-256 of the index tensor followed by the target tensor, little-endian."""
    sha = hashlib.sha256()
    for tensor in (train.index, train.target):
        array = tensor.cpu().contiguous().numpy()
        sha.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return sha.hexdigest()


def verify(manifest: Manifest | None, expected: Manifest) -> None:
    """Raise LabError unless the training data are those of the run with the manifest `expected`.

    Labels must be equal. Values may differ in their last bits, because processors round sums and exponentials
    differently.
    """
    actual = manifest or {}
    same = actual.get("sha256") == expected.get("sha256")
    if not same and actual.get("examples") == expected.get("examples") and "targets" in actual:
        with suppress(KeyError, TypeError):  # a damaged faults.json matches nothing
            pairs = [(actual["targets"][key], expected["targets"][key]) for key in ("mean", "std")]
            same = all(isclose(ours, theirs, rel_tol=1e-4) for ours, theirs in pairs)
    if not same:
        raise LabError(
            f"the training data differ from the data of this run (SHA-256 {str(actual.get('sha256'))[:12]}…, but "
            f"{str(expected.get('sha256'))[:12]}… in its faults.json): data.dir or noise.file has changed, or another "
            f"version of losslab made the run; restore the data, or train again"
        )


def describe(manifest: Manifest) -> dict[str, str]:
    """Describe each corruption by its group, such as "symmetric, rate 0.4, 1,234 of 3,086 labels wrong"."""
    lines = {}
    for record in manifest["faults"]:
        shown = [f"{name} {value}" for name, value in record["parameters"].items() if name not in {"seed", "file"}]
        if record["group"] == "imbalance":
            sizes = record["classes"].values()
            kept = f"{record['examples']:,} of {record['examples_before']:,} examples kept"
            effect = f"{kept}, {max(sizes):,} to {min(sizes):,} a class"
        else:
            changed = "values changed" if "moved" in record else "labels wrong"
            effect = f"{record['changed']:,} of {record['of']:,} {changed}"
        lines[record["group"]] = ", ".join([record["kind"], *shown, effect])
    return lines


def _record(corruption: Corruption, before: TrainingSplit, after: TrainingSplit, spec: DataSpec) -> dict[str, Any]:
    """Record the changes of one corruption: counts, and mean and std of the noise, or class sizes and transitions."""
    record: dict[str, Any] = {"group": corruption.group, "kind": corruption.kind, "parameters": asdict(corruption)}
    record |= {"examples_before": before.size, "examples": after.size}
    if corruption.group == "noise":
        changed = after.target != after.truth
        if spec.task is Task.REGRESSION:
            changed = changed.reshape(after.size, -1).any(1)
        count, total = int(changed.sum()), changed.numel()
        record |= {"changed": count, "of": total, "realised_rate": round(count / total, 6)}
    if spec.task is Task.REGRESSION:
        moved = (after.target - after.truth).double()
        record["moved"] = {"mean": moved.mean().item(), "std": moved.std(correction=0).item()}
        return record
    record["classes_before"], record["classes"] = _class_sizes(before.target, spec), _class_sizes(after.target, spec)
    if corruption.group == "noise" and spec.task is Task.MULTILABEL:
        columns = zip(spec.names, after.truth.long().unbind(1), after.target.long().unbind(1), strict=True)
        record["flips"] = {name: _transitions(true, given, ["0", "1"]) for name, true, given in columns}
    elif corruption.group == "noise":
        true, given = _valid_labels(after.truth, spec), _valid_labels(after.target, spec)
        record["transitions"] = _transitions(true, given, spec.names)
    return record


def _class_sizes(target: Tensor, spec: DataSpec) -> dict[str, int]:
    """Return the number of examples of each class; for multilabel targets, the number of ones of each label."""
    if spec.task is Task.MULTILABEL:
        counts = (target > 0.5).sum(0)
    else:
        counts = torch.bincount(_valid_labels(target, spec), minlength=len(spec.names))
    return dict(zip(spec.names, counts.tolist(), strict=True))


def _valid_labels(target: Tensor, spec: DataSpec) -> Tensor:
    """Return class indices, int64, without those outside 0..C-1."""
    labels = target if spec.task is Task.MULTICLASS else target.squeeze(1).long()
    return labels[(labels >= 0) & (labels < len(spec.names))]


def _transitions(true: Tensor, given: Tensor, classes: list[str]) -> dict[str, dict[str, int]]:
    """Return the number of examples of each true class with each given label; pairs without examples are left out."""
    pairs = torch.bincount(true * len(classes) + given, minlength=len(classes) ** 2).view(len(classes), -1).tolist()
    return {
        name: {other: count for other, count in zip(classes, row, strict=True) if count}
        for name, row in zip(classes, pairs, strict=True)
    }

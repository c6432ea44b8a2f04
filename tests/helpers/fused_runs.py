"""Trains runs as one and alone, and compares all files of their folders."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from losslab.errors import LabError
from losslab.runs import RunFolder
from losslab.training.config import compose
from losslab.training.experiment import build, run
from losslab.training.fused import FusedMember, MemberResult
from losslab.training.fused.group import train_group

COMMON = ("trainer=cpu", "trainer.enable_progress_bar=false", "logger=none")
DOUBLE = "trainer.precision=64-true"


def configuration(folder: Path, *overrides: str) -> dict[str, Any]:
    """Return the resolved configuration of a run in this folder."""
    return compose([*COMMON, *overrides], str(folder))


def train_fused(folder: Path, members: Sequence[Sequence[str]], *common: str) -> dict[int, MemberResult]:
    """Train the members, each given by its overrides, as a group, in folder/0, folder/1, ..."""
    configs = [configuration(folder / str(index), *common, *own) for index, own in enumerate(members)]
    return _train_group(folder, configs)


def _train_group(folder: Path, configs: Sequence[dict[str, Any]]) -> dict[int, MemberResult]:
    group = [FusedMember(index, config, finished=False, resumes=False) for index, config in enumerate(configs)]
    return train_group(group, folder / "group")


def train_alone(config: dict[str, Any]) -> str | None:
    """Train a run. Return the line with which it failed, or None."""
    try:
        run(build(config))
    except LabError as error:
        return str(error)
    return None


def differences(
    folder: Path, members: Sequence[Sequence[str]], *common: str, tolerance: float = 1e-12, alone: Sequence[int] = ()
) -> list[str]:
    """Train members as one and each alone. Return a line for each difference of results, files or failures.

    `alone` are the members that are compared; by default all.
    """
    configs = [configuration(folder / "fused" / str(index), *common, *own) for index, own in enumerate(members)]
    results = _train_group(folder / "fused", configs)
    lines = []
    for index in alone or range(len(members)):
        config = json.loads(json.dumps(configs[index]).replace(str(folder / "fused"), str(folder / "alone")))
        reason = train_alone(config)
        if results[index].reason != reason:
            lines.append(f"{index}: failed with {results[index].reason!r} instead of {reason!r}")
        pair = [RunFolder(folder / which / str(index)) for which in ("fused", "alone")]
        lines += [f"{index}: {line}" for line in folder_differences(*pair, tolerance)]
    return lines


def folder_differences(fused: RunFolder, alone: RunFolder, tolerance: float) -> Iterator[str]:
    """Yield a line for each difference between the folders of two runs of the same configuration."""
    for name in ("metadata", "faults", "metrics", "history", "timing", "weight_trajectory", "weights", "best", "last"):
        one, two = (getattr(each, name) for each in (fused, alone))
        if one.exists() != two.exists():
            yield f"{one.name} {'exists' if one.exists() else 'is missing'}"
        elif one.exists() and name != "timing":
            yield from _differences(_read(one), _read(two), one.name, tolerance)


def _read(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
        return {"header": header, "rows": [[float(cell) if cell else None for cell in row] for row in rows]}
    state = torch.load(path, weights_only=True)
    callbacks = state.get("callbacks", {})
    for name in [*callbacks]:  # those of other callbacks are only for a run that was interrupted
        if name != "BestAndLast" and not name.startswith("EarlyStopping"):
            del callbacks[name]
    if path.name == "best.ckpt":  # these were saved before the metrics of the epoch were known
        del state["learner"], state["callbacks"]
    if "loops" in state:  # it counts the steps of schedules, which a group has if one of its members has
        del state["loops"]["fit_loop"]["epoch_loop.scheduler_progress"]
    return state


def _differences(one: Any, two: Any, place: str, tolerance: float) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(two, dict):
        if {*map(str, one)} != {*map(str, two)}:
            yield f"{place}: keys {[*one]} instead of {[*two]}"
            return
        for key in two:
            yield from _differences(one[key], two[key], f"{place}.{key}", tolerance)
    elif isinstance(one, list | tuple) and isinstance(two, list | tuple):
        if len(one) != len(two):
            yield f"{place}: {len(one)} items instead of {len(two)}"
            return
        for index, (left, right) in enumerate(zip(one, two, strict=True)):
            yield from _differences(left, right, f"{place}[{index}]", tolerance)
    elif not _equal(one, two, tolerance):
        yield f"{place}: {_described(one)} instead of {_described(two)}"


def _equal(one: Any, two: Any, tolerance: float) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return (one.shape, one.dtype) == (two.shape, two.dtype) and close(one, two, tolerance)
    if isinstance(one, float) and isinstance(two, float):
        return (math.isnan(one) and math.isnan(two)) or abs(one - two) <= tolerance * max(abs(two), 1e-2)
    return one == two and type(one) is type(two)


def _described(value: Any) -> str:
    return f"{tuple(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) and value.ndim else repr(value)


def close(one: torch.Tensor, two: torch.Tensor, tolerance: float) -> bool:
    """Return whether two tensors are equal up to `tolerance`, relative to the largest value, or to 1 if it is less.

    Smaller values, such as the gradient at a minimum, are differences of values of this size.
    """
    if not one.is_floating_point():
        return torch.equal(one, two)
    one, two = one.double(), two.double()
    scale = two[two.isfinite()].abs().max().item() if two.isfinite().any() else 1.0
    return torch.allclose(one, two, rtol=tolerance, atol=tolerance * max(scale, 1.0), equal_nan=True)

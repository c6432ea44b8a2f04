"""Which loss a model reaches under every loss, whichever it was trained with."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from losslab.analysis.compare.grouping import Group, Settings, group_names
from losslab.analysis.compare.read import Run
from losslab.analysis.loss_matrix.translation import translated
from losslab.analysis.outputs import SplitOutputs, collect_outputs
from losslab.errors import LabError
from losslab.losses import catalog
from losslab.losses.base import Loss
from losslab.targets import Task, choose_kind, encode
from losslab.training import experiment as lab
from losslab.training import weights
from losslab.training.experiment import Experiment
from losslab.training.instantiate import make_loss

_MOST_ACROSS = 10


@dataclass(frozen=True)
class Cell:
    """A kind of model under a loss."""

    value: float | None
    """Mean over the seeds of the mean loss on the test set; None where it cannot be measured."""
    how: str
    """"own", "as they are" or "translated"; where it cannot be measured, why."""


@dataclass(frozen=True)
class Matrix:
    """All kinds of models under all losses."""

    groups: tuple[Group, ...]
    losses: tuple[str, ...]
    cells: dict[tuple[Group, str], Cell]

    @property
    def upright(self) -> bool:
        """Whether it is shown with groups across and losses down, as more losses than a page is wide are."""
        return len(self.losses) > _MOST_ACROSS

    @property
    def translated(self) -> bool:
        """Whether some outputs had to be translated."""
        return any(cell.how == "translated" for cell in self.cells.values())

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Why cells are empty: by reason, "GROUP under LOSS" of each."""
        found: dict[str, list[str]] = {}
        for (group, loss), cell in self.cells.items():
            if cell.value is None:
                found.setdefault(cell.how, []).append(f"{group.label} under {loss}")
        return found


def measure(
    groups: Sequence[Group], *, everything: bool = False, watched: Callable[[list[Run]], Iterable[Run]] = iter
) -> Matrix:
    """Rebuild every run that counts, and measure it on its test set under each loss.

    Args:
        groups: whose runs to measure.
        everything: under all losses of the catalogue that fit, and not only those that some group was trained with.
        watched: wraps the runs, to show how far this is.

    Raises:
        LabError: a run names what is not trusted.
    """
    groups = [one for one in groups if one.runs]
    for run in (run for one in groups for run in one.runs):
        run.folder.read_config()  # to be compared they were only looked at, now they are made
    columns = _columns(groups, everything=everything)
    found: dict[tuple[Group, str], list[Cell]] = {}
    owner = {run: one for one in groups for run in one.runs}
    for run in watched([*owner]):
        for name, cell in _measured(run, columns).items():
            found.setdefault((owner[run], name), []).append(cell)
    cells = {place: _together(several) for place, several in found.items()}
    used = tuple(name for name in columns if any(cells[one, name].value is not None for one in groups))
    kept = {place: cell for place, cell in cells.items() if place[1] in used}
    return Matrix(tuple(groups), used, kept)


def _columns(groups: Sequence[Group], *, everything: bool) -> dict[str, dict[str, Any]]:
    """The configurations of the losses to measure by, by name."""
    own: dict[frozenset[tuple[str, Any]], tuple[Settings, dict[str, Any]]] = {}
    for one in groups:
        part = {key: value for key, value in one.settings.items() if key.startswith(("loss.", "choices.loss"))}
        own.setdefault(frozenset(part.items()), (part, one.runs[0].config["loss"]))
    names = [" ".join(name).removeprefix("loss=") for name in group_names([part for part, _ in own.values()])]
    columns = dict(zip(names, (config for _, config in own.values()), strict=True))
    return columns | {name: catalog.config(name) for name in catalog.names() if everything and name not in columns}


def _together(cells: Sequence[Cell]) -> Cell:
    values = [cell.value for cell in cells if cell.value is not None]
    empty = [cell for cell in cells if cell.value is None]
    return empty[0] if empty else Cell(fmean(values), cells[0].how)


def _measured(run: Run, columns: dict[str, dict[str, Any]]) -> dict[str, Cell]:
    """One run under each loss."""
    try:
        experiment = lab.rebuild(run.folder, run.config)
        weights.load(experiment.learner, run.folder.checkpoint("best"))
        seen = collect_outputs(experiment, "test")
    except LabError as error:
        return dict.fromkeys(columns, Cell(None, str(error)))
    return {
        name: Cell(seen.mean_loss, "own") if config == run.config["loss"] else _under(config, experiment, seen)
        for name, config in columns.items()
    }


def _under(config: dict[str, Any], experiment: Experiment, seen: SplitOutputs) -> Cell:
    facts, trained = experiment.learner.facts, experiment.learner.loss
    try:
        loss = make_loss(config, facts.kind, facts.targets)
    except LabError:
        return Cell(None, "the loss takes other targets")
    kind = choose_kind(facts.kind, loss.wants)
    if kind is None:
        return Cell(None, "the loss takes other targets")
    if loss.n_views > 1:
        return Cell(None, "the loss asks a teacher or other views of the inputs")
    if any(True for _ in loss.parameters()):
        return Cell(None, "the loss learns together with its own network")
    values = facts.task is Task.REGRESSION
    outputs, how = translated(seen.outputs, trained, loss, values=values, exclusive=facts.task is Task.MULTICLASS)
    if not how:
        return Cell(None, "the outputs do not say what the loss reads")
    counts = getattr(experiment.data, "class_counts", None)
    if counts is not None:
        loss.set_class_counts(counts)
    return Cell(_mean(loss, outputs, encode(seen.target, facts.kind, kind, facts.targets, torch.float64)), how)


def _mean(loss: Loss, outputs: torch.Tensor, target: torch.Tensor) -> float:
    with torch.no_grad():
        total = loss.double().total(outputs, target)
    return float(total.value / total.weight)

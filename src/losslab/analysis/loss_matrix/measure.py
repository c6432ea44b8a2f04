"""Mean test loss of trained models under every loss, with outputs translated where two losses read them differently."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from losslab.analysis.compare.grouping import Group, Settings, group_names, labels_by_value
from losslab.analysis.compare.read import Run
from losslab.analysis.outputs import SplitOutputs, collect_outputs
from losslab.errors import LabError
from losslab.losses import catalog
from losslab.losses.base import Loss
from losslab.targets import Task, choose_kind, encode
from losslab.training.experiment import Experiment
from losslab.training.instantiate import make_loss
from losslab.training.reopen import EvaluationRequest, reopen

_MAX_COLUMNS = 10


@dataclass(frozen=True)
class Cell:
    """A group of models under a loss."""

    value: float | None
    """Mean over seeds of the mean loss on the test set; None if it cannot be measured."""
    how: str
    """"own", "as they are" or "translated"; if it cannot be measured, why."""


@dataclass(frozen=True)
class Matrix:
    """All groups of models under all losses."""

    groups: tuple[Group, ...]
    losses: tuple[str, ...]
    cells: dict[tuple[Group, str], Cell]

    @property
    def losses_in_rows(self) -> bool:
        """Whether losses are rows and groups are columns: more losses than fit on a page side by side."""
        return len(self.losses) > _MAX_COLUMNS

    @property
    def translated(self) -> bool:
        """Whether the outputs of some cell were translated."""
        return any(cell.how == "translated" for cell in self.cells.values())

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Why cells are empty: by reason, "GROUP under LOSS" of each."""
        empty = {key: cell.how for key, cell in self.cells.items() if cell.value is None}
        return labels_by_value((why, f"{group.label} under {loss}") for (group, loss), why in empty.items())


def measure(
    groups: Sequence[Group],
    *,
    all_losses: bool = False,
    trusted: Sequence[str] = (),
    track: Callable[[list[Run]], Iterable[Run]] = iter,
) -> Matrix:
    """Rebuild every run that counts, and measure it on its test set under each loss.

    Args:
        groups: whose runs to measure.
        all_losses: whether to use all losses of the catalog that fit, instead of those that a group was trained with.
        trusted: packages that the runs' configurations may name, beside those on losslab's list.
        track: wraps the runs to show the progress.

    Raises:
        LabError: a run's configuration names something that is not trusted.
    """
    groups = [group for group in groups if group.runs]
    group_of = {run: group for group in groups for run in group.runs}
    requests = {run: EvaluationRequest(run.folder.path, trusted=tuple(trusted)) for run in group_of}
    for request in requests.values():
        request.folder.read_config()  # a run that names what is not trusted is refused before the first is measured
    losses = _losses(groups, all_losses=all_losses)
    seeds: dict[tuple[Group, str], list[Cell]] = {}
    for run in track([*group_of]):
        for name, cell in _measure_run(run, requests[run], losses).items():
            seeds.setdefault((group_of[run], name), []).append(cell)
    cells = {}
    for key, several in seeds.items():
        values = [cell.value for cell in several if cell.value is not None]
        empty = next((cell for cell in several if cell.value is None), None)
        cells[key] = empty or Cell(fmean(values), several[0].how)
    used = tuple(name for name in losses if any(cells[group, name].value is not None for group in groups))
    return Matrix(tuple(groups), used, {key: cell for key, cell in cells.items() if key[1] in used})


def _losses(groups: Sequence[Group], *, all_losses: bool) -> dict[str, dict[str, Any]]:
    """Configurations of the losses to measure by, by name."""
    trained: dict[frozenset[tuple[str, Any]], tuple[Settings, dict[str, Any]]] = {}
    for group in groups:
        settings = {key: value for key, value in group.settings.items() if key.startswith(("loss.", "choices.loss"))}
        trained.setdefault(frozenset(settings.items()), (settings, group.runs[0].config["loss"]))
    names = [" ".join(name).removeprefix("loss=") for name in group_names([each for each, _ in trained.values()])]
    configs = dict(zip(names, (config for _, config in trained.values()), strict=True))
    return configs | {name: catalog.config(name) for name in catalog.names() if all_losses and name not in configs}


def _measure_run(run: Run, request: EvaluationRequest, losses: dict[str, dict[str, Any]]) -> dict[str, Cell]:
    try:
        experiment = reopen(request)
        test = collect_outputs(experiment, "test")
    except LabError as error:
        return dict.fromkeys(losses, Cell(None, str(error)))
    return {
        name: Cell(test.mean_loss, "own") if config == run.config["loss"] else _measure_under(config, experiment, test)
        for name, config in losses.items()
    }


def _measure_under(config: dict[str, Any], experiment: Experiment, test: SplitOutputs) -> Cell:
    spec, trained = experiment.learner.spec, experiment.learner.loss
    try:
        loss = make_loss(config, spec.kind, spec.targets)
    except LabError:
        return Cell(None, "the loss takes other targets")
    kind = choose_kind(spec.kind, loss.wants)
    if kind is None:
        return Cell(None, "the loss takes other targets")
    if loss.n_views > 1:
        return Cell(None, "the loss needs a teacher or other views of the inputs")
    if any(True for _ in loss.parameters()):
        return Cell(None, "the loss has parameters that it learns with its own network")
    values = spec.task is Task.REGRESSION
    outputs, how = translate(test.outputs, trained, loss, values=values, exclusive=spec.task is Task.MULTICLASS)
    if not how:
        return Cell(None, "the outputs do not determine what the loss reads")
    counts = getattr(experiment.data, "class_counts", None)
    if counts is not None:
        loss.set_class_counts(counts)
    target = encode(test.target, spec.kind, kind, spec.targets, torch.float64)
    with torch.no_grad():
        total = loss.double().total(outputs, target)
    return Cell(float(total.value / total.weight), how)


def translate(outputs: Tensor, trained: Loss, measuring: Loss, *, values: bool, exclusive: bool) -> tuple[Tensor, str]:
    """Translate outputs so that they mean under one loss what they mean under another.

    The meaning of outputs is their probabilities (N, C) or (N, K), or their values (N, D). If both losses read the
    outputs alike, they stay "as they are". Otherwise the inverse of the measuring loss's reading is guessed: of a
    softmax or sigmoid, a linear function, or an exponential. A guess counts only if it reproduces the meaning.

    Args:
        outputs: (N, ...) of a network trained under `trained`.
        trained: loss that the network was trained with.
        measuring: loss that is to read the outputs.
        values: whether outputs stand for values instead of probabilities.
        exclusive: whether probabilities are of exclusive classes; they are normalised, as metrics do.

    Returns:
        The outputs in float64, and "as they are" or "translated"; "" if there is no translation.
    """
    outputs = outputs.double()
    read = measuring.to_predictions if values else measuring.to_probabilities
    meaning = trained.to_predictions(outputs) if values else trained.to_probabilities(outputs)
    if trained.outputs_per_target == measuring.outputs_per_target and _close(_try(read, outputs), meaning):
        return outputs, "as they are"
    if measuring.outputs_per_target > 1:
        return outputs, ""
    meaning = meaning / meaning.sum(1, keepdim=True) if exclusive else meaning
    for guess in _inverses(read, meaning, values=values):
        reread = _try(read, guess)
        if reread is not None and exclusive:
            reread = reread / reread.sum(1, keepdim=True)
        if guess.isfinite().all() and _close(reread, meaning):
            return guess, "translated"
    return outputs, ""


def _try(read: Callable[[Tensor], Tensor], outputs: Tensor) -> Tensor | None:
    try:
        return read(outputs)
    except (RuntimeError, ValueError):  # the loss takes outputs of another shape
        return None


def _close(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def _inverses(read: Callable[[Tensor], Tensor], meaning: Tensor, *, values: bool) -> Iterator[Tensor]:
    """Candidates for outputs with this meaning, each for one form of the reading."""
    if values:
        yield meaning
        yield meaning.log()
        return
    columns = meaning.shape[1]
    probes = [meaning.new_full((columns,), value) for value in (0.0, 0.5, 1.0)]
    probes.append(pad(meaning.new_ones(1), (0, columns - 1)))  # 1 in the first column, 0 in the others
    answers = [_try(read, probe.expand(1, columns)) for probe in probes]
    if any(answer is None for answer in answers):
        return
    zero, half, one, first = (answer[0] for answer in answers if answer is not None)
    inside = meaning.clamp(1e-12, 1 - 1e-12)
    yield (meaning - zero) / (half - zero) / 2
    yield (inside.logit() - zero.logit()) / (one.logit() - zero.logit())
    if columns > 1:
        yield inside.log() / (first[0] / first[1]).log()

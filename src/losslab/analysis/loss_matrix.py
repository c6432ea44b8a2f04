"""The loss matrix: the mean test loss of each group of models under each loss, as a table and as a heatmap."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import nan
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from losslab.analysis.compare.grouping import Group, Settings, group_names, labels_by_value, shorten
from losslab.analysis.compare.read import Run
from losslab.analysis.compare.tables import NO_VALUE, group_labels
from losslab.analysis.outputs import SplitOutputs, collect_outputs
from losslab.errors import LabError, message_of
from losslab.io.figures import colour_ticks, new_figure, save_png
from losslab.io.tables import markdown_table, write_csv
from losslab.losses import catalog
from losslab.losses.base import Loss
from losslab.targets import Task, choose_kind, encode
from losslab.training.experiment import Experiment
from losslab.training.instantiate import make_loss
from losslab.training.reopen import EvaluationRequest, reopen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Trained with, measured by"


@dataclass(frozen=True)
class Cell:
    """The value of one loss for one group of models."""

    value: float | None
    """The mean loss on the test set, averaged over seeds; None if it cannot be measured."""
    how: str
    """"own" (the loss of training), "as they are" or "translated" (see `translate`), or why the value is None."""


@dataclass(frozen=True)
class Matrix:
    """The loss matrix: one cell for each group of models and each loss."""

    groups: tuple[Group, ...]
    losses: tuple[str, ...]
    cells: dict[tuple[Group, str], Cell]

    @property
    def losses_in_rows(self) -> bool:
        """Whether losses are rows and groups are columns, because so many losses do not fit on a page as columns."""
        return len(self.losses) > 10

    @property
    def translated(self) -> bool:
        """Whether outputs were translated for at least one cell."""
        return any(cell.how == "translated" for cell in self.cells.values())

    @property
    def reasons(self) -> dict[str, list[str]]:
        """The names of the empty cells, such as "GROUP under LOSS", by the reason why these are empty."""
        empty = {key: cell.how for key, cell in self.cells.items() if cell.value is None}
        return labels_by_value((why, f"{group.label} under {loss}") for (group, loss), why in empty.items())


def measure(
    groups: Sequence[Group],
    *,
    all_losses: bool = False,
    trusted: Sequence[str] = (),
    track: Callable[[list[Run]], Iterable[Run]] = iter,
) -> Matrix:
    """Reopen every run of the groups, and compute the mean of each loss on the test set of the run.

    Args:
        groups: the groups of runs. Each run is measured by the training losses of all groups.
        all_losses: whether to also measure by all other losses of the catalog.
        trusted: the packages that the configurations of the runs may name, besides those that losslab trusts.
        track: a function that iterates over the runs and shows the progress, such as `rich.progress.track`.

    Raises:
        LabError: the configuration of a run names a package that is not trusted.
    """
    groups = [group for group in groups if group.runs]
    group_of = {run: group for group in groups for run in group.runs}
    requests = {run: EvaluationRequest(run.folder.path, trusted=tuple(trusted)) for run in group_of}
    for request in requests.values():
        request.folder.read_config()  # raises for an untrusted run before the first run is measured
    losses = trained = _losses(groups)
    if all_losses:
        losses = trained | {name: catalog.config(name) for name in catalog.names() if name not in trained}
    cells_of_seeds: dict[tuple[Group, str], list[Cell]] = {}
    for run in track([*group_of]):
        for name, cell in _measure_run(run, requests[run], losses).items():
            cells_of_seeds.setdefault((group_of[run], name), []).append(cell)
    cells = {}
    for key, seeds in cells_of_seeds.items():
        values = [cell.value for cell in seeds if cell.value is not None]
        empty = next((cell for cell in seeds if cell.value is None), None)
        cells[key] = empty or Cell(fmean(values), seeds[0].how)
    measured = tuple(
        name for name in losses if name in trained or any(cells[group, name].value is not None for group in groups)
    )
    return Matrix(tuple(groups), measured, {key: cell for key, cell in cells.items() if key[1] in measured})


def _losses(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Return the configurations of the losses of the groups, by a name that distinguishes them."""
    trained: dict[frozenset[tuple[str, Any]], tuple[Settings, dict[str, Any]]] = {}
    for group in groups:
        settings = {key: value for key, value in group.settings.items() if key.startswith(("loss.", "choices.loss"))}
        trained.setdefault(frozenset(settings.items()), (settings, group.runs[0].config["loss"]))
    names = [" ".join(name).removeprefix("loss=") for name in group_names([each for each, _ in trained.values()])]
    return dict(zip(names, (config for _, config in trained.values()), strict=True))


def _measure_run(run: Run, request: EvaluationRequest, losses: dict[str, dict[str, Any]]) -> dict[str, Cell]:
    try:
        experiment = reopen(request)
        test = collect_outputs(experiment, "test")
    except LabError as error:
        return dict.fromkeys(losses, Cell(None, str(error)))
    own = test.mean_loss if experiment.learner.loss.scores_examples else experiment.learner.values["test/loss"]
    return {
        name: Cell(own, "own") if config == run.config["loss"] else _measure_under(config, experiment, test)
        for name, config in losses.items()
    }


def _measure_under(config: dict[str, Any], experiment: Experiment, test: SplitOutputs) -> Cell:
    spec, trained = experiment.learner.spec, experiment.learner.loss
    try:
        loss = make_loss(config, spec.kind, spec.targets, warn="nothing")
        kind = choose_kind(spec.kind, loss.wants)
    except LabError:
        kind = None
    if kind is None:
        return Cell(None, "the loss does not take the targets of these data")
    if loss.n_views > 1:
        return Cell(None, "the loss needs a teacher or other views of the inputs")
    if any(True for _ in loss.parameters()):
        return Cell(None, "the loss has parameters that are trained together with the network")
    values = spec.task is Task.REGRESSION
    outputs, how = translate(test.outputs, trained, loss, values=values, exclusive=spec.task is Task.MULTICLASS)
    if not how:
        return Cell(None, "no outputs were found that the loss converts to the same predictions")
    counts = getattr(experiment.data, "class_counts", None)
    if counts is not None:
        loss.set_class_counts(counts)
    target = encode(test.target, spec.kind, kind, spec.targets, torch.float64)
    # A loss that scores a batch as a whole gets the same batches as in the evaluation of its own models.
    size = len(outputs) if loss.scores_examples else experiment.data.eval_batch_size or len(outputs)
    loss = loss.double().eval()
    try:
        with torch.no_grad():
            totals = [loss.total(*batch) for batch in zip(outputs.split(size), target.split(size), strict=True)]
    except Exception as error:  # noqa: BLE001 -- a criterion of another library may raise anything
        return Cell(None, f"the loss raises {type(error).__name__}: {message_of(error, 160)}")
    return Cell(float(sum(each.value for each in totals) / sum(each.weight for each in totals)), how)


def translate(outputs: Tensor, trained: Loss, measuring: Loss, *, values: bool, exclusive: bool) -> tuple[Tensor, str]:
    """Find outputs that the measuring loss converts to the predictions of a network.

    The network's predictions are its outputs (N, ...), converted by the loss that it was trained with. If the measuring
    loss converts the outputs to the same predictions, the outputs stay "as they are". Otherwise, the inverses of some
    functions, such as a softmax, are applied to the predictions. The first result that the measuring loss converts to
    the same predictions is "translated".

    The predictions are either `values` (N, D) or the probabilities of C classes or labels (N, C). Those of `exclusive`
    classes are normalised, as in the metrics.

    Returns:
        The outputs in float64, and "as they are" or "translated"; "" if no such outputs were found.
    """
    outputs = outputs.double()
    predict = measuring.to_predictions if values else measuring.to_probabilities
    predictions = trained.to_predictions(outputs) if values else trained.to_probabilities(outputs)
    if trained.outputs_per_target == measuring.outputs_per_target and _close(_try(predict, outputs), predictions):
        return outputs, "as they are"
    if measuring.outputs_per_target > 1:
        return outputs, ""
    predictions = predictions / predictions.sum(1, keepdim=True) if exclusive else predictions
    for candidate in _candidates(predict, predictions, values=values):
        found = _try(predict, candidate)
        if found is not None and exclusive:
            found = found / found.sum(1, keepdim=True)
        if candidate.isfinite().all() and _close(found, predictions):
            return candidate, "translated"
    return outputs, ""


def _try(predict: Callable[[Tensor], Tensor], outputs: Tensor) -> Tensor | None:
    try:
        return predict(outputs)
    except (RuntimeError, ValueError):  # the loss takes outputs of another shape
        return None


def _close(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def _candidates(predict: Callable[[Tensor], Tensor], predictions: Tensor, *, values: bool) -> Iterator[Tensor]:
    """Yield outputs that `predict` may convert to these predictions, one for each function that `predict` may be."""
    if values:
        yield predictions  # the identity
        yield predictions.log()  # the exponential function
        return
    columns = predictions.shape[1]
    probes = torch.tensor([0.0, 0.5, 1.0, 0.0]).to(predictions)[:, None].repeat(1, columns)
    probes[3, 0] = 1  # 1 in the first column, 0 in the others
    probabilities = _try(predict, probes)
    if probabilities is None:
        return
    zero, half, one, first = probabilities
    inside = predictions.clamp(1e-12, 1 - 1e-12)
    yield (predictions - zero) / (half - zero) / 2  # a linear function
    yield (inside.logit() - zero.logit()) / (one.logit() - zero.logit())  # a sigmoid of a linear function
    if columns > 1:
        yield inside.log() / (first[0] / first[1]).log()  # a softmax with a temperature


def write(matrix: Matrix, folder: Path) -> None:
    """Write matrix.png, and matrix.csv with a row per cell."""
    save_png(draw(matrix), folder / "matrix.png")
    rows = ((group.label, loss, cell.value, cell.how) for (group, loss), cell in matrix.cells.items())
    write_csv(folder / "matrix.csv", ["trained_with", "measured_by", "value", "how"], rows)


def section(matrix: Matrix) -> str:
    """Return the section of comparison.md, without its heading."""
    parts = [_explanation(matrix), f"![{TITLE}](matrix.png)", markdown_table(table(matrix))]
    if matrix.reasons:
        parts += ["Not measured:", "\n".join(f"- {shorten(cells)}: {why}" for why, cells in matrix.reasons.items())]
    return "\n\n".join(parts)


def table(matrix: Matrix, own: str = "**{}**") -> list[tuple[str, ...]]:
    """Return the header and the rows of the table; `own` is the format of cells whose loss trained the models."""
    rows, columns, keys = _arrange(matrix)
    body = [(name, *(_format(matrix.cells[key], own) for key in line)) for name, line in zip(rows, keys, strict=True)]
    return [("measured by" if matrix.losses_in_rows else "trained with", *columns), *body]


def _arrange(matrix: Matrix) -> tuple[Sequence[str], Sequence[str], list[tuple[tuple[Group, str], ...]]]:
    """Return the names of the rows, the names of the columns, and the keys of the cells in each row."""
    _, names = group_labels(matrix.groups)
    keys = [tuple((group, loss) for loss in matrix.losses) for group in matrix.groups]
    if matrix.losses_in_rows:
        return matrix.losses, names, [*zip(*keys, strict=True)]
    return names, matrix.losses, keys


def legend(matrix: Matrix, own: str) -> str:
    """Return the line below the table in a terminal; `own` is the format of the cells in the table, see `table`."""
    return (
        f"mean loss on the test set, to be compared within a {'row' if matrix.losses_in_rows else 'column'}; "
        f"{own.format('x')}: the loss that the models were trained with"
        f"{'; *: the outputs were translated' * matrix.translated}"
    )


def _explanation(matrix: Matrix) -> str:
    models, losses = ("column", "row") if matrix.losses_in_rows else ("row", "column")
    translated = (
        "A loss measures the outputs of a model as they are if it converts them to the same predictions (probabilities "
        "or values) as the training loss. Otherwise (cells with *), it measures translated outputs that it converts to "
        "the same predictions: the logarithms of probabilities for a softmax, for example, or log-odds for a sigmoid. "
        "The value of a loss that depends on more than the predictions, such as on the size of logits, then describes "
        "the translation, not the model."
    )
    return (
        f"Each {models} is a group of models. Each {losses} is one loss: its mean on the test set, averaged over seeds "
        f"(bold: the loss that the models were trained with). Compare values within a {losses}, not within a {models}, "
        "because every loss has its own scale. "
    ) + (translated if matrix.translated else "Every loss measures the outputs as they are.")


def draw(matrix: Matrix) -> "Figure":
    """Draw a heatmap. Each loss has its own colour scale, because values of different losses are not comparable."""
    rows, columns, keys = _arrange(matrix)
    sides = ("trained with", "mean loss on the test set, measured by")
    row_height = 0.36
    if matrix.losses_in_rows:
        sides, row_height = sides[::-1], 0.24
    figure = new_figure(max(6.4, 2.6 + 0.8 * len(columns)), 2.2 + row_height * len(rows), dpi=160)
    figure.suptitle(_finding(matrix), fontsize="medium", fontweight="bold")
    axes = figure.subplots()
    shades = [[_shade(matrix, *key) for key in line] for line in keys]
    image = axes.imshow(shades, cmap="cividis_r", vmin=0, vmax=1, aspect="auto")
    for row, column in product(range(len(rows)), range(len(columns))):
        cell, shade = matrix.cells[keys[row][column]], shades[row][column]
        axes.text(
            column, row, _format(cell), ha="center", va="center", fontsize="x-small",
            weight="bold" if cell.how == "own" else "normal", color="white" if shade > 0.55 else "black",
        )  # fmt: skip
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="left", rotation_mode="anchor", fontsize="small")
    axes.set_yticks(range(len(rows)), rows, fontsize="small")
    axes.set_ylabel(sides[0], fontsize="small")
    axes.set_title(sides[1], fontsize="small", loc="left")
    axes.set_xlabel(
        f"bold: the loss that the models were trained with{'; *: translated' * matrix.translated}", fontsize="small"
    )
    axes.xaxis.tick_top()
    labels = [group.loss_label for group in matrix.groups], [loss.replace(" ", ", ") for loss in matrix.losses]
    x_labels, y_labels = labels if matrix.losses_in_rows else labels[::-1]
    colour_ticks(axes.xaxis, x_labels)
    colour_ticks(axes.yaxis, y_labels)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, ticks=[0, 1], fraction=0.05, pad=0.02)
    bar.ax.set_yticklabels(["lowest", "highest"], fontsize="small")
    bar.ax.set_ylabel("value of each loss", fontsize="small")
    return figure


def _finding(matrix: Matrix) -> str:
    if len(matrix.groups) == 1:
        return f"Trained with {group_labels(matrix.groups)[1][0]}"
    own = [key for key, cell in matrix.cells.items() if cell.how == "own"]
    lowest = {loss for group, loss in own if _shade(matrix, group, loss) == 0}
    count = len({loss for _, loss in own})
    return f"For {len(lowest)} of {count} losses, models that were trained with the loss have the lowest value"


def _shade(matrix: Matrix, group: Group, loss: str) -> float:
    """Return the colour of a cell: 0 for the lowest value of its loss, 1 for the highest, NaN for an empty cell."""
    value = matrix.cells[group, loss].value
    if value is None:
        return nan
    values = [cell.value for each in matrix.groups if (cell := matrix.cells[each, loss]).value is not None]
    low, high = min(values), max(values)
    return (value - low) / (high - low) if high > low else 0.0


def _format(cell: Cell, own: str = "{}") -> str:
    if cell.value is None:
        return NO_VALUE
    value = f"{cell.value:.3g}"
    return own.format(value) if cell.how == "own" else value + "*" * (cell.how == "translated")

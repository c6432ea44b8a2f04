"""The tables of an evaluation as CSV files."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from losslab.evaluation import measures
from losslab.evaluation.answers import Answers, Array
from losslab.targets import Task


def predictions(answers: Answers) -> dict[str, Array]:
    """The columns of predictions.csv: a row an example, with truth, target, prediction, confidence and loss."""
    of_task = {Task.REGRESSION: _values, Task.MULTICLASS: _classes, Task.BINARY: _label, Task.MULTILABEL: _labels}
    return {"index": answers.index} | of_task[answers.facts.task](answers) | {"loss": answers.loss}


def _classes(answers: Answers) -> dict[str, Array]:
    named = np.array(measures.names(answers))
    columns = {"truth": answers.truth, "target": answers.target_class, "prediction": answers.prediction}
    words = {f"{name}_name": named[column] for name, column in columns.items()}
    certain = answers.target.ndim == 1 or (answers.target.max(1) == 1).all()
    spelt = {} if certain else _each("target", answers.target, list(named))
    return columns | {"confidence": answers.confidence} | words | spelt


def _label(answers: Answers) -> dict[str, Array]:
    assert answers.probabilities is not None  # noqa: S101 -- for the type checker
    named = np.array(measures.names(answers))
    columns = {"truth": answers.truth[:, 0], "target": answers.target[:, 0], "prediction": answers.prediction[:, 0]}
    words = {
        f"{name}_name": named[column] for name, column in columns.items() if column.dtype.kind == "i"
    }  # a softened target is no class
    probability = {"confidence": answers.confidence[:, 0], f"probability_{named[1]}": answers.probabilities[:, 0]}
    return columns | probability | words


def _labels(answers: Answers) -> dict[str, Array]:
    assert answers.probabilities is not None  # noqa: S101 -- for the type checker
    named = measures.names(answers)
    columns = {"truth": answers.truth, "target": answers.target, "prediction": answers.prediction}
    columns |= {"probability": answers.probabilities, "confidence": answers.confidence}
    return {key: column for name, values in columns.items() for key, column in _each(name, values, named).items()}


def _values(answers: Answers) -> dict[str, Array]:
    columns = {"truth": answers.truth, "target": answers.target, "prediction": answers.prediction}
    columns["residual"] = answers.prediction - answers.truth
    if answers.deviation is not None:
        columns["deviation"] = answers.deviation
    if answers.truth.shape[1] == 1:
        return {name: values[:, 0] for name, values in columns.items()}
    numbers = [str(number) for number in range(answers.truth.shape[1])]
    return {key: column for name, values in columns.items() for key, column in _each(name, values, numbers).items()}


def _each(name: str, values: Array, of: Sequence[str]) -> dict[str, Array]:
    return {f"{name}_{each}": values[:, place] for place, each in enumerate(of)}


def write_columns(path: Path, columns: Mapping[str, Array], rows: Array | None = None) -> None:
    """Write columns (N,) by name, or these rows of them; floating numbers to 7 significant digits, as of float32."""
    chosen = [column if rows is None else column[rows] for column in columns.values()]
    written = [map("{:.7g}".format, column) if column.dtype.kind == "f" else column.tolist() for column in chosen]
    write_rows(path, list(columns), zip(*written, strict=True))


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write rows below a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_confusion(path: Path, answers: Answers) -> None:
    """A row for each true class, a column for each predicted one; of labels a row each with the four counts."""
    named, matrix = measures.names(answers), measures.confusion(answers)
    if answers.facts.task is Task.MULTILABEL:
        header = ["label", "true_negative", "false_positive", "false_negative", "true_positive"]
    else:
        header = ["truth \\ prediction", *named]
    write_rows(path, header, ([name, *row] for name, row in zip(named, matrix.tolist(), strict=True)))

"""The tables of an evaluation as CSV files.

Where an evaluation is written, and what.
"""

import csv
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from losslab import runs
from losslab.analysis.evaluate import metrics, soft_labels
from losslab.analysis.evaluate.evaluation import Evaluation
from losslab.analysis.evaluate.figures import classification, plural, regression, signed, worst
from losslab.analysis.evaluate.predictions import Answers, Array
from losslab.errors import LabError
from losslab.io import untrusted
from losslab.io.untrusted import open_regular_file
from losslab.targets import Task
from losslab.training.reopen import EvaluationRequest


def predictions(answers: Answers) -> dict[str, Array]:
    """The columns of predictions.csv: a row an example, with truth, target, prediction, confidence and loss."""
    of_task = {Task.REGRESSION: _values, Task.MULTICLASS: _classes, Task.BINARY: _label, Task.MULTILABEL: _labels}
    return {"index": answers.index} | of_task[answers.facts.task](answers) | {"loss": answers.loss}


def _classes(answers: Answers) -> dict[str, Array]:
    named = np.array(metrics.names(answers))
    columns = {"truth": answers.truth, "target": answers.target_class, "prediction": answers.prediction}
    words = {f"{name}_name": named[column] for name, column in columns.items()}
    certain = answers.target.ndim == 1 or (answers.target.max(1) == 1).all()
    spelt = {} if certain else _each("target", answers.target, list(named))
    return columns | {"confidence": answers.confidence} | words | spelt


def _label(answers: Answers) -> dict[str, Array]:
    assert answers.probabilities is not None  # noqa: S101 -- for the type checker
    named = np.array(metrics.names(answers))
    columns = {"truth": answers.truth[:, 0], "target": answers.target[:, 0], "prediction": answers.prediction[:, 0]}
    words = {
        f"{name}_name": named[column] for name, column in columns.items() if column.dtype.kind == "i"
    }  # a softened target is no class
    probability = {"confidence": answers.confidence[:, 0], f"probability_{named[1]}": answers.probabilities[:, 0]}
    return columns | probability | words


def _labels(answers: Answers) -> dict[str, Array]:
    assert answers.probabilities is not None  # noqa: S101 -- for the type checker
    named = metrics.names(answers)
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
    named, matrix = metrics.names(answers), metrics.confusion(answers)
    if answers.facts.task is Task.MULTILABEL:
        header = ["label", "true_negative", "false_positive", "false_negative", "true_positive"]
    else:
        header = ["truth \\ prediction", *named]
    write_rows(path, header, ([name, *row] for name, row in zip(named, matrix.tolist(), strict=True)))


WORST = 25


def name(look: EvaluationRequest, soft: Path | None) -> str:
    """What an evaluation is called: by its split, and by whatever makes it another than the run's own.

    "test" is the run's own weights and data; "test+last", "val+dir=_elsewhere-1f2e3d" and "test+soft=people-4a5b6c" are
    others.
    """
    parts = [look.split]
    if look.checkpoint != "best":
        parts.append(look.checkpoint if look.checkpoint == "last" else str(Path(look.checkpoint).resolve()))
    parts += sorted(pair.removeprefix("data.") for pair in look.data)
    if soft is not None:
        parts.append(f"soft={soft.stem}-{_short(str(soft.resolve()))}")
    whole = "+".join(parts)
    plain = re.sub(r"[^\w.+=-]", "_", whole)
    if plain == whole and len(plain) <= 80:
        return plain
    ending = plain if len(plain) <= 80 else f"{plain[:40]}...{plain[-37:]}"
    return f"{ending}-{_short(whole)}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def write(found: Evaluation, folder: Path) -> list[str]:
    """Write all there is of an evaluation → the names of the files.

    They are made elsewhere and moved into the folder when all are whole. The same evaluation again takes the place of
    the one before; what else lies there stays.

    Raises:
        LabError: the folder cannot be written, is reached by a link in that of the run, or holds something else.
    """
    untrusted.check_output_path(folder, found.experiment.folder.path)
    _check_free(found, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
            _write(found, Path(temporary))
            made = sorted(path.name for path in Path(temporary).iterdir())
            _check_places(folder, made)  # all of them before the first: half of one evaluation is none
            for each in made:
                (Path(temporary) / each).replace(folder / each)
    except OSError as error:
        raise LabError(
            f"cannot write the evaluation to {folder} ({error.strerror}): name another folder with --output"
        ) from error
    return made


def _check_free(found: Evaluation, folder: Path) -> None:
    if folder.parent == found.experiment.folder.evaluation("any").parent or not folder.exists():
        return
    try:
        there = json.loads(runs.read_text(folder / "settings.json"))
    except (OSError, ValueError):
        there = None
    free = folder.is_dir() and not any(folder.iterdir())
    if not free and there != settings(found):
        raise LabError(f"{folder} holds something else than this evaluation: name another folder with --output")


def _check_places(folder: Path, names: list[str]) -> None:
    wrong = next((folder / name for name in names if (folder / name).is_dir()), None)
    if wrong is None and os.access(folder, os.W_OK | os.X_OK):
        return
    where = f"{wrong} is a folder: remove it, or" if wrong else f"cannot write the evaluation to {folder}:"
    raise LabError(f"{where} name another folder with --output")


def _write(found: Evaluation, folder: Path) -> None:
    answers = found.answers
    columns = predictions(answers)
    if found.people is not None:
        columns |= _of_people(answers, found)
    write_columns(folder / "predictions.csv", columns)
    highest = answers.worst(WORST)
    write_columns(folder / "worst.csv", columns, highest)
    content: dict[str, Any] = dict(found.values)
    if answers.facts.task is not Task.REGRESSION:
        (folder / "report.txt").write_text(metrics.report(answers), encoding="utf-8")
        write_confusion(folder / "confusion.csv", answers)
        np.save(folder / "probabilities.npy", np.asarray(answers.probabilities, dtype=np.float32))
        content["classes"] = _of_classes(found)
    runs.write_json(folder / "measures.json", content)
    runs.write_json(folder / "settings.json", settings(found))
    for stem, draw in _figures(found, highest).items():
        signed(draw(), _small_print(found)).savefig(folder / f"{stem}.png")


def _small_print(found: Evaluation) -> str:
    """Which run, weights and examples a figure is of."""
    own = settings(found)
    weights = own["checkpoint"].removeprefix("checkpoints/")
    words = [str(found.experiment.config["name"]), weights, plural(len(found.answers), f"{found.look.split} example")]
    return " · ".join([*words, *found.look.data])


def _figures(found: Evaluation, highest: Any) -> dict[str, Callable[[], Figure]]:
    answers = found.answers
    figures: dict[str, Callable[[], Figure]] = {}
    if answers.facts.task is Task.REGRESSION:
        figures["predictions"] = lambda: regression.draw_predictions(answers)
        figures["residuals"] = lambda: regression.draw_residuals(answers)
    else:
        figures["confusion"] = lambda: classification.draw_confusion(answers)
        figures["reliability"] = lambda: classification.draw_calibration(answers)
        figures |= {each.kind: partial(classification.draw_curves, each, answers) for each in found.curves if each.each}
    source = found.experiment.data.splits[found.look.split]
    if len(answers.facts.input_shape) == 3 and answers.facts.input_shape[0] in {1, 3}:
        figures["worst"] = lambda: worst.draw(answers, source, highest)
    return figures


def _of_classes(found: Evaluation) -> dict[str, dict[str, float]]:
    table = metrics.of_classes(found.answers)
    for curve in found.curves:
        area = "roc_auc" if curve.kind == "roc" else "average_precision"
        for each in curve.each:
            table.setdefault(each.name, {})[area] = each.area
    return table


def _of_people(answers: Answers, found: Evaluation) -> dict[str, Any]:
    people = found.people
    assert people is not None  # noqa: S101 -- for the type checker
    assert answers.probabilities is not None  # noqa: S101 -- likewise
    named = np.array(metrics.names(answers))
    return {
        "people_name": named[people.argmax(1)],
        "people_confidence": people.max(1),
        "people_entropy": soft_labels.entropy(people),
        "soft_cross_entropy": soft_labels.cross_entropy(people, answers.probabilities),
    }


def settings(found: Evaluation) -> dict[str, Any]:
    """What was evaluated: enough to tell two evaluations apart, and to repeat this one."""
    folder = found.experiment.folder
    checkpoint = folder.checkpoint(found.look.checkpoint)
    inside = checkpoint.is_relative_to(folder.path)
    return {
        "split": found.look.split,
        "checkpoint": str(checkpoint.relative_to(folder.path) if inside else checkpoint.resolve()),
        "checkpoint_sha256": _sha256(checkpoint),
        "data": list(found.look.data),
        "own_data": not found.look.data,
        "soft_labels": None if found.soft is None else str(found.soft.resolve()),
        "soft_labels_sha256": None if found.soft is None else _sha256(found.soft),
        "examples": len(found.answers),
    }


def _sha256(path: Path) -> str:
    with open_regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""The folder of an evaluation: its name, and the tables and figures in it."""

import errno
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from losslab.analysis.compare.read import read_columns
from losslab.analysis.evaluate import extra_metrics, figures, soft_labels
from losslab.analysis.evaluate.calibration import Thresholds
from losslab.analysis.evaluate.evaluation import Calibrated, Evaluation
from losslab.analysis.evaluate.predictions import Array, Predictions
from losslab.data.batch import DataSpec
from losslab.errors import LabError
from losslab.io import atomic
from losslab.io.figures import save_png
from losslab.io.tables import terminal_table, write_csv
from losslab.io.untrusted import read_text
from losslab.targets import Task
from losslab.training.callbacks.history import plot_curves
from losslab.training.reopen import EvaluationRequest

_HIGHEST_LOSSES = 25
_MAX_NAME = 80


def evaluation_name(
    request: EvaluationRequest, soft_labels_file: Path | None, calibration_method: str | None = None
) -> str:
    """Return the folder name of an evaluation: the split, and all options that differ from their defaults.

    Examples: "test", "test+last", "val+dir=_elsewhere-1f2e3d", "test+soft=people-4a5b6c", "test+temperature".
    """
    parts = [request.split]
    if request.checkpoint != "best":
        parts.append("last" if request.checkpoint == "last" else str(Path(request.checkpoint).resolve()))
    parts += sorted(pair.removeprefix("data.") for pair in request.data)
    if soft_labels_file is not None:
        parts.append(f"soft={soft_labels_file.stem}-{_short_hash(str(soft_labels_file.resolve()))}")
    if calibration_method is not None:
        parts.append(calibration_method)
    name = "+".join(parts)
    safe = re.sub(r"[^\w.+=-]", "_", name)
    if len(safe) > _MAX_NAME:
        safe = f"{safe[:40]}...{safe[-37:]}"
    return safe if safe == name else f"{safe}-{_short_hash(name)}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[str]:
    """Write all files of an evaluation and return their names.

    The files are written to a temporary folder and moved when all are complete. They replace the files of an earlier
    evaluation with the same settings; other files in the folder are kept.

    Raises:
        LabError: the folder cannot be written, or contains something else, or a symbolic link leaves the run folder.
    """
    evaluation.experiment.folder.output(folder)
    settings = evaluation_settings(evaluation)
    if folder.parent != evaluation.experiment.folder.evaluation("any").parent:
        _check_free(folder, settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
            _write_files(evaluation, settings, Path(temporary))
            names = sorted(path.name for path in Path(temporary).iterdir())
            # All checks come before the first file is moved, so that all files are moved or none.
            for name in names:
                if (folder / name).is_dir():
                    raise LabError(f"{folder / name} is a folder: remove it, or name another folder with --output")
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            for name in names:
                (Path(temporary) / name).replace(folder / name)
    except OSError as error:
        raise LabError(
            f"cannot write the evaluation to {folder} ({error.strerror}): name another folder with --output"
        ) from error
    return names


def draw_missing_curves(evaluation: Evaluation) -> list[Path]:
    """Draw the curves of training in the run folder if it has none: a run that trained as one with others draws none.

    Raises:
        LabError: history.csv is damaged, or a symbolic link leaves the run folder.
        OSError: a figure cannot be written.
    """
    run, monitor = evaluation.experiment.folder, evaluation.experiment.learner.monitor
    if run.figures.exists() or not run.history.is_file():
        return []
    drawn = []
    for name in ("loss", monitor.removeprefix("val/")):
        curves = [f"train/{name}", f"train/{name}_given", f"val/{name}"]
        columns = read_columns(run.history, ["epoch", *curves])
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        known = [{key: value for key, value in row.items() if not math.isnan(value)} for row in rows]
        path = run.output(run.figures / f"{name}_curve.png")
        save_png(plot_curves(known, name, evaluation.experiment.config["name"]), path)
        drawn.append(path)
    return drawn


def _check_free(folder: Path, settings: dict[str, Any]) -> None:
    """Raise LabError unless a folder is new, empty, or that of an earlier evaluation with these settings."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    earlier = None
    with suppress(OSError, ValueError):
        earlier = json.loads(read_text(folder / "settings.json"))
    if earlier != settings:
        raise LabError(f"{folder} contains something other than this evaluation: name another folder with --output")


def _write_files(evaluation: Evaluation, settings: dict[str, Any], folder: Path) -> None:
    predictions = evaluation.predictions
    columns = prediction_columns(predictions)
    if evaluation.human is not None:
        human, probabilities = evaluation.human, np.asarray(predictions.probabilities)
        columns["people_name"] = np.array(predictions.spec.names)[human.argmax(1)]
        columns |= {"people_confidence": human.max(1), "people_entropy": soft_labels.entropy(human)}
        columns["soft_cross_entropy"] = soft_labels.cross_entropy(human, probabilities)
    if evaluation.calibrated is not None:
        changed = ("prediction", "confidence", "probability")
        after = prediction_columns(evaluation.calibrated.predictions)
        columns |= {f"calibrated_{name}": column for name, column in after.items() if name.startswith(changed)}
    _write_columns(folder / "predictions.csv", columns)
    rows = predictions.highest_loss(_HIGHEST_LOSSES)
    if predictions.loss is not None:
        _write_columns(folder / "worst.csv", {name: column[rows] for name, column in columns.items()})
    content: dict[str, Any] = dict(evaluation.values)
    if predictions.spec.task is not Task.REGRESSION:
        (folder / "report.txt").write_text(extra_metrics.classification_report(predictions), encoding="utf-8")
        _write_confusion(folder / "confusion.csv", predictions)
        np.save(folder / "probabilities.npy", np.asarray(predictions.probabilities, dtype=np.float32))
        content["classes"] = extra_metrics.class_metrics(predictions)
        for curves in evaluation.curves:
            for each in curves.each:
                content["classes"].setdefault(each.name, {})[curves.area_name] = each.area
    if evaluation.calibrated is not None:
        content |= _write_calibrated(evaluation, evaluation.calibrated, folder)
    atomic.write_json(folder / "measures.json", content)
    atomic.write_json(folder / "settings.json", settings)
    note = _note(evaluation, settings)
    for stem, figure in _draw_figures(evaluation, rows):
        save_png(figures.add_note(figure, note), folder / f"{stem}.png")


def evaluation_settings(evaluation: Evaluation) -> dict[str, Any]:
    """Return the settings that identify an evaluation, and that suffice to repeat it."""
    folder, request, file = evaluation.experiment.folder, evaluation.request, evaluation.soft_labels
    checkpoint = folder.checkpoint(request.checkpoint)
    inside = checkpoint.is_relative_to(folder.path)
    return {
        "split": request.split,
        "checkpoint": str(checkpoint.relative_to(folder.path) if inside else checkpoint.resolve()),
        "checkpoint_sha256": atomic.sha256(checkpoint),
        "data": list(request.data),
        "own_data": not request.data,
        "soft_labels": None if file is None else str(file.resolve()),
        "soft_labels_sha256": None if file is None else atomic.sha256(file),
        "examples": len(evaluation.predictions),
        **({} if evaluation.calibrated is None else {"calibration": evaluation.calibrated.method}),
    }


def _write_calibrated(evaluation: Evaluation, calibrated: Calibrated, folder: Path) -> dict[str, Any]:
    """Write the report and the probabilities after calibration, and return what measures.json says of it."""
    after, names = calibrated.predictions, label_names(evaluation.predictions.spec)
    rows = before_and_after(evaluation.values, calibrated.values, len(evaluation.predictions))
    report = extra_metrics.classification_report(after)
    text = (
        f"{calibrated.calibration.describe(names)}\n{terminal_table(rows, width=100)}\n\nAfter calibration:\n\n{report}"
    )
    (folder / "calibrated_report.txt").write_text(text, encoding="utf-8")
    np.save(folder / "calibrated_probabilities.npy", np.asarray(after.probabilities, dtype=np.float32))
    fit = None if calibrated.fit is None else {"split": "val", **asdict(calibrated.fit)}
    return {
        "calibration": {"method": calibrated.method, **asdict(calibrated.calibration), "fit": fit},
        "calibrated": calibrated.values | {"classes": extra_metrics.class_metrics(after)},
    }


def before_and_after(before: Mapping[str, float], after: Mapping[str, float], examples: int) -> list[list[str]]:
    """Return a table of metrics named SPLIT/METRIC with a column of their values after calibration, if they have one.

    The first row is the header, the second the number of examples.
    """
    split = next(iter(before)).partition("/")[0]
    rows = [["metric", split, "calibrated"], ["examples", f"{examples:,}", f"{examples:,}"]]
    for name, value in before.items():
        cell = f"{after[name]:z.4f}" if name in after else ""
        rows.append([name.partition("/")[2], f"{value:z.4f}", cell])
    return rows


def label_names(spec: DataSpec) -> list[str]:
    """Return the names of the columns of the probabilities: of all classes or labels; in a binary task of class 1."""
    return spec.names[1:] if spec.task is Task.BINARY else spec.names


def prediction_columns(predictions: Predictions) -> dict[str, Array]:
    """Return the columns (N,) of predictions.csv, by name."""
    task, names = predictions.spec.task, np.array(predictions.spec.names)
    target = predictions.target_class if task is Task.MULTICLASS else predictions.target
    columns: dict[str, Any] = {"truth": predictions.truth, "target": target, "prediction": predictions.prediction}
    if task is Task.REGRESSION:
        columns["residual"] = predictions.prediction - predictions.truth
        if predictions.deviation is not None:
            columns["deviation"] = predictions.deviation
        count = predictions.truth.shape[1]
        columns = _split_columns(columns, range(count) if count > 1 else [None])
    elif task is Task.MULTILABEL:
        columns |= {"probability": predictions.probabilities, "confidence": predictions.confidence}
        columns = _split_columns(columns, names)
    else:
        # In a binary task, the target may be a probability, which has no class name.
        named = {f"{name}_name": names[column] for name, column in columns.items() if column.dtype.kind == "i"}
        columns["confidence"] = predictions.confidence
        if task is Task.BINARY:
            columns[f"probability_{names[1]}"] = predictions.probabilities
            columns = _split_columns(columns | named, [None])
        else:
            certain = predictions.target.ndim == 1 or (predictions.target.max(1) == 1).all()
            columns |= named | ({} if certain else _split_columns({"target": predictions.target}, names))
    losses = {} if predictions.loss is None else {"loss": predictions.loss}
    return {"index": predictions.index} | columns | losses


def _split_columns(columns: Mapping[str, Array], suffixes: Iterable[object]) -> dict[str, Array]:
    """Split arrays (N, K), by name, into columns (N,) named NAME_SUFFIX, or NAME if the suffix is None."""
    pairs = [(name, column, suffix) for name in columns for column, suffix in enumerate(suffixes)]
    return {name if suffix is None else f"{name}_{suffix}": columns[name][:, at] for name, at, suffix in pairs}


def _write_columns(path: Path, columns: Mapping[str, Array]) -> None:
    """Write columns (N,) to a CSV file. Floating-point numbers have 7 significant digits, as many as float32."""
    cells = [map("{:.7g}".format, each) if each.dtype.kind == "f" else each.tolist() for each in columns.values()]
    write_csv(path, list(columns), zip(*cells, strict=True))


def _write_confusion(path: Path, predictions: Predictions) -> None:
    """Write the confusion matrix, in which rows are true classes or labels, with the names of rows and columns."""
    names, matrix = predictions.spec.names, extra_metrics.confusion_matrix(predictions)
    header = ["truth \\ prediction", *names]
    if predictions.spec.task is Task.MULTILABEL:
        header = ["label", "true_negative", "false_positive", "false_negative", "true_positive"]
    write_csv(path, header, ([name, *row] for name, row in zip(names, matrix.tolist(), strict=True)))


def _note(evaluation: Evaluation, settings: dict[str, Any]) -> str:
    """Return the note in all figures: name of the run, checkpoint, number of examples, and changed data options."""
    weights = str(settings["checkpoint"]).removeprefix("checkpoints/")
    request = evaluation.request
    examples = figures.plural(len(evaluation.predictions), f"{request.split} example")
    return " · ".join([str(evaluation.experiment.config["name"]), weights, examples, *request.data])


def _draw_figures(evaluation: Evaluation, highest_loss: Array) -> Iterator[tuple[str, Figure]]:
    """Draw the figures one by one, and yield the file name without suffix and the figure of each."""
    predictions = evaluation.predictions
    if predictions.spec.task is Task.REGRESSION:
        yield "predictions", figures.draw_predictions(predictions)
        yield "residuals", figures.draw_residuals(predictions)
    else:
        yield "confusion", figures.draw_confusion(predictions)
        yield "reliability", figures.draw_calibration(predictions)
    calibrated = evaluation.calibrated
    if calibrated is not None and not isinstance(calibrated.calibration, Thresholds):  # these change no probabilities
        columns = {f"before {calibrated.method}": predictions, f"after {calibrated.method}": calibrated.predictions}
        yield "calibrated_reliability", figures.draw_calibrations(columns)
    for curves in evaluation.curves:
        if curves.each:
            yield curves.kind, figures.draw_curves(curves, predictions)
    are_images = len(predictions.spec.input_shape) == 3 and predictions.spec.input_shape[0] in {1, 3}
    if are_images and predictions.loss is not None:
        source = evaluation.experiment.data.splits[evaluation.request.split]
        yield "worst", figures.draw_images(predictions, source, highest_loss)

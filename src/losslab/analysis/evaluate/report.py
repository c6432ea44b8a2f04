"""The folder of an evaluation: its name, its tables and figures, and how they are written."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from losslab.analysis.evaluate import figures, metrics, soft_labels
from losslab.analysis.evaluate.evaluation import Evaluation
from losslab.analysis.evaluate.predictions import Array, Predictions
from losslab.errors import LabError
from losslab.io import untrusted
from losslab.io.atomic import write_json
from losslab.io.figures import save_png
from losslab.io.tables import write_csv
from losslab.targets import Task
from losslab.training.reopen import EvaluationRequest

_HIGHEST_LOSSES = 25
_MAX_NAME = 80


def evaluation_name(request: EvaluationRequest, soft_labels_file: Path | None) -> str:
    """The folder name of an evaluation: its split, and whatever differs from the run's own weights and data.

    Such as "test", "test+last", "val+dir=_elsewhere-1f2e3d" and "test+soft=people-4a5b6c".
    """
    parts = [request.split]
    if request.checkpoint != "best":
        parts.append("last" if request.checkpoint == "last" else str(Path(request.checkpoint).resolve()))
    parts += sorted(pair.removeprefix("data.") for pair in request.data)
    if soft_labels_file is not None:
        parts.append(f"soft={soft_labels_file.stem}-{_short_hash(str(soft_labels_file.resolve()))}")
    name = "+".join(parts)
    safe = re.sub(r"[^\w.+=-]", "_", name)
    if safe == name and len(safe) <= _MAX_NAME:
        return safe
    shortened = safe if len(safe) <= _MAX_NAME else f"{safe[:40]}...{safe[-37:]}"
    return f"{shortened}-{_short_hash(name)}"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[str]:
    """Write all files of an evaluation → their names.

    They are written to a temporary folder and moved when all are complete. An earlier result of the same evaluation is
    replaced; other files in the folder stay.

    Raises:
        LabError: the folder cannot be written, is a link out of the run folder, or holds something else.
    """
    evaluation.experiment.folder.output(folder)
    _check_free(evaluation, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as temporary:
            _write_files(evaluation, Path(temporary))
            names = sorted(path.name for path in Path(temporary).iterdir())
            _check_replaceable(folder, names)  # before the first is moved: all or none
            for name in names:
                (Path(temporary) / name).replace(folder / name)
    except OSError as error:
        raise LabError(
            f"cannot write the evaluation to {folder} ({error.strerror}): name another folder with --output"
        ) from error
    return names


def _check_free(evaluation: Evaluation, folder: Path) -> None:
    if folder.parent == evaluation.experiment.folder.evaluation("any").parent or not folder.exists():
        return
    try:
        earlier = json.loads(untrusted.read_text(folder / "settings.json"))
    except (OSError, ValueError):
        earlier = None
    empty = folder.is_dir() and not any(folder.iterdir())
    if not empty and earlier != evaluation_settings(evaluation):
        raise LabError(f"{folder} holds something else than this evaluation: name another folder with --output")


def _check_replaceable(folder: Path, names: list[str]) -> None:
    subfolder = next((folder / name for name in names if (folder / name).is_dir()), None)
    if subfolder is None and os.access(folder, os.W_OK | os.X_OK):
        return
    where = f"{subfolder} is a folder: remove it, or" if subfolder else f"cannot write the evaluation to {folder}:"
    raise LabError(f"{where} name another folder with --output")


def _write_files(evaluation: Evaluation, folder: Path) -> None:
    predictions = evaluation.predictions
    columns = prediction_columns(predictions)
    if evaluation.human is not None:
        human, probabilities = evaluation.human, np.asarray(predictions.probabilities)
        columns["people_name"] = np.array(predictions.class_names)[human.argmax(1)]
        columns |= {"people_confidence": human.max(1), "people_entropy": soft_labels.entropy(human)}
        columns["soft_cross_entropy"] = soft_labels.cross_entropy(human, probabilities)
    _write_columns(folder / "predictions.csv", columns)
    rows = predictions.highest_loss(_HIGHEST_LOSSES)
    _write_columns(folder / "worst.csv", {name: column[rows] for name, column in columns.items()})
    content: dict[str, Any] = dict(evaluation.values)
    if predictions.spec.task is not Task.REGRESSION:
        (folder / "report.txt").write_text(metrics.classification_report(predictions), encoding="utf-8")
        _write_confusion(folder / "confusion.csv", predictions)
        np.save(folder / "probabilities.npy", np.asarray(predictions.probabilities, dtype=np.float32))
        content["classes"] = metrics.class_metrics(predictions)
        for curves in evaluation.curves:
            for each in curves.each:
                content["classes"].setdefault(each.name, {})[curves.area_name] = each.area
    write_json(folder / "measures.json", content)
    write_json(folder / "settings.json", evaluation_settings(evaluation))
    note = _note(evaluation)
    for stem, draw in _figures(evaluation, rows).items():
        save_png(figures.add_note(draw(), note), folder / f"{stem}.png")


def evaluation_settings(evaluation: Evaluation) -> dict[str, Any]:
    """What was evaluated: identifies the evaluation, and is enough to repeat it."""
    folder, request, file = evaluation.experiment.folder, evaluation.request, evaluation.soft_labels
    checkpoint = folder.checkpoint(request.checkpoint)
    inside = checkpoint.is_relative_to(folder.path)
    return {
        "split": request.split,
        "checkpoint": str(checkpoint.relative_to(folder.path) if inside else checkpoint.resolve()),
        "checkpoint_sha256": _sha256(checkpoint),
        "data": list(request.data),
        "own_data": not request.data,
        "soft_labels": None if file is None else str(file.resolve()),
        "soft_labels_sha256": None if file is None else _sha256(file),
        "examples": len(evaluation.predictions),
    }


def _sha256(path: Path) -> str:
    with untrusted.open_regular_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def prediction_columns(predictions: Predictions) -> dict[str, Array]:
    """The columns of predictions.csv, a row per example: truth, target, prediction, confidence and loss."""
    task, names = predictions.spec.task, np.array(predictions.class_names)
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
        # A soft target of a binary task has no class name.
        named = {f"{name}_name": names[column] for name, column in columns.items() if column.dtype.kind == "i"}
        columns["confidence"] = predictions.confidence
        if task is Task.BINARY:
            columns[f"probability_{names[1]}"] = predictions.probabilities
            columns = _split_columns(columns | named, [None])
        else:
            certain = predictions.target.ndim == 1 or (predictions.target.max(1) == 1).all()
            columns |= named | ({} if certain else _split_columns({"target": predictions.target}, names))
    return {"index": predictions.index} | columns | {"loss": predictions.loss}


def _split_columns(columns: Mapping[str, Array], suffixes: Iterable[object]) -> dict[str, Array]:
    """Split arrays (N, K) into K columns each, named NAME_SUFFIX, or NAME if the suffix is None."""
    pairs = [(name, column, suffix) for name in columns for column, suffix in enumerate(suffixes)]
    return {name if suffix is None else f"{name}_{suffix}": columns[name][:, at] for name, at, suffix in pairs}


def _write_columns(path: Path, columns: Mapping[str, Array]) -> None:
    """Write columns (N,) by name, floating-point numbers with the 7 significant digits of float32."""
    cells = [map("{:.7g}".format, each) if each.dtype.kind == "f" else each.tolist() for each in columns.values()]
    write_csv(path, list(columns), zip(*cells, strict=True))


def _write_confusion(path: Path, predictions: Predictions) -> None:
    """Write a row for each true class and a column for each predicted one; for labels a row with the four counts."""
    names, matrix = predictions.class_names, metrics.confusion_matrix(predictions)
    header = ["truth \\ prediction", *names]
    if predictions.spec.task is Task.MULTILABEL:
        header = ["label", "true_negative", "false_positive", "false_negative", "true_positive"]
    write_csv(path, header, ([name, *row] for name, row in zip(names, matrix.tolist(), strict=True)))


def _note(evaluation: Evaluation) -> str:
    """Which run, weights and examples a figure shows."""
    weights = str(evaluation_settings(evaluation)["checkpoint"]).removeprefix("checkpoints/")
    request = evaluation.request
    examples = figures.plural(len(evaluation.predictions), f"{request.split} example")
    return " · ".join([str(evaluation.experiment.config["name"]), weights, examples, *request.data])


def _figures(evaluation: Evaluation, highest_loss: Array) -> dict[str, Callable[[], Figure]]:
    """The functions that draw each figure, by file stem."""
    predictions = evaluation.predictions
    draw: dict[str, Callable[[], Figure]] = {}
    if predictions.spec.task is Task.REGRESSION:
        draw["predictions"] = partial(figures.draw_predictions, predictions)
        draw["residuals"] = partial(figures.draw_residuals, predictions)
    else:
        draw["confusion"] = partial(figures.draw_confusion, predictions)
        draw["reliability"] = partial(figures.draw_calibration, predictions)
        draw |= {each.kind: partial(figures.draw_curves, each, predictions) for each in evaluation.curves if each.each}
    if len(predictions.spec.input_shape) == 3 and predictions.spec.input_shape[0] in {1, 3}:
        source = evaluation.experiment.data.splits[evaluation.request.split]
        draw["worst"] = partial(figures.draw_images, predictions, source, highest_loss)
    return draw

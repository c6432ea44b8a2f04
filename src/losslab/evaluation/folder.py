"""Where an evaluation is written, and what."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from losslab import links, runs
from losslab.errors import LabError
from losslab.evaluation import measures, soft_labels, tables
from losslab.evaluation.answers import Answers
from losslab.evaluation.evaluating import Evaluation
from losslab.evaluation.figures import calibration, confusion, curves, plural, regression, signed, worst
from losslab.evaluation.opening import Look
from losslab.plain_files import open_plain
from losslab.targets import Task

WORST = 25


def name(look: Look, soft: Path | None) -> str:
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
    links.keep_inside(folder, found.experiment.folder.path)
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
        message = f"cannot write the evaluation to {folder} ({error.strerror}): name another folder with --output"
        raise LabError(message) from error
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
        message = f"{folder} holds something else than this evaluation: name another folder with --output"
        raise LabError(message)


def _check_places(folder: Path, names: list[str]) -> None:
    wrong = next((folder / name for name in names if (folder / name).is_dir()), None)
    if wrong is None and os.access(folder, os.W_OK | os.X_OK):
        return
    where = f"{wrong} is a folder: remove it, or" if wrong else f"cannot write the evaluation to {folder}:"
    message = f"{where} name another folder with --output"
    raise LabError(message)


def _write(found: Evaluation, folder: Path) -> None:
    answers = found.answers
    columns = tables.predictions(answers)
    if found.people is not None:
        columns |= _of_people(answers, found)
    tables.write_columns(folder / "predictions.csv", columns)
    highest = answers.worst(WORST)
    tables.write_columns(folder / "worst.csv", columns, highest)
    content: dict[str, Any] = dict(found.values)
    if answers.facts.task is not Task.REGRESSION:
        (folder / "report.txt").write_text(measures.report(answers), encoding="utf-8")
        tables.write_confusion(folder / "confusion.csv", answers)
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
        figures["confusion"] = lambda: confusion.draw(answers)
        figures["reliability"] = lambda: calibration.draw(answers)
        figures |= {each.kind: partial(curves.draw, each, answers) for each in found.curves if each.each}
    source = found.experiment.data.splits[found.look.split]
    if len(answers.facts.input_shape) == 3 and answers.facts.input_shape[0] in {1, 3}:
        figures["worst"] = lambda: worst.draw(answers, source, highest)
    return figures


def _of_classes(found: Evaluation) -> dict[str, dict[str, float]]:
    table = measures.of_classes(found.answers)
    for curve in found.curves:
        area = "roc_auc" if curve.kind == "roc" else "average_precision"
        for each in curve.each:
            table.setdefault(each.name, {})[area] = each.area
    return table


def _of_people(answers: Answers, found: Evaluation) -> dict[str, Any]:
    people = found.people
    assert people is not None  # noqa: S101 -- for the type checker
    assert answers.probabilities is not None  # noqa: S101 -- likewise
    named = np.array(measures.names(answers))
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
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""What `evaluate` says on the terminal."""

import logging
import math
from pathlib import Path

from losslab import ranks, report, runs
from losslab.evaluation import measures, tables
from losslab.evaluation.answers import Array
from losslab.evaluation.evaluating import Evaluation
from losslab.targets import Task

logger = logging.getLogger("losslab")
_SHOWN = 10
_WIDTH = 10
"""Columns."""


def say(found: Evaluation) -> None:
    """Say what was looked at and what it is worth."""
    _header(found)
    finite = {name: value for name, value in found.values.items() if math.isfinite(value)}
    report.results_table({name: value for name, value in finite.items() if "/soft/" not in name})
    if found.answers.facts.task is not Task.REGRESSION:
        logger.info("\n%s", measures.report(found.answers).rstrip())
    if found.people is not None:
        logger.info("\nAgainst what people say (in nats):")
        soft = {name: value for name, value in finite.items() if "/soft/" in name}
        report.results_table({name.replace("/soft/", "/"): value for name, value in soft.items()})
    if len(found.answers.facts.input_shape) == 1:
        logger.info("\nThe examples of highest loss:")
        report.columns_table(_narrow(tables.predictions(found.answers)), found.answers.worst(_SHOWN))
    for note in _notes(found, set(found.values) - set(finite)):
        logger.info("note        %s", note)


def closing(folder: Path, written: list[str]) -> None:
    """Say where everything lies."""
    logger.info("written     %s", runs.shown(folder))
    logger.info("            %s", ", ".join(written))


def _narrow(columns: dict[str, Array]) -> dict[str, Array]:
    """The columns that a terminal has room for: names instead of numbers, no second probability."""
    narrow = {
        name: columns.get(f"{name}_name", column)
        for name, column in columns.items()
        if not name.endswith("_name") and not name.startswith("probability_")
    }
    return narrow if len(narrow) <= _WIDTH else {name: narrow[name] for name in ("index", "loss")}


def _header(found: Evaluation) -> None:
    experiment, look = found.experiment, found.look
    device = experiment.trainer.strategy.root_device
    world = ranks.here().world
    processes = f"{world} processes" if world > 1 else "1 process"
    count = f"{len(found.answers):,} {look.split} example{'s' * (len(found.answers) != 1)}"
    logger.info("run         %s", experiment.config["name"])
    logger.info("weights     %s", runs.shown(experiment.folder.checkpoint(look.checkpoint)))
    logger.info("data        %s, on %s, %s", count, device.type, processes)
    if look.data:
        logger.info("            not the run's own: %s", ", ".join(look.data))


def _notes(found: Evaluation, undefined: set[str]) -> list[str]:
    """What one must know to read the figures rightly."""
    answers, notes = found.answers, []
    if found.look.split == "train":
        notes.append(
            "metrics.json's train/... were averaged while the network still learnt; these are of the finished weights"
        )
    if undefined:
        notes.append(f"{', '.join(sorted(undefined))}: not defined on {len(answers):,} examples as these")
    for curve in found.curves:
        by_reason: dict[str, list[str]] = {}
        for name, reason in curve.missing.items():
            by_reason.setdefault(reason, []).append(name)
        for reason, missing in by_reason.items():
            few = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            notes.append(f"no {curve.kind.upper()} curve of {few}: {reason}")
    wrong = int(answers.mislabelled.sum())
    if wrong:
        notes.append(f"{wrong:,} targets are not the truth: the loss is held against the target, the metrics the truth")
    agreed = found.values.get(f"{found.look.split}/soft/truth_agreement", 1.0)
    if agreed < 0.5:
        notes.append(
            f"people name the true class of {agreed:.0%} only: are the soft labels in the order of this split?"
        )
    return notes + _data_notes(found)


def _data_notes(found: Evaluation) -> list[str]:
    from losslab.evaluation.changes import DRAWN_ANEW  # noqa: PLC0415

    keys = {pair.removeprefix("data.").partition("=")[0] for pair in found.look.data}
    notes = []
    if keys & DRAWN_ANEW:
        drawn = ", ".join(sorted(keys & DRAWN_ANEW))
        notes.append(f"{drawn} changed: the splits are drawn anew, and examples that the run learnt may be among these")
    if keys and found.experiment.data.learnt_from is None:
        notes.append("an older run, which did not keep the statistics it normalised with: those of these data are used")
    return notes

"""`losslab evaluate`: measure a finished run, on one process or several.

What `evaluate` says on the terminal.
"""

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from losslab import runs
from losslab.analysis.evaluate import metrics
from losslab.analysis.evaluate.evaluation import Evaluation
from losslab.analysis.evaluate.predictions import Array
from losslab.analysis.evaluate.report import prediction_columns
from losslab.cli.options import asked_by_completion, begin, command_parser, takes_data
from losslab.cli.process import imports_without_gc, leave, one_line_errors
from losslab.cli.report import columns_table, results_table
from losslab.errors import LabError
from losslab.io.terminal import printable
from losslab.targets import Task
from losslab.training.distributed import environment

logger = logging.getLogger("losslab")


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """`losslab evaluate RUN_FOLDER` and `losslab evaluate`: measure a finished run, and write it down."""
    if asked_by_completion():
        return
    options = _parser().parse_args(arguments)
    place = environment.current_rank()
    begin(logging.INFO if place.rank == 0 else logging.ERROR, options.trust)
    with one_line_errors(show_all=False):
        if options.devices is None or place.world_size > 1:  # torchrun has started the processes
            _evaluate(options)
        else:
            _in_ranks(options)
    leave(0)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "Rebuild a run from its folder, measure it on a split of its data, and write report, figures and predictions "
        "to RUN_FOLDER/evaluation."
    )
    parser.add_argument("--split", choices=("test", "val", "train"), default="test")
    takes_data(parser)
    parser.add_argument(
        "--soft-labels",
        type=Path,
        metavar="FILE.npy",
        help="people's distributions over the classes (N, C), in the order of the split: hold the network against them",
    )
    parser.add_argument(
        "--devices", type=_positive, metavar="N", help="share the work between N processes, a GPU each where there are"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="where to write (default: in the run folder)")
    return parser


def _positive(typed: str) -> int:
    if not typed.isdigit() or int(typed) < 1:
        raise argparse.ArgumentTypeError(f"a number of processes, 1 or more: got {typed}")
    return int(typed)


def _in_ranks(options: argparse.Namespace) -> None:
    """Evaluate in so many processes of this machine, and wait for them."""
    from losslab.runs import RunFolder  # noqa: PLC0415
    from losslab.training.distributed import spawn  # noqa: PLC0415
    from losslab.training.distributed.worker import WorkerOptions  # noqa: PLC0415

    RunFolder(options.run_folder).read_unchecked_config()  # before a process is started for nothing
    world = options.devices
    if world == 1:
        _evaluate(options)
        return
    found = len(spawn.visible_gpus())
    if 0 < found < world:
        raise LabError(
            f"--devices {world}: there is a GPU for {found}; ask for as many, or hide them: CUDA_VISIBLE_DEVICES="
        )
    run = spawn.WorkerGroup(_rank, [(options,)] * world, WorkerOptions(threads=spawn.threads_per_process(world)))
    outcome = spawn.wait_for_group(run)
    if outcome.traceback:  # nothing that the user can mend: as in one process, it ends with the reason
        sys.stderr.write(printable(outcome.traceback))
        leave(1)
    if outcome.reason is not None:
        raise LabError(outcome.reason)


def _rank(options: argparse.Namespace) -> None:
    begin(logging.INFO if environment.current_rank().rank == 0 else logging.ERROR, options.trust)
    _evaluate(options)


def _evaluate(options: argparse.Namespace) -> None:
    with imports_without_gc():
        from losslab.analysis.evaluate import evaluation, report  # noqa: PLC0415
        from losslab.training.reopen import EvaluationRequest  # noqa: PLC0415
    look = EvaluationRequest(options.run_folder, options.split, options.ckpt, tuple(options.data))
    found = evaluation.evaluate(look, options.soft_labels)
    if environment.current_rank().rank > 0:
        return
    say(found)
    where = options.output or found.experiment.folder.evaluation(report.evaluation_name(look, options.soft_labels))
    written = report.write_evaluation(found, where)
    closing(where, written)


_SHOWN = 10
_WIDTH = 10
"""Columns."""


def say(found: Evaluation) -> None:
    """Say what was looked at and what it is worth."""
    _header(found)
    finite = {name: value for name, value in found.values.items() if math.isfinite(value)}
    results_table({name: value for name, value in finite.items() if "/soft/" not in name})
    if found.predictions.facts.task is not Task.REGRESSION:
        logger.info("\n%s", metrics.classification_report(found.predictions).rstrip())
    if found.human is not None:
        logger.info("\nAgainst what people say (in nats):")
        soft = {name: value for name, value in finite.items() if "/soft/" in name}
        results_table({name.replace("/soft/", "/"): value for name, value in soft.items()})
    if len(found.predictions.facts.input_shape) == 1:
        logger.info("\nThe examples of highest loss:")
        columns_table(_narrow(prediction_columns(found.predictions)), found.predictions.highest_loss(_SHOWN))
    for note in _notes(found, set(found.values) - set(finite)):
        logger.info("note        %s", note)


def closing(folder: Path, written: list[str]) -> None:
    """Say where everything lies."""
    logger.info("written     %s", runs.display_path(folder))
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
    experiment, look = found.experiment, found.request
    device = experiment.trainer.strategy.root_device
    world = environment.current_rank().world_size
    spawn = f"{world} processes" if world > 1 else "1 process"
    count = f"{len(found.predictions):,} {look.split} example{'s' * (len(found.predictions) != 1)}"
    logger.info("run         %s", experiment.config["name"])
    logger.info("weights     %s", runs.display_path(experiment.folder.checkpoint(look.checkpoint)))
    logger.info("data        %s, on %s, %s", count, device.type, spawn)
    if look.data:
        logger.info("            not the run's own: %s", ", ".join(look.data))


def _notes(found: Evaluation, undefined: set[str]) -> list[str]:
    """What one must know to read the figures rightly."""
    predictions, notes = found.predictions, []
    if found.request.split == "train":
        notes.append(
            "metrics.json's train/... were averaged while the network still learnt; these are of the finished weights"
        )
    if undefined:
        notes.append(f"{', '.join(sorted(undefined))}: not defined on {len(predictions):,} examples as these")
    for curve in found.curves:
        by_reason: dict[str, list[str]] = {}
        for name, reason in curve.missing.items():
            by_reason.setdefault(reason, []).append(name)
        for reason, missing in by_reason.items():
            few = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            notes.append(f"no {curve.kind.upper()} curve of {few}: {reason}")
    wrong = int(predictions.mislabelled.sum())
    if wrong:
        notes.append(f"{wrong:,} targets are not the truth: the loss is held against the target, the metrics the truth")
    agreed = found.values.get(f"{found.request.split}/soft/truth_agreement", 1.0)
    if agreed < 0.5:
        notes.append(
            f"people name the true class of {agreed:.0%} only: are the soft labels in the order of this split?"
        )
    return notes + _data_notes(found)


def _data_notes(found: Evaluation) -> list[str]:
    from losslab.training.reopen import RESPLITTING_OPTIONS  # noqa: PLC0415

    keys = {pair.removeprefix("data.").partition("=")[0] for pair in found.request.data}
    notes = []
    if keys & RESPLITTING_OPTIONS:
        drawn = ", ".join(sorted(keys & RESPLITTING_OPTIONS))
        notes.append(f"{drawn} changed: the splits are drawn anew, and examples that the run learnt may be among these")
    if keys and found.experiment.data.training_metadata is None:
        notes.append("an older run, which did not keep the statistics it normalised with: those of these data are used")
    return notes

"""`losslab evaluate`: evaluate a finished run, in one process or several."""

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from losslab import runs
from losslab.cli.options import add_data_option, run_parser, start_command
from losslab.cli.process import imports_without_gc, leave, one_line_errors
from losslab.errors import LabError
from losslab.io.terminal import printable
from losslab.runs import RunFolder
from losslab.training.distributed import environment, spawn
from losslab.training.distributed.worker import WorkerOptions

if TYPE_CHECKING:
    from losslab.analysis.evaluate.evaluation import Evaluation
    from losslab.analysis.evaluate.predictions import Array

logger = logging.getLogger("losslab")

_EXAMPLES, _COLUMNS = 10, 10
"""The number of examples shown, and the maximum number of columns."""


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Evaluate a finished run, and write a report, figures and predictions."""
    options = _parser().parse_args(arguments)
    rank = environment.current_rank()
    start_command(logging.INFO if rank.rank == 0 else logging.ERROR, options.trust)
    with one_line_errors(show_all=False):
        if options.devices in (None, 1) or rank.world_size > 1:  # torchrun has started the processes
            _evaluate(options)
        else:
            _evaluate_in_ranks(options)
    leave(0)


def _parser() -> argparse.ArgumentParser:
    parser = run_parser(
        "Rebuild a run from its folder, evaluate it on a split of its data, and write report, figures and predictions "
        "to RUN_FOLDER/evaluation."
    )
    parser.add_argument("--split", choices=("test", "val", "train"), default="test")
    add_data_option(parser)
    parser.add_argument(
        "--soft-labels",
        type=Path,
        metavar="FILE.npy",
        help="human label distributions (N, C), in the order of the split, to compare the network with",
    )
    parser.add_argument(
        "--devices",
        type=_positive,
        metavar="N",
        help="split the work between N processes, each on its own GPU if there are GPUs",
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="output folder (default: in the run folder)")
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"the number of processes must be 1 or more, got {text}")
    return int(text)


def _evaluate_in_ranks(options: argparse.Namespace) -> None:
    """Evaluate in several processes on this machine, and wait for them."""
    RunFolder(options.run_folder).read_unchecked_config()  # raises before processes are started
    world_size = options.devices
    gpus = len(spawn.visible_gpus())
    if 0 < gpus < world_size:
        raise LabError(
            f"--devices {world_size}: there are only {gpus} GPUs; ask for as many, or hide them: CUDA_VISIBLE_DEVICES="
        )
    worker_options = WorkerOptions(threads=spawn.threads_per_process(world_size))
    result = spawn.wait_for_group(spawn.WorkerGroup(_rank, [(options,)] * world_size, worker_options))
    if result.traceback:  # an error that the user cannot fix
        sys.stderr.write(printable(result.traceback))
        leave(1)
    if result.reason is not None:
        raise LabError(result.reason)


def _rank(options: argparse.Namespace) -> None:
    start_command(logging.INFO if environment.current_rank().rank == 0 else logging.ERROR, options.trust)
    _evaluate(options)


def _evaluate(options: argparse.Namespace) -> None:
    with imports_without_gc():
        from losslab.analysis.evaluate import evaluation  # noqa: PLC0415
        from losslab.analysis.evaluate.report import evaluation_name, write_evaluation  # noqa: PLC0415
        from losslab.training.reopen import EvaluationRequest  # noqa: PLC0415
    request = EvaluationRequest(options.run_folder, options.split, options.ckpt, options.data, options.trust)
    result = evaluation.evaluate(request, options.soft_labels)
    if environment.current_rank().rank > 0:
        return
    name = evaluation_name(request, options.soft_labels)
    folder = options.output or result.experiment.folder.evaluation(name)
    _log_evaluation(result)
    written = write_evaluation(result, folder)
    logger.info("written     %s", runs.display_path(folder))
    logger.info("            %s", ", ".join(written))


def _log_evaluation(result: "Evaluation") -> None:
    """Log the evaluated run, its metrics, the examples of highest loss, and notes on how to read them."""
    from losslab.analysis.evaluate.metrics import classification_report  # noqa: PLC0415
    from losslab.analysis.evaluate.report import prediction_columns  # noqa: PLC0415
    from losslab.cli.report import log_columns, log_metrics  # noqa: PLC0415
    from losslab.targets import Task  # noqa: PLC0415

    _log_request(result)
    finite = {name: value for name, value in result.values.items() if math.isfinite(value)}
    log_metrics({name: value for name, value in finite.items() if "/soft/" not in name})
    if result.predictions.spec.task is not Task.REGRESSION:
        logger.info("\n%s", classification_report(result.predictions).rstrip())
    if result.human is not None:
        logger.info("\nCompared with human label distributions (in nats):")
        soft = {name: value for name, value in finite.items() if "/soft/" in name}
        log_metrics({name.replace("/soft/", "/"): value for name, value in soft.items()})
    if len(result.predictions.spec.input_shape) == 1:
        logger.info("\nThe examples of highest loss:")
        log_columns(_narrow(prediction_columns(result.predictions)), result.predictions.highest_loss(_EXAMPLES))
    for note in _notes(result, set(result.values) - set(finite)):
        logger.info("note        %s", note)


def _narrow(columns: dict[str, "Array"]) -> dict[str, "Array"]:
    """Select columns that fit into a terminal: class names instead of indices, and no class probabilities."""
    narrow = {
        name: columns.get(f"{name}_name", column)
        for name, column in columns.items()
        if not name.endswith("_name") and not name.startswith("probability_")
    }
    return narrow if len(narrow) <= _COLUMNS else {name: narrow[name] for name in ("index", "loss")}


def _log_request(result: "Evaluation") -> None:
    experiment, request = result.experiment, result.request
    device = experiment.trainer.strategy.root_device
    world_size = environment.current_rank().world_size
    processes = f"{world_size} processes" if world_size > 1 else "1 process"
    count = f"{len(result.predictions):,} {request.split} example{'s' * (len(result.predictions) != 1)}"
    logger.info("run         %s", experiment.config["name"])
    logger.info("weights     %s", runs.display_path(experiment.folder.checkpoint(request.checkpoint)))
    logger.info("data        %s, on %s, %s", count, device.type, processes)
    if request.data:
        logger.info("            options changed for this evaluation: %s", ", ".join(request.data))


def _notes(result: "Evaluation", undefined: set[str]) -> list[str]:
    """Return notes on how to read the metrics."""
    predictions, notes = result.predictions, []
    if result.request.split == "train":
        notes.append(
            "train/... in metrics.json are averages over the last epoch during training; here the weights are final"
        )
    if undefined:
        notes.append(f"{', '.join(sorted(undefined))}: not defined for these {len(predictions):,} examples")
    for curve in result.curves:
        by_reason: dict[str, list[str]] = {}
        for name, reason in curve.missing.items():
            by_reason.setdefault(reason, []).append(name)
        for reason, missing in by_reason.items():
            listed = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
            notes.append(f"no {curve.kind.upper()} curve of {listed}: {reason}")
    wrong = int(predictions.mislabelled.sum())
    if wrong:
        notes.append(f"{wrong:,} targets are corrupted: the loss uses the given targets, metrics the true targets")
    agreed = result.values.get(f"{result.request.split}/soft/truth_agreement", 1.0)
    if agreed < 0.5:
        notes.append(
            f"human labels agree with the true class on {agreed:.0%} only: are they in the order of this split?"
        )
    return notes + _data_notes(result)


def _data_notes(result: "Evaluation") -> list[str]:
    from losslab.training.reopen import RESPLITTING_OPTIONS  # noqa: PLC0415

    keys = {pair.removeprefix("data.").partition("=")[0] for pair in result.request.data}
    notes = []
    if keys & RESPLITTING_OPTIONS:
        changed = ", ".join(sorted(keys & RESPLITTING_OPTIONS))
        notes.append(f"{changed} changed: the new split may contain examples that the run was trained on")
    if keys and result.experiment.data.training_metadata is None:
        notes.append(
            "an early version of losslab did not record the normalisation of the run: that of these data is used"
        )
    return notes

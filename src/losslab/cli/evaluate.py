"""`losslab evaluate`: evaluate a finished run, in one process or several."""

import argparse
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from losslab import runs
from losslab.cli.process import add_data_option, fast_imports, run_parser, run_verb, start_command
from losslab.cli.run import run_in_processes
from losslab.errors import LabError
from losslab.io.tables import terminal_table
from losslab.runs import RunFolder
from losslab.training.distributed import environment, spawn

if TYPE_CHECKING:
    from losslab.analysis.evaluate.evaluation import Calibrated, Evaluation
    from losslab.analysis.evaluate.predictions import Predictions

logger = logging.getLogger("losslab")
_METHODS = ("temperature", "logit_adjustment", "thresholds", "f1_thresholds")
"""`calibration.METHODS`, which --help shows without importing torch."""
_CLASS_WEIGHTS = ("weight", "pos_weight")
"""The attributes of losses that contain class weights."""


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Evaluate a finished run, and write a report, figures and predictions."""
    parser = run_parser(
        "Rebuild a run from its folder, evaluate it on a split of its data, and write report, figures and predictions "
        "to RUN_FOLDER/evaluation."
    )
    parser.add_argument("--split", choices=("test", "val", "train"), default="test")
    add_data_option(parser)
    labels = "compare the network with these human label distributions (N, C); row n belongs to example n of the split"
    parser.add_argument("--soft-labels", type=Path, metavar="FILE.npy", help=labels)
    method = (
        "also evaluate after a calibration without training: a temperature (lowest NLL) or thresholds for 0/1 labels "
        "(highest accuracy, or F1), fitted on the validation split; or logits adjusted by the class frequencies in "
        "training"
    )
    parser.add_argument("--calibrate", choices=_METHODS, help=method)
    devices = "split the work between N processes, each on its own GPU if there are GPUs"
    parser.add_argument("--devices", type=int, default=1, metavar="N", help=devices)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="output folder (default: in the run folder)")
    options = parser.parse_args(arguments)
    run_verb(_evaluate, options)


def _evaluate(options: argparse.Namespace) -> None:
    """Evaluate in this process, or start --devices processes that evaluate together."""
    world_size = options.devices
    if world_size < 1:
        raise LabError(f"--devices must be 1 or more, got {world_size}")
    if world_size == 1 or environment.current_rank().world_size > 1:  # torchrun or SLURM started the processes
        _evaluate_here(options)
        return
    RunFolder(options.run_folder).read_unchecked_config()  # raises if this is not a run folder
    gpus = len(spawn.visible_gpus())
    if 0 < gpus < world_size:
        raise LabError(
            f"the number of GPUs is {gpus}: set --devices {gpus}, or run on the CPU with CUDA_VISIBLE_DEVICES=''"
        )
    run_in_processes(_evaluate_here, (options,), world_size)


def _evaluate_here(options: argparse.Namespace) -> None:
    start_command(options.trust, rank=environment.current_rank().rank)  # again: this may be a new process
    with fast_imports():
        from losslab.analysis.evaluate import evaluation  # noqa: PLC0415
        from losslab.analysis.evaluate.report import draw_missing_curves, evaluation_name, write_evaluation  # noqa: PLC0415
        from losslab.training.reopen import EvaluationRequest  # noqa: PLC0415
    request = EvaluationRequest(options.run_folder, options.split, options.ckpt, options.data, options.trust)
    result = evaluation.evaluate(request, options.soft_labels, options.calibrate)
    if environment.current_rank().rank > 0:
        return
    name = evaluation_name(request, options.soft_labels, options.calibrate)
    folder = options.output or result.experiment.folder.evaluation(name)
    _log_evaluation(result)
    written = write_evaluation(result, folder)
    logger.info("written     %s", runs.display_path(folder))
    logger.info("            %s", ", ".join(written))
    for path in draw_missing_curves(result):
        logger.info("            %s", runs.display_path(path))


def _log_evaluation(result: "Evaluation") -> None:
    """Log the run that was evaluated, its metrics, the examples of highest loss, and notes on the metrics."""
    from losslab.analysis.evaluate.extra_metrics import classification_report  # noqa: PLC0415
    from losslab.targets import Task  # noqa: PLC0415

    experiment, request, predictions = result.experiment, result.request, result.predictions
    device, world_size = experiment.trainer.strategy.root_device, environment.current_rank().world_size
    processes = f"{world_size} processes" if world_size > 1 else "1 process"
    count = f"{len(predictions):,} {request.split} example{'s' * (len(predictions) != 1)}"
    logger.info("run         %s", experiment.config["name"])
    logger.info("weights     %s", runs.display_path(experiment.folder.checkpoint(request.checkpoint)))
    logger.info("data        %s, on %s, %s", count, device.type, processes)
    if request.data:
        logger.info("            options changed for this evaluation: %s", ", ".join(request.data))
    finite = {name: value for name, value in result.values.items() if math.isfinite(value)}
    if result.calibrated is not None:
        _log_calibration(result.calibrated, predictions)
    _log_values(result, {name: value for name, value in finite.items() if "/soft/" not in name})
    if predictions.spec.task is not Task.REGRESSION:
        after = None if result.calibrated is None else result.calibrated.predictions
        if after is None or (after.prediction == predictions.prediction).all():
            logger.info("\n%s", classification_report(predictions).rstrip())
        else:
            for name, each in (("Before", predictions), ("After", after)):
                logger.info("\n%s calibration:\n%s", name, classification_report(each).rstrip())
    if result.human is not None:
        logger.info("\nCompared with human label distributions (entropies in nats):")
        soft = {name: value for name, value in finite.items() if "/soft/" in name}
        _log_values(result, soft)
    if len(predictions.spec.input_shape) == 1 and predictions.loss is not None:
        _log_highest_losses(predictions)
    for note in _notes(result, set(result.values) - set(finite)):
        logger.info("note        %s", note)


def _log_values(result: "Evaluation", values: dict[str, float]) -> None:
    """Log metrics as a table, with a column of their values after calibration if there is one."""
    from losslab.analysis.evaluate.report import before_and_after  # noqa: PLC0415
    from losslab.cli.report import log_metrics  # noqa: PLC0415

    def short(values: dict[str, float]) -> dict[str, float]:
        return {name.replace("/soft/", "/"): value for name, value in values.items()}

    examples = len(result.predictions)
    if result.calibrated is None:
        log_metrics(short(values), {result.request.split: examples})
    else:
        after = {name: value for name, value in result.calibrated.values.items() if name in values}
        logger.info("%s", terminal_table(before_and_after(short(values), short(after), examples), width=100))


def _log_calibration(calibrated: "Calibrated", predictions: "Predictions") -> None:
    """Log what was fitted, what this changed on the validation split, and how many predictions change."""
    from losslab.analysis.evaluate.report import label_names  # noqa: PLC0415

    text = f"calibration {calibrated.calibration.describe(label_names(predictions.spec))}"
    logger.info("%s", fill(text, 100, subsequent_indent=" " * 12, break_on_hyphens=False))
    changed = int((calibrated.predictions.prediction != predictions.prediction).sum())
    what = "predictions" if predictions.prediction.ndim == 1 else "decisions"
    line, fit = f"{changed:,} of {predictions.prediction.size:,} {what} change", calibrated.fit
    if fit is not None:
        line = (
            f"fitted on {fit.examples:,} val examples: {fit.metric} {fit.before:.4f} to {fit.after:.4f} there; {line}"
        )
    logger.info("            %s", line)


def _log_highest_losses(predictions: "Predictions") -> None:
    """Log the examples of highest loss, with class names instead of class indices. Leave out probabilities."""
    from losslab.analysis.evaluate.report import prediction_columns  # noqa: PLC0415

    every = prediction_columns(predictions)
    columns = {
        name: every.get(f"{name}_name", column)
        for name, column in every.items()
        if not name.endswith("_name") and not name.startswith("probability_")
    }
    names = columns if len(columns) <= 10 else ("index", "loss")  # more columns do not fit into a terminal
    rows = [[*names]]
    for index in predictions.highest_loss(10):
        cells = (columns[name][index] for name in names)
        rows.append([f"{cell:z.4g}" if isinstance(cell, float) else str(cell) for cell in cells])
    logger.info("\nThe examples of highest loss:\n%s", terminal_table(rows, width=100))


def _notes(result: "Evaluation", undefined: set[str]) -> list[str]:
    """Return notes on how to read the metrics. `undefined` contains the names of the metrics that are not finite."""
    predictions, notes = result.predictions, _difference_notes(result)
    if predictions.loss is None:
        loss, split = result.experiment.learner.loss, result.request.split
        notes.append(
            f"{getattr(loss, 'name', type(loss).__name__)} scores a batch as a whole: {split}/loss is the mean over "
            "batches of data.eval_batch_size, and there are no losses of examples and no worst examples"
        )
    if result.request.split == "train":
        notes.append(
            "train/... in metrics.json are averages over the last epoch during training; here the weights are fixed"
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
    corrupted = int(predictions.mislabelled.sum())
    if corrupted:
        notes.append(f"{corrupted:,} targets are corrupted: the loss uses the corrupted ones, metrics the true ones")
    agreement = result.values.get(f"{result.request.split}/soft/truth_agreement", 1.0)
    if agreement < 0.5:
        notes.append(
            f"human labels agree with the true class for only {agreement:.0%}: are they in the order of this split?"
        )
    return notes + _data_notes(result) + _calibration_notes(result)


def _difference_notes(result: "Evaluation") -> list[str]:
    """Return a note on metrics that differ from those in metrics.json, with the likely cause; a list of 0 or 1."""
    different = result.not_reproduced()
    if not different:
        return []
    name, (was, now) = next(iter(different.items()))
    others = f" (so do {len(different) - 1} other metrics)" if len(different) > 1 else ""
    cause = "the data, the code or the precision have changed"
    if all("/loss" in key for key in different):
        cause = "the loss has a state that checkpoints lack or that a callback set, or its code has changed"
    device = result.experiment.trainer.strategy.root_device.type
    trained_on = (result.request.folder.read_unchecked_config().get("made_with") or {}).get("device", device)
    if (trained_on == "cpu") != (device == "cpu"):
        cause += f", or the device makes the difference (training: {trained_on})"
    return [f"{name} differs from metrics.json: {now:.4g} here, {was:.4g} there{others}: {cause}"]


def _data_notes(result: "Evaluation") -> list[str]:
    from losslab.training.reopen import RESPLITTING_OPTIONS  # noqa: PLC0415

    keys = {pair.removeprefix("data.").partition("=")[0] for pair in result.request.data}
    notes = []
    if keys & RESPLITTING_OPTIONS:
        changed = ", ".join(sorted(keys & RESPLITTING_OPTIONS))
        notes.append(f"{changed} changed: the new split may contain examples that the run was trained on")
    if keys and result.experiment.data.training_metadata is None:
        notes.append(
            "the run has no data.json with the normalisation in training: that of the changed data is used instead"
        )
    return notes


def _calibration_notes(result: "Evaluation") -> list[str]:
    """Return notes on what the calibrated metrics do not tell."""
    from losslab.losses.base import ClassCountLoss, Loss  # noqa: PLC0415

    calibrated, split, loss = result.calibrated, result.request.split, result.experiment.learner.loss
    if calibrated is None:
        return []
    notes, method = [], calibrated.method
    if calibrated.fit is not None:
        if split == "val":
            notes.append(
                f"the calibrated metrics are too good for new examples, because {method} was fitted on these: "
                "--split test is fair"
            )
        elif split == "train":
            notes.append(f"{method} was fitted on val: it does not calibrate examples on which the network was trained")
        elif _is_worse(result, f"test/{calibrated.fit.metric}"):
            reason = "there may be too few val examples"
            if result.request.checkpoint == "best":
                reason += ", or they look too easy because they also selected the best epoch (--ckpt last)"
            notes.append(f"{method} made test/{calibrated.fit.metric} worse: {reason}")
        if result.request.data:
            notes.append(f"{method} was fitted on the val split of the changed data")
    elif any(
        isinstance(part, ClassCountLoss) or any(getattr(part, name, None) is not None for name in _CLASS_WEIGHTS)
        for part in loss.modules()
        if isinstance(part, Loss)
    ):
        notes.append("the loss weighs classes in training already: logit_adjustment does so a second time")
    return notes


def _is_worse(result: "Evaluation", metric: str) -> bool:
    """Whether a metric is worse after calibration."""
    from losslab.io.metric_names import direction  # noqa: PLC0415

    assert result.calibrated is not None  # noqa: S101 -- for the type checker
    gain = result.calibrated.values[metric] - result.values[metric]
    return (gain > 0) if direction(metric) == "min" else (gain < 0)

"""`losslab compare`: tables and figures that show which loss is better, and whether the difference is real."""

import argparse
import logging
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import get_console

from losslab import runs
from losslab.cli.process import add_common_options, fast_imports, refuse_file, run_verb
from losslab.errors import LabError
from losslab.io import tables, untrusted

if TYPE_CHECKING:
    from losslab.analysis.compare import Comparison, Run

logger = logging.getLogger("losslab")

_EMPHASIS = "[{}]"
"""How the terminal shows text that is bold in comparison.md: in brackets."""
_TOO_WIDE = "(wider than this terminal: see comparison.md)"


def compare(arguments: Sequence[str] | None = None) -> None:
    """Compare the runs in and below the folders on the command line."""
    parser = argparse.ArgumentParser(
        description="Compare runs that differ in more than their seed: tables, figures, and what can be claimed.",
        epilog="Writes comparison.md with its figures, comparison.csv and runs.csv.",
    )
    add = parser.add_argument
    add("folders", type=Path, nargs="+", metavar="FOLDER", help="a run, a sweep, or any folder that contains runs")
    add(
        "--metric",
        action="append",
        help="a metric to compare by, such as test/accuracy or val/mine=min (lower is better); may be repeated",
    )
    setting = "compare with the runs of this setting, such as loss=mse (default: the best runs); may be repeated"
    add("--baseline", action="append", metavar="KEY=VALUE", help=setting)
    scale = "compare by differences or ratios (auto: ratios if mean errors differ by more than a factor of ten)"
    add("--scale", choices=("auto", "difference", "ratio"), default="auto", help=scale)
    add("--reach", metavar="METRIC[=VALUE]", help="how long runs take to reach a value, such as val/accuracy=0.6")
    matrix = "also evaluate each model with the losses of all runs (trained), or with all losses that fit (all)"
    add("--matrix", nargs="?", const="trained", choices=("trained", "all"), help=matrix)
    add_common_options(parser)
    events = "also write means and bands over the seeds of each configuration, for TensorBoard"
    add("--tensorboard", action="store_true", help=events)
    add("--output", type=Path, help="output folder (default: SWEEP/comparison, or outputs/comparison-TIMESTAMP)")
    options = parser.parse_args(arguments)
    options.command = ("losslab", "compare", *(sys.argv[1:] if arguments is None else arguments))
    run_verb(_compare, options)


def _compare(options: argparse.Namespace) -> None:
    with fast_imports():
        from losslab.analysis.compare import report  # noqa: PLC0415 -- after --help, which needs none of this
        from losslab.analysis.compare.comparison import NOTHING_FINISHED  # noqa: PLC0415
        from losslab.analysis.compare.comparison import compare as compare_runs  # noqa: PLC0415
        from losslab.analysis.compare.tables import metric_rows  # noqa: PLC0415

    reach = None if options.reach is None else _parse_reach(options.reach)
    comparison = compare_runs(options.folders, options.metric, options.baseline, reach, options.scale)
    if not comparison.metrics:
        for name, reason in comparison.not_counted:
            logger.info("%s: %s", name, reason)
        raise LabError(NOTHING_FINISHED)
    folder = _make_folder(options.output, comparison)
    report.remove_old_files(folder)
    logger.info("%s", report.summary(comparison))
    for by_metric in comparison.by_metric.values():
        logger.info("%s", tables.terminal_table(metric_rows(by_metric), (0, 4), instead=_TOO_WIDE))
    if comparison.time_to_reach is not None:
        logger.info("\n%s", report.reach_title(comparison.time_to_reach))
        logger.info("%s", tables.terminal_table(report.reach_rows(comparison.time_to_reach), instead=_TOO_WIDE))
    if len(comparison.groups) == 1:
        logger.info("All runs have the same configuration: there is nothing to compare them with.")
    extra_sections = [_matrix(comparison, folder, options.matrix, options.trust)] if options.matrix else []
    logger.info("")
    for note in comparison.notes:
        logger.info("%s", tables.wrap_text(f"- {note}"))
    for name, reason in comparison.not_counted:
        logger.warning("%s", tables.wrap_text(f"! not counted: {name}: {reason}"))
    if options.tensorboard:
        from losslab.analysis.compare import tensorboard  # noqa: PLC0415

        tensorboard.write_events(comparison.ordered, comparison.histories, folder / "tensorboard")
        logger.info("watch       tensorboard --logdir %s", shlex.quote(str(runs.display_path(folder / "tensorboard"))))
    report.write_report(comparison, folder, extra_sections, options.command)
    logger.info("report      %s", runs.display_path(folder / "comparison.md"))


def _parse_reach(text: str) -> tuple[str, float | None]:
    metric, _, value = text.partition("=")
    try:
        return metric, float(value) if value else None
    except ValueError as error:
        raise LabError(f"--reach {text}: {value} is not a number: type METRIC[=VALUE], as val/accuracy=0.6") from error


def _make_folder(output: Path | None, comparison: "Comparison") -> Path:
    """Create and return the output folder: by default that of the sweep, if all runs belong to it.

    An earlier comparison in the folder will be replaced.
    """
    folder = output or Path("outputs") / f"comparison-{runs.timestamp()}"
    sweep = comparison.collection.sweep
    if output is None and sweep is not None:
        folder = sweep / "comparison"
        untrusted.check_output_path(folder, sweep)  # the sweep may come from somebody else, and contain links
        if folder.is_dir():
            untrusted.check_folder(folder)
    refuse_file(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "comparison.md").is_file():
        raise LabError(f"{folder} contains files but no comparison.md: set --output to another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"cannot write to {folder} ({error.strerror}): set --output to another folder") from error
    return folder


def _matrix(comparison: "Comparison", folder: Path, which: str, trusted: Sequence[str]) -> tuple[str, str]:
    """Evaluate each model with each loss. Return the title and text of a section of comparison.md. Imports torch."""
    with fast_imports():
        from rich.progress import track  # noqa: PLC0415

        from losslab.analysis import loss_matrix  # noqa: PLC0415
        from losslab.analysis.compare.grouping import shorten  # noqa: PLC0415

    def show_progress(several: Sequence["Run"]) -> Iterable["Run"]:
        return track(several, "measuring", console=get_console(), transient=True)

    matrix = loss_matrix.measure(comparison.ordered, all_losses=which == "all", trusted=trusted, track=show_progress)
    loss_matrix.write(matrix, folder)
    logger.info("\n%s", loss_matrix.TITLE)
    logger.info("%s", tables.wrap_text(loss_matrix.legend(matrix, _EMPHASIS)))
    logger.info("%s", tables.terminal_table(loss_matrix.table(matrix, _EMPHASIS), instead=_TOO_WIDE))
    for why, cells in matrix.reasons.items():
        logger.info("%s", tables.wrap_text(f"- not measured: {shorten(cells)}: {why}"))
    return loss_matrix.TITLE, loss_matrix.section(matrix)

"""`losslab explain`: why runs went as they did, in figures."""

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from losslab import runs as folders
from losslab.analysis.explain import EXPLANATIONS
from losslab.analysis.explain.figures import write_tensorboard_images
from losslab.analysis.explain.options import CHECKPOINTS, DEFAULTS, SPLITS, LandscapeOptions, validate_number
from losslab.analysis.explain.select_runs import select_runs
from losslab.cli.options import asked_by_completion, begin, refuse_file, takes_trust
from losslab.cli.process import imports_without_gc, keep_freed_memory, leave, one_line_errors
from losslab.errors import LabError
from losslab.runs import RunFolder

logger = logging.getLogger("losslab")


def explain(arguments: Sequence[str] | None = None) -> None:
    """`losslab explain RUN_FOLDER ...` and `losslab explain`: draw what can be said of finished runs."""
    if asked_by_completion():
        return
    options = _parser().parse_args(arguments)
    begin(trusted=options.trust)
    with one_line_errors(show_all=False):
        refuse_file(options.output)
        given = select_runs(options.run_folders)
        output = options.output or (None if len(given) == 1 else Path("outputs") / f"explanation-{folders.timestamp()}")
        drawn = _drawn(given, output, options)
        logger.info("%-11s %s", "figures", folders.display_path(drawn[0].parent.resolve()))
    leave(0)


def _drawn(given: list[RunFolder], output: Path | None, options: argparse.Namespace) -> list[Path]:
    """Draw what applies, or what was asked for, and say what does not apply and why."""
    configs = [run.read_unchecked_config() for run in given]
    network_options = LandscapeOptions(
        **{field.name: getattr(options, field.name) for field in fields(LandscapeOptions)}
    )
    drawn: list[Path] = []
    refused: dict[str, str] = {}
    for name in options.what or EXPLANATIONS:
        explanation = EXPLANATIONS[name]
        other = next((run for run, config in zip(given, configs, strict=True) if not explanation.applies(config)), None)
        if other is not None:
            refused[name] = f"{folders.display_path(other.path)} is not {explanation.needs}"
            continue
        with imports_without_gc():
            from losslab.training import experiment  # noqa: F401, PLC0415 -- which brings torch and all
        keep_freed_memory()
        try:
            figures = explanation.module.explain(
                given, output, *([network_options] if explanation.takes_options else [])
            )
        except LabError as error:
            refused[name] = str(error)
            continue
        drawn += figures
        # A run that is still being trained writes an event file itself: there, figures are files alone.
        if output is not None or given[0].metrics.is_file():
            write_tensorboard_images(name, figures, output or given[0].path)
    lines = [f"{name}: {reason}" for name, reason in refused.items()]
    if not drawn or (refused and options.what):
        raise LabError("; ".join(lines))
    for line in lines:
        logger.info("not drawn   %s", line)
    return drawn


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Draw why finished runs went as they did: into the figures/ of one run, or several side by side."
    )
    several = "of a folder of runs, such as a sweep, the first seed of each configuration"
    parser.add_argument("run_folders", type=Path, nargs="+", metavar="RUN_FOLDER", help=several)
    takes_trust(parser)
    parser.add_argument(
        "--what",
        action="append",
        choices=tuple(EXPLANATIONS),
        help="an explanation; may be repeated (default: all that apply)",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="a folder for the figures")
    group = parser.add_argument_group("landscape and barrier")
    numbers = {
        "points": "along each side of the plane, or the line (21)",
        "examples": "how many examples are looked at (1000)",
        "seed": "of which examples, and of the random directions (0)",
    }
    for name, words in numbers.items():
        group.add_argument(f"--{name}", type=_number(name), default=getattr(DEFAULTS, name), metavar="N", help=words)
    group.add_argument("--split", choices=tuple(SPLITS), default="train", help="where from (train)")
    group.add_argument("--ckpt", choices=CHECKPOINTS, default="best", help="which weights (best)")
    return parser


def _number(name: str) -> Callable[[str], int]:
    """A parser of one of the numbers, within its limits."""

    def read(typed: str) -> int:
        try:
            return validate_number(name, int(typed) if typed.removeprefix("-").isdecimal() else typed)
        except ValueError as error:  # LabErrors are such, and numbers of more digits than python reads
            raise argparse.ArgumentTypeError(str(error)) from error

    return read

"""`losslab explain`: figures that show why runs ended as they did."""

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

from losslab import runs as folders
from losslab.analysis.explain import (
    CHECKPOINTS,
    DEFAULTS,
    EXPLANATIONS,
    SPLITS,
    LandscapeOptions,
    validate_integer,
)
from losslab.analysis.explain.figures import write_tensorboard_images
from losslab.analysis.explain.select_runs import select_runs
from losslab.cli.options import add_trust_option, refuse_file, start_command
from losslab.cli.process import imports_without_gc, keep_freed_memory, leave, one_line_errors
from losslab.errors import LabError
from losslab.runs import RunFolder

logger = logging.getLogger("losslab")


def explain(arguments: Sequence[str] | None = None) -> None:
    """Draw explanations of finished runs."""
    options = _parser().parse_args(arguments)
    start_command(trusted=options.trust)
    with one_line_errors(show_all=False):
        refuse_file(options.output)
        selected = select_runs(options.run_folders, options.trust)
        several = Path("outputs") / f"explanation-{folders.timestamp()}" if len(selected) > 1 else None
        drawn = _draw(selected, options.output or several, options)
        logger.info("%-11s %s", "figures", folders.display_path(drawn[0].parent.resolve()))
    leave(0)


def _draw(selected: list[RunFolder], output: Path | None, options: argparse.Namespace) -> list[Path]:
    """Draw the explanations that apply, or those that were asked for, and log why others do not apply."""
    configs = [run.read_unchecked_config() for run in selected]
    landscape = LandscapeOptions(**{field.name: getattr(options, field.name) for field in fields(LandscapeOptions)})
    drawn: list[Path] = []
    refused: list[str] = []
    for name in options.what or EXPLANATIONS:
        explanation = EXPLANATIONS[name]
        others = [run for run, config in zip(selected, configs, strict=True) if not explanation.applies(config)]
        if others:
            refused.append(f"{name}: {folders.display_path(others[0].path)} is not {explanation.needs}")
            continue
        with imports_without_gc():
            from losslab.training import experiment  # noqa: F401, PLC0415 -- imports torch with the garbage collector off
        keep_freed_memory()
        try:
            figures = explanation.module.explain(selected, output, *([landscape] if explanation.takes_options else []))
        except LabError as error:
            refused.append(f"{name}: {error}")
            continue
        drawn += figures
        # A run that is still being trained has its own event file open: then figures are only files.
        if output is not None or selected[0].metrics.is_file():
            write_tensorboard_images(name, figures, output or selected[0].path)
    if not drawn or (refused and options.what):
        raise LabError("; ".join(refused))
    for line in refused:
        logger.info("not drawn   %s", line)
    return drawn


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Draw why finished runs ended as they did: into the figures/ of one run, or several side by side."
    )
    several = "a run, or a folder of runs such as a sweep: then the first seed of each configuration is explained"
    parser.add_argument("run_folders", type=Path, nargs="+", metavar="RUN_FOLDER", help=several)
    add_trust_option(parser)
    what = "an explanation; may be repeated (default: all that apply)"
    parser.add_argument("--what", action="append", choices=tuple(EXPLANATIONS), help=what)
    parser.add_argument("--output", type=Path, metavar="DIR", help="a folder for the figures")
    group = parser.add_argument_group("landscape and barrier")
    numbers = {
        "points": "points along each side of the plane, or along the line (21)",
        "examples": "number of examples (1000)",
        "seed": "for the choice of examples and the random directions (0)",
    }
    for name, words in numbers.items():
        group.add_argument(f"--{name}", type=_number(name), default=getattr(DEFAULTS, name), metavar="N", help=words)
    group.add_argument("--split", choices=tuple(SPLITS), default="train", help="split of the examples (train)")
    group.add_argument("--ckpt", choices=CHECKPOINTS, default="best", help="checkpoint (best)")
    return parser


def _number(name: str) -> Callable[[str], int]:
    """A parser of one of the numbers, within its limits."""

    def read(text: str) -> int:
        try:
            return validate_integer(name, int(text) if text.removeprefix("-").isdecimal() else text)
        except ValueError as error:  # a LabError, or a number with more digits than Python reads
            raise argparse.ArgumentTypeError(str(error)) from error

    return read

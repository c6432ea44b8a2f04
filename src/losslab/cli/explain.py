"""`losslab explain`: figures that explain finished runs."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
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
from losslab.cli.process import add_trust_option, imports_without_gc, keep_freed_memory, refuse_file, run_verb
from losslab.errors import LabError

logger = logging.getLogger("losslab")


def explain(arguments: Sequence[str] | None = None) -> None:
    """Draw explanations of finished runs."""
    options = _parser().parse_args(arguments)
    run_verb(lambda: _explain(options), options.trust)


def _explain(options: argparse.Namespace) -> None:
    """Draw the requested explanations, by default all that apply, and log why others do not apply."""
    refuse_file(options.output)
    selected = select_runs(options.run_folders, options.trust)
    output: Path | None = options.output
    if output is None and len(selected) > 1:
        output = Path("outputs") / f"explanation-{folders.timestamp()}"
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
    logger.info("figures     %s", folders.display_path(drawn[0].parent.resolve()))


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
        number, default = partial(_number, name), getattr(DEFAULTS, name)
        group.add_argument(f"--{name}", type=number, default=default, metavar="N", help=words)
    group.add_argument("--split", choices=tuple(SPLITS), default="train", help="split of the examples (train)")
    group.add_argument("--ckpt", choices=CHECKPOINTS, default="best", help="checkpoint (best)")
    return parser


def _number(name: str, text: str) -> int:
    """Parse the number of an option and check its limits."""
    try:
        return validate_integer(name, int(text) if text.removeprefix("-").isdecimal() else text)
    except ValueError as error:  # a LabError, or a number with more digits than Python reads
        raise argparse.ArgumentTypeError(str(error)) from error

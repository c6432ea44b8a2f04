"""`losslab explain`: figures that explain finished runs."""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

from losslab import runs as folders
from losslab.analysis.explain import CHECKPOINTS, DEFAULTS, EXPLANATIONS, SPLITS, LandscapeOptions, validate_integer
from losslab.analysis.explain.figures import write_tensorboard_images
from losslab.analysis.explain.select_runs import select_runs
from losslab.cli.process import add_common_options, fast_imports, refuse_file, run_verb
from losslab.data.machine import keep_freed_memory
from losslab.errors import LabError

logger = logging.getLogger("losslab")


def explain(arguments: Sequence[str] | None = None) -> None:
    """Draw explanations of finished runs."""
    options = _parser().parse_args(arguments)
    run_verb(_explain, options)


def _explain(options: argparse.Namespace) -> None:
    """Draw the explanations in --what, or by default all that apply to the runs, and log why others were not drawn."""
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
        unfit = [run for run, config in zip(selected, configs, strict=True) if not explanation.applies(config)]
        if unfit:
            refused.append(f"{name}: {folders.display_path(unfit[0].path)} is not {explanation.needs}")
            continue
        with fast_imports():
            from losslab.training import experiment  # noqa: F401, PLC0415 -- imports torch with the garbage collector off
        keep_freed_memory()
        try:
            figures = explanation.module.explain(selected, output, *([landscape] if explanation.takes_options else []))
        except LabError as error:
            refused.append(f"{name}: {error}")
            continue
        drawn += figures
        # While a run is still training, it has its event file open, so figures are not written to TensorBoard.
        if output is not None or selected[0].metrics.is_file():
            write_tensorboard_images(name, figures, output or selected[0].path)
    if not drawn or (refused and options.what):
        raise LabError("; ".join(refused))
    for line in refused:
        logger.info("not drawn   %s", line)
    logger.info("figures     %s", folders.display_path(drawn[0].parent.resolve()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Draw figures that explain finished runs: in the figures/ of one run, or side by side for several."
    )
    several = "a run, or a folder of runs: if their configurations differ, only the first seed of each is explained"
    parser.add_argument("run_folders", type=Path, nargs="+", metavar="RUN_FOLDER", help=several)
    add_common_options(parser)
    what = "an explanation; may be repeated (default: all that apply)"
    parser.add_argument("--what", action="append", choices=tuple(EXPLANATIONS), help=what)
    parser.add_argument("--output", type=Path, metavar="DIR", help="output folder")
    group = parser.add_argument_group("landscape and barrier")
    numbers = {
        "points": "points along each side of the plane, or along the line (default: 21)",
        "examples": "number of examples (default: 1000)",
        "seed": "seed of the random directions and of the choice of examples (default: 0)",
    }
    for name, help_text in numbers.items():
        parse, default = partial(_parse_number, name), getattr(DEFAULTS, name)
        group.add_argument(f"--{name}", type=parse, default=default, metavar="N", help=help_text)
    group.add_argument("--split", choices=tuple(SPLITS), default="train", help="split of the examples (default: train)")
    group.add_argument("--ckpt", choices=CHECKPOINTS, default="best", help="checkpoint (default: best)")
    return parser


def _parse_number(name: str, text: str) -> int:
    """Parse the value of the option --NAME as an integer, and check its limits."""
    try:
        return validate_integer(name, int(text) if text.removeprefix("-").isdecimal() else text)
    except ValueError as error:  # a LabError, or an integer with more digits than int() accepts
        raise argparse.ArgumentTypeError(str(error)) from error

"""What the commands beside train.py have in common, above all those that read a run folder."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from losslab.cli.process import add_working_directory_to_path, one_line_errors
from losslab.errors import LabError
from losslab.io.terminal import ConsoleHandler
from losslab.runs import trust


def command_parser(description: str, run_folder: str = "the folder of a finished run") -> argparse.ArgumentParser:
    """A parser for a run folder and its weights."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("run_folder", type=Path, metavar="RUN_FOLDER", help=run_folder)
    takes_trust(made)
    made.add_argument(
        "--ckpt", default="best", metavar="best|last|PATH", help="the weights (default: best, of the best epoch)"
    )
    return made


def takes_trust(made: argparse.ArgumentParser) -> None:
    """Have a parser take packages that the configuration of a run may name besides losslab's own list."""
    made.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package of yours or another's that the run may name, as its code will be run; may be repeated",
    )


def takes_data(made: argparse.ArgumentParser) -> None:
    """Have a parser take options of the data by which they are to differ from the run's own."""
    made.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the data to change, as data.KEY=VALUE of train.py (dir=/elsewhere); may be repeated",
    )


def refuse_file(folder: Path | None) -> None:
    """Have no file taken for the folder to write to.

    Raises:
        LabError: it is one.
    """
    if folder is not None and folder.exists() and not folder.is_dir():
        raise LabError(f"{folder} is a file: name another folder with --output")


def asked_by_completion() -> bool:
    """Whether it is only Hydra's completion of `python train.py`, which asks every script that python runs."""
    return "-sc" in sys.argv[1:]


def begin(level: int = logging.INFO, trusted: Sequence[str] = ()) -> None:
    """Prepare this process for a command that reads what others may have written, and say where messages go.

    The user's own code in the working directory is found only where it is trusted: this may be the folder of somebody
    else's run.
    """
    if trusted:
        add_working_directory_to_path()
    with one_line_errors(show_all=False):
        trust.also(trusted)
    logging.basicConfig(level=level, format="%(message)s", handlers=[ConsoleHandler()])
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # without a HOME to write to it finds another place

"""Options that several verbs share, and the start of the verbs that read run folders."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from losslab.cli.process import add_working_directory_to_path, one_line_errors
from losslab.errors import LabError
from losslab.io.terminal import ConsoleHandler
from losslab.runs import trust


def run_parser(description: str) -> argparse.ArgumentParser:
    """A parser with a run folder and its checkpoint."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER", help="the folder of a finished run")
    add_trust_option(parser)
    checkpoint = "the checkpoint (default: best, of the best epoch)"
    parser.add_argument("--ckpt", default="best", metavar="best|last|PATH", help=checkpoint)
    return parser


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add --trust: packages that the configuration of a run may name beside losslab's own list."""
    package = "a package outside losslab that the run may use: its code will be executed; may be repeated"
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help=package)


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Add --data: options of the data that replace the run's own."""
    option = "change an option of the data, as data.KEY=VALUE of train.py does (dir=/elsewhere); may be repeated"
    parser.add_argument("--data", action="append", default=[], metavar="KEY=VALUE", help=option)


def refuse_file(folder: Path | None) -> None:
    """Raise LabError if an output folder is a file."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise LabError(f"{folder} is a file: name another folder with --output")


def start_command(level: int = logging.INFO, trusted: Sequence[str] = ()) -> None:
    """Set up logging and the import path for a verb that reads folders which somebody else may have written.

    Code in the working directory can be imported only if the user trusts a package: the working directory may be such
    a folder.
    """
    if trusted:
        add_working_directory_to_path()
    with one_line_errors(show_all=False):
        trust.parse_packages(trusted)
    logging.basicConfig(level=level, format="%(message)s", handlers=[ConsoleHandler()])
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns if HOME is not writable

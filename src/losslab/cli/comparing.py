"""`python scripts/compare.py`: which loss won, and is the difference real?"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import get_console
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from losslab import runs
from losslab.cli.errors import one_line_errors
from losslab.cli.process import find_the_users_code, leave
from losslab.errors import LabError
from losslab.terminal import ConsoleHandler

if TYPE_CHECKING:
    from losslab.comparison import Comparison

logger = logging.getLogger("losslab")


def compare(arguments: Sequence[str] | None = None) -> None:
    """`python scripts/compare.py FOLDERS...` and `losslab-compare`: compare the runs in these folders and below."""
    if "-sc" in sys.argv[1:]:
        return  # Hydra's completion of `python train.py` asks every script that python runs
    options = _parser().parse_args(arguments)
    find_the_users_code()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[ConsoleHandler()])
    with one_line_errors(show_all=False):
        from losslab import comparison as lab  # noqa: PLC0415 -- not before --help

        comparison = lab.compare(options.folders, options.metric, options.baseline, _reach(options.reach))
        if not comparison.metrics:
            _refuse(comparison)
        folder = _claim(options.output, comparison)
        _tell(comparison)
        from losslab.comparison import page  # noqa: PLC0415

        page.write(comparison, folder)
        logger.info("page        %s", runs.shown(folder / "comparison.md"))
    leave(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare runs that differ in more than their seed: tables, figures, and what can be claimed.",
        epilog="Writes comparison.md with its figures, comparison.csv and runs.csv.",
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="a run, a sweep, or a folder above")
    parser.add_argument(
        "--metric", action="append", help="a final value to compare by, such as test/accuracy; may be repeated"
    )
    parser.add_argument(
        "--baseline",
        nargs="+",
        metavar="KEY=VALUE",
        help="compare with this group (default: the best)",
    )
    parser.add_argument("--reach", metavar="METRIC=VALUE", help="how long runs take to this, such as val/accuracy=0.6")
    parser.add_argument(
        "--output", type=Path, help="the folder to write to (default: comparison/ in the sweep, or in outputs/)"
    )
    return parser


def _reach(asked: str | None) -> tuple[str, float | None] | None:
    if asked is None:
        return None
    metric, _, value = asked.partition("=")
    try:
        return metric, float(value) if value else None
    except ValueError as error:
        message = f"--reach {asked}: {value} is no number, say METRIC=VALUE as in val/accuracy=0.6"
        raise LabError(message) from error


def _refuse(comparison: "Comparison") -> None:
    for what, why in comparison.flaws:
        logger.info("%s: %s", what, why)
    message = "no run is finished: there is nothing to compare"
    raise LabError(message)


def _claim(asked: Path | None, comparison: "Comparison") -> Path:
    """The folder to write to: one of its own, or that of an earlier comparison, which is renewed."""
    sweeps = comparison.reading.sweeps
    default = sweeps[0] / "comparison" if len(sweeps) == 1 else Path("outputs") / f"comparison-{runs.stamp()}"
    folder = asked or default
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "comparison.md").is_file():
        message = f"{folder} holds something else than a comparison: set --output to another folder"
        raise LabError(message)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _tell(comparison: "Comparison") -> None:
    from losslab.comparison import page, tables  # noqa: PLC0415

    logger.info("%s", page.summary(comparison))
    for standing in comparison.standings.values():
        logger.info("%s", _text(tables.rows(standing)))
    if comparison.reach is not None:
        logger.info("%s", page.reach_title(comparison.reach))
        logger.info("%s", _text(page.reach_rows(comparison.reach)))
    if len(comparison.groups) == 1:
        logger.info("All runs have one configuration: there is nothing to compare them with.")
    for note in comparison.notes:
        logger.info("- %s", note)
    for what, why in comparison.flaws:
        logger.warning("not counted: %s: %s", what, why)


def _text(rows: Sequence[Sequence[str]]) -> str:
    """A table as wide as the terminal; names are broken where they must be, numbers never."""
    terminal = get_console()
    head, *body = rows
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(head):
        right = 0 < place < 4
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=False)
    for row in body:
        table.add_row(*map(escape, row))
    console = Console(width=terminal.width if terminal.is_terminal else 160, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())

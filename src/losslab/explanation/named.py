"""Which runs are meant by the folders that a command names. Imports no torch."""

import logging
from collections.abc import Sequence
from pathlib import Path

from losslab.comparison.grouping import group
from losslab.comparison.reading import read
from losslab.errors import LabError
from losslab.runs import RunFolder, shown

logger = logging.getLogger("losslab")


def runs_named(places: Sequence[Path]) -> list[RunFolder]:
    """Run folders as they are, each once; a folder of runs, such as a sweep, stands for some of those in it.

    Of runs that differ in more than the seed these are the first seed of each configuration; of seeds alone, all.

    Raises:
        LabError: a folder is not there, or holds no finished run.
    """
    runs = [run for place in places for run in ([RunFolder(place)] if _is_one(place) else _of_many(place))]
    return [*{run.path.resolve(): run for run in runs}.values()]


def _is_one(place: Path) -> bool:
    # What is not there is refused by whoever reads the run.
    return not place.is_dir() or RunFolder(place).config.is_file()


def _of_many(place: Path) -> list[RunFolder]:
    found = read([place])
    groups = [one for one in group(found.runs) if one.runs]
    if not groups:
        message = f"{shown(place)} holds no run that is finished"
        raise LabError(message)
    several = len(groups) > 1
    chosen = [run.folder for one in groups for run in (one.runs[:1] if several else one.runs)]
    said = "the first seed of each configuration" if several else "the seeds of one configuration"
    logger.info("%-11s %d of %d runs: %s", "explained", len(chosen), len(found.runs) + len(found.flaws), said)
    return chosen

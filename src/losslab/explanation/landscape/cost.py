"""What many passes cost, said before and shown while they are made."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from losslab.explanation.landscape.passes import Passes

logger = logging.getLogger("losslab")


@contextmanager
def counted(what: str, wanted: Sequence[tuple[Passes, int]]) -> Iterator[Callable[[], object]]:
    """Say how many passes there will be and about how long they take; give what is to be called after each.

    Args:
        what: is computed.
        wanted: so many passes of each of these.
    """
    count = sum(number for _, number in wanted)
    seconds = sum(number * passes.seconds() for passes, number in wanted)
    examples = wanted[0][0].examples
    logger.info(
        "%-11s %s forward passes over %s examples, about %s; fewer with --points or --examples",
        what, f"{count:,}", f"{examples:,}", _time(seconds),
    )  # fmt: skip
    columns = (TextColumn(f"{what:<11}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=get_console(), transient=True, disable=not get_console().is_terminal) as bar:
        task = bar.add_task(what, total=count)
        yield lambda: bar.advance(task)


def _time(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"

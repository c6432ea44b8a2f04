"""`python scripts/show.py`: the card of a loss, and its figure."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from losslab.cli.errors import one_line_errors
from losslab.cli.process import find_the_users_code, imports_without_gc, leave
from losslab.errors import LabError

_USAGE = """\
Usage: python scripts/show.py loss=NAME [loss.KEY=VALUE ...]     the card of a loss, and NAME.png
       python scripts/show.py --all                              docs/losses.md with every card and figure
"""


def show(arguments: Sequence[str] | None = None) -> None:
    """Print the card of a loss and draw its figure into the working directory, or write the page of all."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "-sc" in given:
        return  # Hydra's completion of `python train.py` asks every script that python runs
    if not given or {"--help", "-h"} & set(given):
        sys.stdout.write(_USAGE)
        return
    find_the_users_code()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with one_line_errors(show_all="traceback=true" in given):
        with imports_without_gc():
            from losslab.show import page  # noqa: PLC0415
        if given == ["--all"]:
            docs = Path("docs")
            if not docs.is_dir():
                message = "--all writes docs/losses.md: run it in a checkout of losslab"
                raise LabError(message)
            page.write(docs)
            sys.stdout.write(f"wrote {docs / 'losses.md'}\n")
        else:
            _show_one(given)
    leave(0)


def _show_one(given: list[str]) -> None:
    from hydra.utils import instantiate  # noqa: PLC0415

    from losslab import catalogue  # noqa: PLC0415
    from losslab.show import card, figure  # noqa: PLC0415
    from losslab.show.curves import curves  # noqa: PLC0415

    choice = [argument for argument in given if argument.startswith("loss=")]
    if len(choice) != 1:
        message = f"name one loss, as in loss=focal: one of {', '.join(catalogue.names())}"
        raise LabError(message)
    name = choice[0].partition("=")[2]
    config = catalogue.config(name, *(argument for argument in given if argument not in choice))
    sys.stdout.write(card.text(name, instantiate(config)) + "\n")
    path = figure.save(name, curves(name, config), Path())
    sys.stdout.write(f"figure: {path}\n")

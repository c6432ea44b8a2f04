"""`losslab show`: the card of a loss, and its figure."""

import logging
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from losslab.cli.process import add_working_directory_to_path, imports_without_gc, leave, one_line_errors
from losslab.errors import LabError
from losslab.training.config import compose

_USAGE = """\
Usage: losslab show loss=NAME [loss.KEY=VALUE ...]     the card of a loss, and a figure of it
       losslab show --all                              docs/losses.md with every card and figure
"""


def show(arguments: Sequence[str] | None = None) -> None:
    """Print the card of a loss and draw its figure into outputs/figures, or write the page of all."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "-sc" in given:
        return  # Hydra's completion of `python train.py` asks every script that python runs
    if not given or {"--help", "-h"} & set(given):
        sys.stdout.write(_USAGE)
        return
    add_working_directory_to_path()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with one_line_errors(show_all="traceback=true" in given):
        with imports_without_gc():
            from losslab.analysis.loss_cards import report  # noqa: PLC0415
        if given == ["--all"]:
            docs = Path("docs")
            if not docs.is_dir():
                raise LabError("--all writes docs/losses.md: run it in a checkout of losslab")
            report.write(docs)
            sys.stdout.write(f"wrote {docs / 'losses.md'}\n")
        else:
            _show_one(given)
    leave(0)


def _show_one(given: list[str]) -> None:
    from losslab.analysis.loss_cards import card, report  # noqa: PLC0415
    from losslab.analysis.loss_cards.curves import CLASSES, curves  # noqa: PLC0415
    from losslab.losses.adapter.adapted import Adapted  # noqa: PLC0415
    from losslab.losses.base import Loss  # noqa: PLC0415
    from losslab.training.instantiate import make_alone  # noqa: PLC0415

    name, config = _composed(given)
    loss = make_alone(config, CLASSES)
    sys.stdout.write(card.text(name, loss) + "\n")
    changed = [argument.removeprefix("loss.") for argument in given if argument.startswith("loss.")]
    losses: dict[str, Loss] | None = {loss.name: loss} if isinstance(loss, Adapted) else None
    path = report.save("-".join([name, *changed]), curves(name, config, losses), Path("outputs/figures"))
    sys.stdout.write(f"figure: {path}\n")


def _composed(given: list[str]) -> tuple[str, dict[str, Any]]:
    """The name of the loss, and its configuration."""
    from losslab.losses import catalog  # noqa: PLC0415

    choice = [argument.partition("=")[2] for argument in given if argument.startswith("loss=")]
    if len(choice) != 1:
        raise LabError(f"name one loss, as in loss=focal: one of {', '.join(catalog.names())}")
    if choice[0] not in catalog.names():  # custom, or a user's own by hydra.searchpath
        if not any(argument.startswith(("loss._target_", "hydra.searchpath")) for argument in given):
            alike = get_close_matches(choice[0], catalog.names())
            hint = f"did you mean {' or '.join(alike)}" if alike else f"one of {', '.join(catalog.names())}"
            raise LabError(f"there is no loss={choice[0]}: {hint}")
        return choice[0], compose(given, run_dir="unused")["loss"]
    others = (argument for argument in given if not argument.startswith(("loss=", "teacher=")))
    return choice[0], catalog.config(choice[0], *others)

"""`losslab show`: print the card of a loss, which lists the facts about it, and draw its value and gradient."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from losslab.cli.process import fast_imports, run_hydra_verb
from losslab.errors import LabError
from losslab.training.config import compose

_HELP = """\
Print the card of a loss, which lists the facts about it, and draw its value and gradient.

Usage: losslab show loss=NAME [loss.KEY=VALUE ...]     the card of a loss, and a figure in outputs/figures
       losslab show --all                              docs/losses.md with every card and figure
"""


def show(arguments: Sequence[str] | None = None) -> None:
    """Print the card of a loss and save its figure in outputs/figures; with --all, write docs/losses.md instead."""
    run_hydra_verb(_show, arguments, _HELP)


def _show(arguments: list[str]) -> None:
    if not arguments:
        sys.stdout.write(_HELP)
        return
    with fast_imports():
        from losslab.analysis.loss_cards import card_text, report  # noqa: PLC0415
        from losslab.analysis.loss_cards.curves import CLASSES, curves  # noqa: PLC0415
        from losslab.losses.adapter.adapted import Adapted  # noqa: PLC0415
        from losslab.losses.base import Loss  # noqa: PLC0415
        from losslab.training.instantiate import make_loss_without_data  # noqa: PLC0415
    if arguments == ["--all"]:
        docs = Path("docs")
        if not docs.is_dir():
            raise LabError("--all writes docs/losses.md: run it in a checkout of losslab")
        report.write(docs)
        sys.stdout.write(f"wrote {docs / 'losses.md'}\n")
        return
    name, config = _compose_loss(arguments)
    loss = make_loss_without_data(config, CLASSES)
    sys.stdout.write(card_text.text(name, loss) + "\n")
    if not loss.scores_examples:
        sys.stdout.write("figure: none, because no single example has a loss\n")
        return
    changed = [argument.removeprefix("loss.") for argument in arguments if argument.startswith("loss.")]
    adapted: dict[str, Loss] | None = {loss.name: loss} if isinstance(loss, Adapted) else None
    path = report.save("-".join([name, *changed]), curves(name, config, adapted), Path("outputs/figures"))
    sys.stdout.write(f"figure: {path}\n")


def _compose_loss(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """Return the name of the loss on the command line, and its configuration."""
    from losslab.losses import catalog  # noqa: PLC0415

    one_of = f"one of {', '.join(catalog.names())}"
    names = [argument.removeprefix("loss=") for argument in arguments if argument.startswith("loss=")]
    if len(names) != 1:
        raise LabError(f"name one loss, as in loss=focal: {one_of}")
    name = names[0]
    if name in catalog.names():
        others = (argument for argument in arguments if not argument.startswith(("loss=", "teacher=")))
        return name, catalog.config(name, *others)
    if not any(argument.startswith(("loss._target_", "hydra.searchpath")) for argument in arguments):
        similar = " or ".join(get_close_matches(name, catalog.names()))
        raise LabError(f"there is no loss={name}: {f'did you mean {similar}' if similar else one_of}")
    return name, compose(arguments, run_dir="unused")["loss"]

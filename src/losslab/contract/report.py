"""What became of a loss under its contract, as text."""

from dataclasses import dataclass

from losslab.contract import broken
from losslab.contract.behaviour import CHECKS, FOR_STRANGERS
from losslab.contract.claims import CLAIMS
from losslab.contract.specimens import with_counts
from losslab.losses.adapter import Adapted
from losslab.losses.base import Loss


@dataclass(frozen=True)
class Verdict:
    """One promise or claim, and what is wrong with it; None if it holds."""

    name: str
    wrong: str | None

    def __str__(self) -> str:
        return f"  holds   {self.name}" if self.wrong is None else f"  BROKEN  {self.name}: {self.wrong}"


def verdicts(loss: Loss) -> list[Verdict]:
    """Every promise for each kind of target the loss takes, and every claim of its card.

    A criterion from elsewhere has promised nothing: of it only what every loss must do is asked.
    """
    checks = FOR_STRANGERS if isinstance(loss, Adapted) else CHECKS
    several = len(loss.wants) > 1
    found = [
        Verdict(_words(check.__name__) + (f" ({kind})" if several else ""), broken(check, with_counts(loss), kind))
        for kind in loss.wants
        for check in checks
    ]
    if loss.card is not None:
        found += [Verdict(f"card: {_words(claim.__name__)}", broken(claim, loss, loss.card)) for claim in CLAIMS]
    return found


def _words(name: str) -> str:
    return name.replace("_", " ")

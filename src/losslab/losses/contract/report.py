"""What became of a loss under its contract, as text."""

from collections.abc import Callable
from dataclasses import dataclass

from losslab.losses.adapter.adapted import Adapted
from losslab.losses.adapter.per_example import Route
from losslab.losses.base import Loss
from losslab.losses.contract import run_check
from losslab.losses.contract.behaviour import CHECKS, FOREIGN_CHECKS, is_stable_far_out
from losslab.losses.contract.claims import CLAIMS
from losslab.losses.contract.sample_inputs import with_class_counts
from losslab.targets import Kind


@dataclass(frozen=True)
class CheckResult:
    """One promise or claim, and what is wrong with it; None if it holds."""

    name: str
    wrong: str | None

    def __str__(self) -> str:
        return f"  holds   {self.name}" if self.wrong is None else f"  BROKEN  {self.name}: {self.wrong}"


def check_loss(loss: Loss) -> list[CheckResult]:
    """Every promise for each kind of target the loss takes, and every claim of its card.

    A criterion from elsewhere has promised nothing: of it only what every loss must do is asked, and nothing of one
    that scores no single examples.
    """
    checks: tuple[Callable[[Loss, Kind], str | None], ...] = FOREIGN_CHECKS if isinstance(loss, Adapted) else CHECKS
    if getattr(loss, "bounded", False):
        checks = tuple(check for check in checks if check is not is_stable_far_out)  # it takes no such outputs
    if isinstance(loss, Adapted) and loss.form.route is Route.WHOLE:
        return []
    found = [CheckResult(_words(check.__name__), _first(check, loss)) for check in checks]
    if loss.card is not None:
        found += [CheckResult(f"card: {_words(claim.__name__)}", run_check(claim, loss, loss.card)) for claim in CLAIMS]
    return found


def _first(check: Callable[..., str | None], loss: Loss) -> str | None:
    """What is wrong with the first kind of target for which something is."""
    for kind in loss.wants:
        wrong = run_check(check, with_class_counts(loss), kind)
        if wrong is not None:
            return f"{wrong} ({kind} targets)"
    return None


def _words(name: str) -> str:
    return name.replace("_", " ")

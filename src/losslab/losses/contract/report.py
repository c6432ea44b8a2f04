"""The result of the contract's checks on a loss, as text."""

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
    """The result of one check or claim."""

    name: str
    failure: str | None
    """A description of the failure; None if the check holds."""

    def __str__(self) -> str:
        return f"  holds   {self.name}" if self.failure is None else f"  BROKEN  {self.name}: {self.failure}"


def check_loss(loss: Loss) -> list[CheckResult]:
    """Check a loss for each kind of target that it takes, and every claim of its card.

    An adapted criterion of another library gets only the checks of `FOREIGN_CHECKS`; one that scores a batch as a whole
    gets none.
    """
    checks: tuple[Callable[[Loss, Kind], str | None], ...] = FOREIGN_CHECKS if isinstance(loss, Adapted) else CHECKS
    if getattr(loss, "bounded", False):
        checks = tuple(check for check in checks if check is not is_stable_far_out)  # it does not accept such outputs
    if isinstance(loss, Adapted) and loss.form.route is Route.WHOLE:
        return []
    results = [CheckResult(_words(check.__name__), _first_failure(check, loss)) for check in checks]
    if loss.card is not None:
        results += [
            CheckResult(f"card: {_words(claim.__name__)}", run_check(claim, loss, loss.card)) for claim in CLAIMS
        ]
    return results


def _first_failure(check: Callable[..., str | None], loss: Loss) -> str | None:
    """The failure for the first kind of target with one."""
    for kind in loss.wants:
        failure = run_check(check, with_class_counts(loss), kind)
        if failure is not None:
            return f"{failure} ({kind} targets)"
    return None


def _words(name: str) -> str:
    return name.replace("_", " ")

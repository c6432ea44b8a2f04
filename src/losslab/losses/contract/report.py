"""Runs the checks of the contract on a loss."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from losslab.errors import message_of
from losslab.losses.adapter.adapted import Adapted
from losslab.losses.adapter.form import Route
from losslab.losses.base import Loss
from losslab.losses.contract.behaviour import CHECKS, FOREIGN_CHECKS, is_stable_at_large_outputs
from losslab.losses.contract.claims import CLAIMS
from losslab.losses.contract.sample_inputs import with_class_counts
from losslab.targets import Kind


@dataclass(frozen=True)
class CheckResult:
    """The result of one check or claim."""

    name: str
    failure: str | None
    """A description of the failure; None if the check passed."""

    def __str__(self) -> str:
        return f"  passed  {self.name}" if self.failure is None else f"  FAILED  {self.name}: {self.failure}"


def check_loss(loss: Loss) -> list[CheckResult]:
    """Check the behaviour of a loss for each kind of target that it accepts, and every fact of its card.

    An adapted criterion is checked with `FOREIGN_CHECKS` only, and not at all if it scores a batch as a whole.
    """
    checks: tuple[Callable[[Loss, Kind], str | None], ...] = CHECKS
    if isinstance(loss, Adapted):
        checks = () if loss.form.route is Route.WHOLE else FOREIGN_CHECKS
        if loss.bounded:  # the criterion does not accept large outputs
            checks = tuple(check for check in checks if check is not is_stable_at_large_outputs)
    results = []
    for check in checks:
        failures = ((kind, run_check(check, with_class_counts(loss), kind)) for kind in loss.wants)
        failure = next((f"{text} ({kind} targets)" for kind, text in failures if text is not None), None)
        results.append(CheckResult(check.__name__.replace("_", " "), failure))
    if loss.card is not None:
        for claim in CLAIMS:
            name = f"card: {claim.__name__.replace('_', ' ')}"
            results.append(CheckResult(name, run_check(claim, loss, loss.card)))
    return results


def run_check(check: Callable[..., str | None], *args: Any) -> str | None:
    """Run a check, and return a description of the failure or of the exception raised; None if the check passes."""
    try:
        return check(*args)
    except Exception as error:  # noqa: BLE001 -- any exception of the loss is a failure
        return f"{type(error).__name__}: {message_of(error)}"[:300]

"""Checks of the facts of a card by numerical search, and `check_loss`, which runs these and all other checks.

A check returns a description of the counterexample that it found, or None.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from losslab.errors import message_of
from losslab.losses.adapter.adapted import Adapted
from losslab.losses.adapter.form import Route
from losslab.losses.base import Loss
from losslab.losses.card import Card, Slope
from losslab.losses.contract import search
from losslab.losses.contract.behaviour import CHECKS, FOREIGN_CHECKS, is_stable_at_large_outputs
from losslab.losses.contract.sample_inputs import is_classification, with_class_counts
from losslab.targets import Kind

SIZES = (2, 3, 10)
"""The numbers of classes K at which formulas are evaluated."""


def evaluate_formula(formula: str, loss: Loss, classes: int) -> float:
    """Evaluate a formula of a card, which may contain K and the names of hyperparameters of the loss."""
    import sympy  # noqa: PLC0415 -- takes half a second to import

    names: dict[str, Any] = {"K": classes} | {name: float(getattr(loss, name)) for name in loss.hyperparameters}
    value = sympy.sympify(formula, locals={name: sympy.Float(value) for name, value in names.items()})
    if value is sympy.nan:
        return 0.0  # the formula contains 0 log 0, as at the end of the range of a hyperparameter
    return float(value)


def value_at_uniform_logits(loss: Loss, card: Card) -> str | None:
    """At uniform logits the loss is the declared value, for several numbers of classes."""
    if card.uniform is None:
        return None
    for classes in SIZES:
        found = search.value_at_uniform_logits(with_class_counts(loss, classes, equal=True), classes)
        claimed = evaluate_formula(card.uniform, loss, classes)
        if not math.isclose(found, claimed, rel_tol=1e-6, abs_tol=1e-9):
            where = f"the value at uniform logits with {classes} classes"
            return f"{where} is {found:.6g}, but the card declares {card.uniform} = {claimed:.6g}"
    return None


def symmetry(loss: Loss, card: Card) -> str | None:
    """Σ_k L(z, k) is the declared constant. If none is declared, it varies."""
    if not is_classification(loss):
        return None
    for classes in SIZES[1:]:
        low, high = search.range_of_class_sums(with_class_counts(loss, classes), classes)
        varies = high - low > 1e-6 * max(1.0, abs(high))
        if card.symmetric is None:
            if not varies:
                return f"Σ_k L(z, k) is {low:.6g} at all outputs tried, but the card declares no constant"
            continue
        claimed = evaluate_formula(card.symmetric, loss, classes)
        if varies or not math.isclose(low, claimed, rel_tol=1e-5, abs_tol=1e-6):
            found = f"Σ_k L(z, k) is between {low:.6g} and {high:.6g}"
            return f"{found}, but the card declares {card.symmetric} = {claimed:.6g}"
    return None


def bounds(loss: Loss, card: Card) -> str | None:
    """All values found are within the declared bounds, and some are close to each bound."""
    for classes in SIZES:
        ready = with_class_counts(loss, classes, equal=True)
        found = search.value_range(ready, classes, card.overflows_at)
        for number, (bound, side) in enumerate(((card.low, -1), (card.high, 1))):
            extreme = found[number]
            if bound is None:
                continue
            claimed = evaluate_formula(bound, loss, classes)
            declared = f"the declared bound {claimed:.6g} with {classes} classes"
            if math.isinf(claimed):
                before = search.value_range(ready, classes, card.overflows_at, near=True)[number]
                # For a loss that overflows, the search stops at smaller outputs, so the value grows less.
                enough = 5.0 if math.isfinite(card.overflows_at) else 1.5 * max(before * side, 1.0)
                if extreme * side < enough:
                    return f"the card declares no bound, but at larger outputs {before:.6g} becomes only {extreme:.6g}"
            elif (extreme - claimed) * side > 1e-6 * max(1.0, abs(claimed)):
                return f"the value {extreme:.6g} is beyond {declared}"
            elif (claimed - extreme) * side > max(0.05, 0.05 * abs(claimed)):
                return f"no value found is closer than {abs(claimed - extreme):.3g} to {declared}"
    return None


def convexity(loss: Loss, card: Card) -> str | None:
    """A convex loss is not above any chord. If the card declares the loss not convex, it is above one chord found."""
    if card.convex is None:
        return None
    violation = search.convexity_violation(with_class_counts(loss, 3))
    if card.convex and violation > 0:
        return f"the card declares the loss convex, but it is {violation:.3g} above a chord"
    if not card.convex and violation <= 0:
        return "the card declares the loss not convex, but it is below all chords found"
    return None


def invariance_to_shifts(loss: Loss, card: Card) -> str | None:
    """An invariant loss does not change if a number is added to all outputs. A loss declared not invariant changes."""
    if not is_classification(loss):
        return None
    change = search.shift_sensitivity(with_class_counts(loss, 3), 3)
    if card.shift_invariant and change > 1e-7:
        return f"the card declares the loss invariant to shifts, but a shift changed it by {change:.3g}"
    if not card.shift_invariant and change <= 1e-7:
        return "the card declares the loss not invariant to shifts, but no shift changed it"
    return None


def properness(loss: Loss, card: Card) -> str | None:
    """The true probabilities minimise the expected value of a proper loss, but not of a loss declared improper."""
    if card.proper is None or not is_classification(loss):
        return None
    distance = search.properness_gap(with_class_counts(loss, 3, equal=True))
    if card.proper and distance > 1e-4:
        minimum = "the minimum of the expected loss is"
        return f"the card declares the loss proper, but {minimum} {distance:.3g} from the true probabilities"
    if not card.proper and distance < 1e-4:
        return "the card declares the loss improper, but the true probabilities minimise the expected loss"
    return None


def estimate(loss: Loss, card: Card) -> str | None:
    """The best constant prediction is the declared property of the targets."""
    if is_classification(loss) or (card.elicits is None and card.low is None):
        return None  # the card is that of a loss made of other losses, which makes no claim
    found = search.best_constant(loss)
    named = {"mean": 4.0, "median": 1.0}
    if card.elicits is None:
        equal = [name for name, value in named.items() if math.isclose(found, value, abs_tol=1e-4)]
        return f"the best estimate is the {equal[0]}, but the card does not declare it" if equal else None
    claimed = named.get(card.elicits)
    if claimed is None:  # the quantile of level q of n values is the ⌈n q⌉th
        claimed = search.TARGETS[math.ceil(len(search.TARGETS) * float(card.elicits)) - 1]
    if math.isclose(found, claimed, rel_tol=1e-3, abs_tol=1e-3):
        return None
    return f"the best estimate is {found:.6g}, but the card declares the {card.elicits}, which is {claimed:g}"


def slope_near(loss: Loss, card: Card) -> str | None:
    """Near the target, the gradient behaves as declared."""
    return _compare_slopes("near", search.gradients_near(with_class_counts(loss, 3, equal=True)), card.near)


def slope_far(loss: Loss, card: Card) -> str | None:
    """Far from the target, the gradient behaves as declared."""
    return _compare_slopes("far from", search.gradients_far(with_class_counts(loss, 3), card.overflows_at), card.far)


def classify_slope(gradients: list[float]) -> Slope:
    """Return the behaviour of gradients at outputs that are nearer and nearer, or farther and farther."""
    # At the fourth point (a margin or residual of 30, or a residual of 1e-12) a 0 is exact, and not due to rounding.
    if len(gradients) > 3 and gradients[3] == 0 and gradients[-1] == 0:
        return Slope.ZERO
    # A gradient that fades must also decrease at the end: it is not enough to be smaller than an earlier peak.
    if gradients[-1] < 0.05 * max(gradients) and gradients[-1] <= 0.5 * gradients[-2]:
        return Slope.FADES
    return Slope.GROWS if gradients[-1] > 3 * gradients[-2] else Slope.STAYS


def _compare_slopes(where: str, gradients: list[float], declared: Slope | None) -> str | None:
    found = classify_slope(gradients)
    if declared is None or found is declared:
        return None
    words = ["is exactly 0" if slope is Slope.ZERO else str(slope) for slope in (found, declared)]
    return f"{where} the target the gradient {words[0]}, but the card declares that it {words[1]}"


CLAIMS = (
    value_at_uniform_logits,
    symmetry,
    bounds,
    convexity,
    invariance_to_shifts,
    properness,
    estimate,
    slope_near,
    slope_far,
)


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

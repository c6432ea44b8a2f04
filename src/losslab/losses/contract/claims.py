"""Checks of the claims of a card against a numerical search. Each returns how the claim is refuted, or None."""

import math
from typing import Any

from losslab.losses.base import Loss
from losslab.losses.card import Card, Slope
from losslab.losses.contract import search
from losslab.losses.contract.sample_inputs import is_classification, with_class_counts

SIZES = (2, 3, 10)
"""Numbers of classes that formulas in K are evaluated at."""


def evaluate_formula(formula: str, loss: Loss, classes: int) -> float:
    """The value of a card's formula in K and the loss's hyperparameters."""
    import sympy  # noqa: PLC0415 -- takes half a second to import

    names: dict[str, Any] = {"K": classes} | {name: float(getattr(loss, name)) for name in loss.hyperparameters}
    value = sympy.sympify(formula, locals={name: sympy.Float(value) for name, value in names.items()})
    if value is sympy.nan:
        value = sympy.sympify(0)  # 0 log 0, at the end of a hyperparameter's range
    return float(value)


def value_at_uniform_logits(loss: Loss, card: Card) -> str | None:
    """The declared formula holds for several numbers of classes."""
    if card.uniform is None:
        return None
    for classes in SIZES:
        found = search.value_at_uniform_logits(with_class_counts(loss, classes, equal=True), classes)
        claimed = evaluate_formula(card.uniform, loss, classes)
        if not math.isclose(found, claimed, rel_tol=1e-6, abs_tol=1e-9):
            return (
                f"at uniform logits with {classes} classes it is {found:.6g}, declared {card.uniform} = {claimed:.6g}"
            )
    return None


def symmetry(loss: Loss, card: Card) -> str | None:
    """Σ_k L(z, k) is the declared constant, or varies if none is declared."""
    if not is_classification(loss):
        return None
    for classes in SIZES[1:]:
        low, high = search.range_of_class_sums(with_class_counts(loss, classes), classes)
        varies = high - low > 1e-6 * max(1.0, abs(high))
        if card.symmetric is None:
            if not varies:
                return f"Σ_k L(z, k) is {low:.6g} for all z found, declared not symmetric"
            continue
        claimed = evaluate_formula(card.symmetric, loss, classes)
        if varies or not math.isclose(low, claimed, rel_tol=1e-5, abs_tol=1e-6):
            return f"Σ_k L(z, k) runs from {low:.6g} to {high:.6g}, declared {card.symmetric} = {claimed:.6g}"
    return None


def bounds(loss: Loss, card: Card) -> str | None:
    """No value found lies beyond the declared bounds, and some come close to each."""
    for classes in SIZES:
        ready = with_class_counts(loss, classes, equal=True)
        found = search.value_range(ready, classes, card.overflows_at)
        for number, (bound, side) in enumerate(((card.low, -1), (card.high, 1))):
            extreme = found[number]
            if bound is None:
                continue
            claimed = evaluate_formula(bound, loss, classes)
            if math.isinf(claimed):
                before = search.value_range(ready, classes, card.overflows_at, near=True)[number]
                # With limited outputs the value is unbounded because of the targets, and grows less in the search.
                enough = 5.0 if math.isfinite(card.overflows_at) else 1.5 * max(before * side, 1.0)
                if extreme * side < enough:
                    return f"it is declared unbounded, but further out {before:.6g} grows to {extreme:.6g} only"
            elif (extreme - claimed) * side > 1e-6 * max(1.0, abs(claimed)):
                return f"it reaches {extreme:.6g}, beyond the declared bound {claimed:.6g} (with {classes} classes)"
            elif (claimed - extreme) * side > max(0.05, 0.05 * abs(claimed)):
                return (
                    f"it stays {abs(claimed - extreme):.3g} from the declared bound {claimed:.6g} ({classes} classes)"
                )
    return None


def convexity(loss: Loss, card: Card) -> str | None:
    """The loss lies below all chords found, or above one if it is declared not convex."""
    if card.convex is None:
        return None
    violation = search.convexity_violation(with_class_counts(loss, 3))
    if card.convex and violation > 0:
        return f"it is declared convex, but lies {violation:.3g} above a chord"
    if not card.convex and violation <= 0:
        return "it is declared not convex, but no chord was found to be violated"
    return None


def invariance_to_shifts(loss: Loss, card: Card) -> str | None:
    """Adding a number to all outputs changes nothing, or something if it is declared not invariant."""
    if not is_classification(loss):
        return None
    change = search.shift_sensitivity(with_class_counts(loss, 3), 3)
    if card.shift_invariant and change > 1e-7:
        return f"it is declared invariant to shifts, but one changed it by {change:.3g}"
    if not card.shift_invariant and change <= 1e-7:
        return "it is declared not invariant to shifts, but none changed it"
    return None


def properness(loss: Loss, card: Card) -> str | None:
    """The true probabilities minimise the expected loss, or do not if it is declared improper."""
    if card.proper is None or not is_classification(loss):
        return None
    distance = search.properness_gap(with_class_counts(loss, 3, equal=True))
    if card.proper and distance > 1e-4:
        return f"it is declared proper, but the minimum of the expected loss is {distance:.3g} away from the truth"
    if not card.proper and distance < 1e-4:
        return "it is declared improper, but the minimum of the expected loss was at the truth"
    return None


def estimate(loss: Loss, card: Card) -> str | None:
    """The best constant prediction is the declared property of the targets."""
    if is_classification(loss) or (card.elicits is None and card.low is None):
        return None  # a loss made of others claims nothing
    found = search.best_constant(loss)
    named = {"mean": 4.0, "median": 1.0}
    if card.elicits is None:
        equal = [name for name, value in named.items() if math.isclose(found, value, abs_tol=1e-4)]
        return f"the best estimate is the {equal[0]}, which is not declared" if equal else None
    claimed = named.get(card.elicits)
    if claimed is None:  # the quantile of level q of n values is the ⌈n q⌉th
        claimed = search.TARGETS[math.ceil(len(search.TARGETS) * float(card.elicits)) - 1]
    if math.isclose(found, claimed, rel_tol=1e-3, abs_tol=1e-3):
        return None
    return f"the best estimate is {found:.6g}, declared the {card.elicits}, which is {claimed:g}"


def slope_near(loss: Loss, card: Card) -> str | None:
    """The gradient where the outputs are right behaves as declared."""
    if card.near is None:
        return None
    return _compare_slopes("near", search.gradients_near(with_class_counts(loss, 3, equal=True)), card.near)


def slope_far(loss: Loss, card: Card) -> str | None:
    """The gradient where the outputs are wrong behaves as declared."""
    if card.far is None:
        return None
    return _compare_slopes("far from", search.gradients_far(with_class_counts(loss, 3), card.overflows_at), card.far)


def classify_slope(gradients: list[float]) -> Slope:
    """The behaviour of gradients taken at increasing distances."""
    # From the fourth point on (a margin or residual of 30) a gradient of 0 counts as flat, not as rounding.
    if len(gradients) > 3 and gradients[3] == 0 and gradients[-1] == 0:
        return Slope.ZERO
    largest = max(gradients)
    # It must still be falling at the end: one that is merely smaller than an earlier peak does not fade.
    if gradients[-1] < 0.05 * largest and gradients[-1] <= 0.5 * gradients[-2]:
        return Slope.FADES
    return Slope.GROWS if gradients[-1] > 3 * gradients[-2] else Slope.STAYS


def _compare_slopes(where: str, gradients: list[float], declared: Slope) -> str | None:
    found = classify_slope(gradients)
    if found is declared:
        return None
    words = ["is exactly 0" if slope is Slope.ZERO else str(slope) for slope in (found, declared)]
    return f"{where} the target the gradient {words[0]}, declared: {words[1]}"


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

"""The claims of a card, each held against what a search finds. Each check says how it is refuted, or None."""

import math
from typing import Any

from losslab.losses.base import Loss
from losslab.losses.card import Card, Slope
from losslab.losses.contract import search
from losslab.losses.contract.sample_inputs import is_classification, with_class_counts

SIZES = (2, 3, 10)
"""Numbers of classes that formulas in K are evaluated at."""


def evaluate_formula(formula: str, loss: Loss, classes: int) -> float:
    """A formula of a card, in K and the loss's parameters, as a number."""
    import sympy  # noqa: PLC0415 -- half a second, and for cards only

    names: dict[str, Any] = {"K": classes} | {name: float(getattr(loss, name)) for name in loss.hyperparameters}
    value = sympy.sympify(formula, locals={name: sympy.Float(value) for name, value in names.items()})
    if value is sympy.nan:
        value = sympy.sympify(0)  # 0 log 0, at the end of a parameter's range
    return float(value)


def value_at_uniform_logits(loss: Loss, card: Card) -> str | None:
    """The declared formula, for several numbers of classes."""
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
    """Σ_k L(z, k) is the declared constant, or varies."""
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
    """Nothing beyond the declared bounds, and something close to each."""
    for classes in SIZES:
        ready = with_class_counts(loss, classes, equal=True)
        found = search.value_range(ready, classes, card.overflows_at)
        for number, (bound, side) in enumerate(((card.low, -1), (card.high, 1))):
            seen = found[number]
            if bound is None:
                continue
            claimed = evaluate_formula(bound, loss, classes)
            if math.isinf(claimed):
                before = search.value_range(ready, classes, card.overflows_at, near=True)[number]
                # Where the output is limited, it is targets without end that leave the value none.
                enough = 5.0 if math.isfinite(card.overflows_at) else 1.5 * max(before * side, 1.0)
                if seen * side < enough:
                    return f"it is declared unbounded, but further out {before:.6g} grows to {seen:.6g} only"
            elif (seen - claimed) * side > 1e-6 * max(1.0, abs(claimed)):
                return f"it reaches {seen:.6g}, beyond the declared bound {claimed:.6g} (with {classes} classes)"
            elif (claimed - seen) * side > max(0.05, 0.05 * abs(claimed)):
                return (
                    f"it comes no closer than {seen:.6g} to the declared bound {claimed:.6g} (with {classes} classes)"
                )
    return None


def convexity(loss: Loss, card: Card) -> str | None:
    """No chord is violated, or one is."""
    if card.convex is None:
        return None
    violation = search.convexity_violation(with_class_counts(loss, 3))
    if card.convex and violation > 0:
        return f"it is declared convex, but lies {violation:.3g} above a chord"
    if not card.convex and violation <= 0:
        return "it is declared not convex, but no chord was found to be violated"
    return None


def invariance_to_shifts(loss: Loss, card: Card) -> str | None:
    """A number added to all outputs changes nothing, or something."""
    if not is_classification(loss):
        return None
    change = search.shift_sensitivity(with_class_counts(loss, 3), 3)
    if card.shift_invariant and change > 1e-7:
        return f"it is declared invariant to shifts, but one changed it by {change:.3g}"
    if not card.shift_invariant and change <= 1e-7:
        return "it is declared not invariant to shifts, but none changed it"
    return None


def properness(loss: Loss, card: Card) -> str | None:
    """The expected loss is least at the true probabilities, or elsewhere."""
    if card.proper is None or not is_classification(loss):
        return None
    distance = search.properness_gap(with_class_counts(loss, 3, equal=True))
    if card.proper and distance > 1e-4:
        return f"it is declared proper, but the expected loss is least {distance:.3g} away from the truth"
    if not card.proper and distance < 1e-4:
        return "it is declared improper, but the expected loss was least at the truth"
    return None


def estimate(loss: Loss, card: Card) -> str | None:
    """What the best constant prediction is."""
    if is_classification(loss) or (card.elicits is None and card.low is None):
        return None  # of a loss made of others nothing is claimed
    found = search.best_constant(loss)
    known = {"mean": 4.0, "median": 1.0}
    if card.elicits is None:
        alike = [name for name, value in known.items() if math.isclose(found, value, abs_tol=1e-4)]
        return f"the best estimate is the {alike[0]}, which is not declared" if alike else None
    # Of 9 values, the level q of a quantile is met by the ⌈9 q⌉th.
    ordered = (0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 3.0, 8.0, 20.0)
    claimed = known.get(card.elicits)
    if claimed is None:
        claimed = ordered[math.ceil(9 * float(card.elicits)) - 1]
    if math.isclose(found, claimed, rel_tol=1e-3, abs_tol=1e-3):
        return None
    return f"the best estimate is {found:.6g}, declared the {card.elicits}, which is {claimed:g}"


def slope_near(loss: Loss, card: Card) -> str | None:
    """What the gradient does where the outputs are right."""
    if card.near is None:
        return None
    found = classify_slope(search.gradients_near(with_class_counts(loss, 3, equal=True)))
    return None if found is card.near else f"near the target the gradient {_said(found)}, declared: {_said(card.near)}"


def slope_far(loss: Loss, card: Card) -> str | None:
    """What the gradient does where they are wrong."""
    if card.far is None:
        return None
    found = classify_slope(search.gradients_far(with_class_counts(loss, 3), card.overflows_at))
    return (
        None if found is card.far else f"far from the target the gradient {_said(found)}, declared: {_said(card.far)}"
    )


def classify_slope(gradients: list[float]) -> Slope:
    """What a sequence of gradients, taken ever further out, does."""
    # The fourth point is where the design puts the line between truly flat and only faint (margin or residual 30).
    if len(gradients) > 3 and gradients[3] == 0 and gradients[-1] == 0:
        return Slope.ZERO
    largest = max(gradients)
    # It must still be falling at the end: a gradient that is small there beside a bump on the way does not fade.
    if gradients[-1] < 0.05 * largest and gradients[-1] <= 0.5 * gradients[-2]:
        return Slope.FADES
    return Slope.GROWS if gradients[-1] > 3 * gradients[-2] else Slope.STAYS


def _said(slope: Slope) -> str:
    return "is exactly 0" if slope is Slope.ZERO else str(slope)


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

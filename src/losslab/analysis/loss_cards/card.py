"""A card in words: what a loss declares, and what a search finds where it declares nothing."""

import math

from losslab.losses.adapter.adapted import Adapted
from losslab.losses.base import Loss
from losslab.losses.card import Card
from losslab.losses.contract import claims, search
from losslab.losses.contract.sample_inputs import is_classification, with_class_counts
from losslab.targets import Kind

_KINDS = {
    Kind.INDEX: "class indices",
    Kind.PROBABILITIES: "class probabilities",
    Kind.BINARY: "0/1 labels",
    Kind.VALUES: "values",
}
_FOUND = " (found by search)"


def facts(loss: Loss) -> dict[str, str]:
    """The facts of a loss, by their names, in words."""
    card = loss.card
    known = {"formula": card.plain, "source": card.source} if card is not None else {}
    known["targets"] = ", ".join(_KINDS[kind] for kind in loss.wants)
    for name, declared in loss.hyperparameters.items():
        value = float(getattr(loss, name))
        known[name] = f"{value:g}; {declared.meaning}; in {declared.range}; default: {declared.origin}"
    if isinstance(loss, Adapted):  # made for one number of classes, so not for the search
        return known | {"scores": loss.form.route.value}
    known |= _of_classes(loss, card) if is_classification(loss) else _of_values(loss, card)
    return known | {"note": card.note} if card is not None and card.note else known


def _of_classes(loss: Loss, card: Card | None) -> dict[str, str]:
    equal, unequal = with_class_counts(loss, 10, equal=True), with_class_counts(loss, 3)
    told = (
        {"at uniform logits": _formula(loss, card.uniform)}
        if card is not None and card.uniform
        else {"at uniform logits": f"{search.value_at_uniform_logits(equal, 10):.4f} for K = 10{_FOUND}"}
    )
    told["values"] = _bounds(loss, card)
    if card is not None:
        symmetric = f"yes: Σ_k L(z, k) = {_formula(loss, card.symmetric)}" if card.symmetric else "no"
        shift = _yes(card.shift_invariant)
    else:
        low, high = search.range_of_class_sums(unequal, 3)
        symmetric = f"{_yes(high - low < 1e-6 * max(1.0, abs(high)))}{_FOUND}"
        shift = f"{_yes(search.shift_sensitivity(unequal, 3) < 1e-7)}{_FOUND}"
    told["symmetric"], told["convex"] = symmetric, _convex(unequal, card)
    told["same after a shift of all logits"] = shift
    proper = card.proper if card is not None else None
    told["proper scoring rule"] = (
        _yes(proper)
        if proper is not None
        else f"{_yes(search.properness_gap(with_class_counts(loss, 3, equal=True)) < 1e-3)}{_FOUND}"
    )
    return told | _slopes(loss, card, "where it is right", "where it is wrong")


def _of_values(loss: Loss, card: Card | None) -> dict[str, str]:
    told = {"values": _bounds(loss, card), "convex": _convex(loss, card)}
    if card is not None:
        told["estimates"] = {None: "none of mean, median, quantile", "mean": "the mean", "median": "the median"}.get(
            card.elicits, f"the quantile of level {card.elicits}"
        )
    return told | _slopes(loss, card, "near the target", "far from it")


def _bounds(loss: Loss, card: Card | None) -> str:
    if card is None or card.low is None or card.high is None:
        low, high = search.value_range(with_class_counts(loss, 10), 10)
        reach = "10,000" if is_classification(loss) else "1e12"
        return f"{low:.4g} to {high:.4g} at outputs up to {reach}{_FOUND}"
    least, most = (claims.evaluate_formula(bound, loss, 10) for bound in (card.low, card.high))
    if math.isinf(most):
        return "unbounded on both sides" if math.isinf(least) else f"from {_formula(loss, card.low)} up, unbounded"
    return f"{_formula(loss, card.low)} to {_formula(loss, card.high)}"


def _convex(loss: Loss, card: Card | None) -> str:
    if card is not None and card.convex is not None:
        return _yes(card.convex)
    return f"{_yes(search.convexity_violation(with_class_counts(loss, 3)) <= 0)}{_FOUND}"


def _slopes(loss: Loss, card: Card | None, near: str, far: str) -> dict[str, str]:
    told: dict[str, str] = {}
    for place, declared, gradients in (
        (near, card and card.near, search.gradients_near),
        (far, card and card.far, search.gradients_far),
    ):
        found = None if declared else claims.classify_slope(gradients(with_class_counts(loss, 3)))
        slope = declared or found
        told[f"gradient {place}"] = f"{slope}{'' if declared else _FOUND}"
    return told


def _formula(loss: Loss, formula: str) -> str:
    """A formula in K and its value for ten classes; the value alone where the formula is no easier to read."""
    value = f"{claims.evaluate_formula(formula, loss, 10):.4g}"
    if value == formula:
        return value
    plain = formula.replace("**", "^").replace(" * ", " ")
    told = f"{plain} = {value}" if len(plain) <= 40 else value
    return f"{told} for K = 10" if is_classification(loss) else told


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def text(name: str, loss: Loss, width: int = 100) -> str:
    """A card for the terminal."""
    import textwrap  # noqa: PLC0415

    told = facts(loss)
    column = max(len(label) for label in told)
    lines = [name]
    for label, fact in told.items():
        lines += textwrap.wrap(
            fact, width, initial_indent=f"  {label:<{column}}  ", subsequent_indent=" " * (column + 4)
        )
    return "\n".join(lines)


def markdown(name: str, loss: Loss, summary: str, figures: str) -> str:
    """A section of docs/losses.md."""
    card = loss.card
    rows = [
        f"| {label} | {fact.replace('|', chr(92) + '|')} |" for label, fact in facts(loss).items() if label != "formula"
    ]
    formula = f"$${card.formula}$$\n\n`{card.plain}`\n" if card is not None else ""
    return "\n".join(
        [
            f"## {name}\n",
            f"{summary}\n",
            formula,
            "| | |",
            "| --- | --- |",
            *rows,
            "",
            f"![{name}]({figures}/{name}.png)",
            "",
        ]
    )

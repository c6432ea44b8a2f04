"""The facts of a loss as text: those that its `Card` declares, and others that a numerical search finds."""

import math
from collections.abc import Callable
from textwrap import wrap

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
    """Return the facts of a loss as text, by name."""
    card = loss.card
    found = {"formula": card.plain, "source": card.source} if card is not None else {}
    found["targets"] = ", ".join(_KINDS[kind] for kind in loss.wants)
    for name, declared in loss.hyperparameters.items():
        value = float(getattr(loss, name))
        found[name] = f"{value:g}; {declared.meaning}; in {declared.range}; default: {declared.origin}"
    if isinstance(loss, Adapted):  # it supports one number of classes, but the search uses several
        return found | {"scores": loss.form.route.value}
    found |= _classification_facts(loss, card) if is_classification(loss) else _regression_facts(loss, card)
    return found | {"note": card.note} if card is not None and card.note else found


def text(name: str, loss: Loss, width: int = 100) -> str:
    """Format the facts of a loss for the terminal, below the name of the loss."""
    rows = facts(loss)
    indent = max(map(len, rows)) + 4
    lines = [name]
    for label, fact in rows.items():
        lines += wrap(fact, width, initial_indent=f"  {label}".ljust(indent), subsequent_indent=" " * indent)
    return "\n".join(lines)


def markdown(name: str, loss: Loss, summary: str, figures: str) -> str:
    """Format the facts of a loss as its section of docs/losses.md.

    The summary is the first paragraph. `figures` is the folder of the figures, relative to the page.
    """
    card = loss.card
    escaped = {label: fact.replace("|", "\\|") for label, fact in facts(loss).items() if label != "formula"}
    rows = [f"| {label} | {fact} |" for label, fact in escaped.items()]
    formula = f"$${card.formula}$$\n\n`{card.plain}`\n" if card is not None else ""
    head = [f"## {name}\n", f"{summary}\n", formula, "| | |", "| --- | --- |"]
    return "\n".join([*head, *rows, "", f"![{name}]({figures}/{name}.png)", ""])


def _classification_facts(loss: Loss, card: Card | None) -> dict[str, str]:
    equal, unequal = with_class_counts(loss, 10, equal=True), with_class_counts(loss, 3)
    if card is not None and card.uniform:
        uniform = _formula(loss, card.uniform)
    else:
        uniform = f"{search.value_at_uniform_logits(equal, 10):.4f} for K = 10{_FOUND}"
    if card is not None:
        symmetric = f"yes: Σ_k L(z, k) = {_formula(loss, card.symmetric)}" if card.symmetric else "no"
    else:
        low, high = search.range_of_class_sums(unequal, 3)
        symmetric = _yes(None, lambda: high - low < 1e-6 * max(1.0, abs(high)))
    shift, proper = (card.shift_invariant, card.proper) if card is not None else (None, None)
    return {
        "at uniform logits": uniform,
        "values": _range(loss, card),
        "symmetric": symmetric,
        "convex": _convex(unequal, card),
        "same after a shift of all logits": _yes(shift, lambda: search.shift_sensitivity(unequal, 3) < 1e-7),
        "proper scoring rule": _yes(
            proper, lambda: search.properness_gap(with_class_counts(loss, 3, equal=True)) < 1e-3
        ),
    } | _slopes(loss, card, "at right outputs", "at wrong outputs")


def _regression_facts(loss: Loss, card: Card | None) -> dict[str, str]:
    found = {"values": _range(loss, card), "convex": _convex(loss, card)}
    if card is not None:
        names = {None: "none of mean, median, quantile", "mean": "the mean", "median": "the median"}
        found["estimates"] = names.get(card.elicits, f"the quantile of level {card.elicits}")
    return found | _slopes(loss, card, "near the target", "far from the target")


def _range(loss: Loss, card: Card | None) -> str:
    if card is None or card.low is None or card.high is None:
        low, high = search.value_range(with_class_counts(loss, 10), 10)
        largest = "10,000" if is_classification(loss) else "1e12"
        return f"{low:.4g} to {high:.4g} at outputs up to {largest}{_FOUND}"
    low, high = (claims.evaluate_formula(bound, loss, 10) for bound in (card.low, card.high))
    if math.isinf(high):
        return "unbounded on both sides" if math.isinf(low) else f"from {_formula(loss, card.low)} up, unbounded"
    return f"{_formula(loss, card.low)} to {_formula(loss, card.high)}"


def _convex(loss: Loss, card: Card | None) -> str:
    declared = card.convex if card is not None else None
    return _yes(declared, lambda: search.convexity_violation(with_class_counts(loss, 3)) <= 0)


def _slopes(loss: Loss, card: Card | None, near: str, far: str) -> dict[str, str]:
    slopes = ((near, card and card.near, search.gradients_near), (far, card and card.far, search.gradients_far))
    return {
        f"gradient {where}": str(declared or f"{claims.classify_slope(gradients(with_class_counts(loss, 3)))}{_FOUND}")
        for where, declared, gradients in slopes
    }


def _formula(loss: Loss, formula: str) -> str:
    """Format a formula of a `Card` with its value for K = 10. If the formula is long or a number, omit the formula."""
    value = f"{claims.evaluate_formula(formula, loss, 10):.4g}"
    if value == formula:
        return value
    plain = formula.replace("**", "^").replace(" * ", " ")
    shown = f"{plain} = {value}" if len(plain) <= 40 else value
    return f"{shown} for K = 10" if is_classification(loss) else shown


def _yes(declared: bool | None, find: Callable[[], bool]) -> str:
    """Return the declared fact as "yes" or "no"; if it is None, the result of the search `find`."""
    if declared is None:
        return f"{'yes' if find() else 'no'}{_FOUND}"
    return "yes" if declared else "no"

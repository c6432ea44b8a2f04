"""The card of a loss: facts that it declares. Tests try to refute them, and `losslab show` prints them."""

from dataclasses import dataclass, field
from enum import StrEnum

from losslab.losses.hyperparameters import Parameter

__all__ = ["BoundedCard", "Card", "Parameter", "Slope"]


class Slope(StrEnum):
    """The behaviour of the gradient as the outputs become more and more right, or more and more wrong."""

    ZERO = "exactly 0"
    """Exactly 0 beyond some output, and not only small."""
    FADES = "fades to 0"
    STAYS = "stays bounded and above 0"
    GROWS = "grows without bound"


@dataclass(frozen=True)
class Card:
    """The facts of a loss at its current hyperparameters. `losslab.losses.contract` tries to refute each of them.

    Values that depend on the number of classes are formulas in K, such as "log(K)", which are evaluated and printed.
    They may contain names of hyperparameters. None means that a loss made of other losses does not declare the fact.
    """

    formula: str
    """The formula in LaTeX."""
    plain: str
    """The formula in one line of plain text."""
    source: str
    """The paper: authors, title, year."""
    near: Slope | None = field(default=Slope.FADES, kw_only=True)
    """The gradient where the outputs are right: as the margin increases, or the residual decreases."""
    far: Slope | None
    """The gradient where the outputs are wrong: as the margin decreases, or the residual increases."""
    convex: bool | None
    """Whether the loss is convex in the outputs, for every target."""
    low: str | None = "0"
    """The infimum of the loss over outputs and class indices (or values)."""
    high: str | None = "oo"
    """The supremum of the loss; "oo" if it is unbounded."""
    uniform: str | None = None
    """The value at outputs of 0, for a class index; None for losses of values."""
    symmetric: str | None = None
    """The value of Σ_k L(z, k) if it is the same for all outputs z (such losses tolerate label noise); else None."""
    shift_invariant: bool = False
    """Whether the loss stays the same when one number is added to all outputs of an example."""
    proper: bool | None = None
    """Whether the true probabilities, and only they, minimise the expected loss; None for losses of values."""
    elicits: str | None = None
    """For losses of values, the property of the target's distribution that minimises the expected loss: "mean",
    "median", or the level of a quantile such as "0.9"; None for any other property."""
    overflows_at: float = float("inf")
    """The output at which the exact value becomes too large for float32, for losses that are exponential in it."""
    note: str = ""
    """Advice on the use of the loss."""


@dataclass(frozen=True)
class BoundedCard(Card):
    """The card of a bounded loss of softmax probabilities, with defaults that suit losses for noisy labels."""

    far: Slope | None = Slope.FADES
    convex: bool | None = False
    shift_invariant: bool = True
    proper: bool | None = False

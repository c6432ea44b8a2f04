"""The card of a loss: the facts that the loss declares. Tests try to refute them, and `losslab show` prints them."""

from dataclasses import dataclass, field
from enum import StrEnum

from losslab.losses.hyperparameters import Parameter

__all__ = ["BoundedCard", "Card", "Parameter", "Slope"]


class Slope(StrEnum):
    """The behaviour of the gradient as the outputs get closer to the target (near) or farther from it (far)."""

    ZERO = "exactly 0"
    """The gradient is exactly 0 beyond some output, not only small."""
    FADES = "fades to 0"
    STAYS = "stays bounded and above 0"
    GROWS = "grows without bound"


@dataclass(frozen=True)
class Card:
    """The facts of a loss at its current hyperparameters. `losslab.losses.contract` tries to refute each of them.

    A value such as `high` is a formula: it may contain names of hyperparameters and K, the number of classes or labels,
    such as "log(K)". None means that the loss does not declare the fact, unless the field says otherwise.
    """

    formula: str
    """The formula in LaTeX."""
    plain: str
    """The formula in one line of plain text."""
    source: str
    """The paper that introduced the loss: authors, title, year."""
    near: Slope | None = field(default=Slope.FADES, kw_only=True)
    """The gradient as the outputs get closer to the target: larger margins, or smaller residuals."""
    far: Slope | None
    """The gradient as the outputs get farther from the target: more negative margins, or larger residuals."""
    convex: bool | None
    """Whether the loss is convex in the outputs, for every target."""
    low: str | None = "0"
    """The infimum of the loss over all outputs and all class indices or target values."""
    high: str | None = "oo"
    """The supremum of the loss; "oo" if the loss is unbounded."""
    uniform: str | None = None
    """The loss at outputs of 0, for a class index; None for regression losses."""
    symmetric: str | None = None
    """The value of Σ_k L(z, k) if it is the same for all z, which makes the loss tolerate noise; None if it varies."""
    shift_invariant: bool = False
    """Whether the loss stays the same when one number is added to all outputs of an example."""
    proper: bool | None = None
    """Whether the true probabilities, and only they, minimise the expected loss; None for regression losses."""
    elicits: str | None = None
    """For regression losses, the property of the target's distribution that minimises the expected loss: "mean",
    "median", or the level of a quantile such as "0.9". None stands for any property except mean and median."""
    overflows_at: float = float("inf")
    """For losses that are exponential in the output, the output at which the loss becomes too large for float32."""
    note: str = ""
    """Advice on the use of the loss."""


@dataclass(frozen=True)
class BoundedCard(Card):
    """The card of a bounded loss of softmax probabilities. Its defaults suit losses for noisy labels."""

    far: Slope | None = Slope.FADES
    convex: bool | None = False
    shift_invariant: bool = True
    proper: bool | None = False

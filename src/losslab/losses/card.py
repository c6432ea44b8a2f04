"""The card of a loss: facts that it declares, which tests try to refute and pages print."""

from dataclasses import dataclass, field
from enum import StrEnum

from losslab.losses.hyperparameters import Parameter

__all__ = ["BoundedCard", "Card", "Parameter", "Slope"]


class Slope(StrEnum):
    """The behaviour of a loss's gradient towards one end of its curve."""

    ZERO = "exactly 0"
    """0 from some distance on, not only small: such examples teach nothing."""
    FADES = "fades to 0"
    STAYS = "stays"
    """Bounded, and bounded away from 0."""
    GROWS = "grows without bound"


@dataclass(frozen=True)
class Card:
    """The facts of a loss at its current hyperparameters. `losslab.losses.contract` tries to refute each of them.

    Values that depend on the number of classes are formulas in K, such as "log(K)", which are both evaluated and
    printed. They may name the loss's hyperparameters. A loss made of other losses may leave a fact open with None.
    """

    formula: str
    """LaTeX."""
    plain: str
    """The formula in one line of plain text."""
    source: str
    """Authors, title, year."""
    near: Slope | None = field(default=Slope.FADES, kw_only=True)
    """The gradient where the outputs are right: as the margin grows, or the residual shrinks."""
    far: Slope | None
    """The gradient where the outputs are wrong: as the margin falls, or the residual grows."""
    convex: bool | None
    """Whether it is convex in the outputs, for every target."""
    low: str | None = "0"
    """The infimum of the loss over outputs and class indices (or values)."""
    high: str | None = "oo"
    """The supremum; "oo" if there is none."""
    uniform: str | None = None
    """The value at outputs of 0, for a class index; None for losses of values."""
    symmetric: str | None = None
    """The value of Σ_k L(z, k) if it is the same for all outputs z (such losses tolerate label noise); else None."""
    shift_invariant: bool = False
    """Whether adding one number to all outputs of an example changes nothing."""
    proper: bool | None = None
    """Whether the true probabilities, and only they, minimise the expected loss; None for losses of values."""
    elicits: str | None = None
    """For losses of values, the property of the target's distribution that minimises the expected loss: "mean",
    "median", or the level of a quantile such as "0.9"; None if it has no such name."""
    overflows_at: float = float("inf")
    """The output from which on the exact value is too large for float32, where a loss is exponential in it."""
    note: str = ""
    """Anything else to know before using it."""


@dataclass(frozen=True)
class BoundedCard(Card):
    """The card of a bounded loss of softmax probabilities. By default it is not proper, as losses for noisy labels."""

    far: Slope | None = Slope.FADES
    convex: bool | None = False
    shift_invariant: bool = True
    proper: bool | None = False

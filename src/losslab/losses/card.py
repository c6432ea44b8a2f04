"""What a loss declares about itself, so that tests can look for a counterexample and pages can print it."""

from dataclasses import dataclass
from enum import StrEnum
from math import isnan


class Slope(StrEnum):
    """What the gradient of a loss does at one end of its curve."""

    ZERO = "exactly 0"
    """From some distance on it is 0, not only small: such examples teach nothing."""
    FADES = "fades to 0"
    STAYS = "stays"
    """Bounded, and bounded away from 0."""
    GROWS = "grows without bound"


@dataclass(frozen=True)
class Parameter:
    """A numeric parameter of a loss."""

    meaning: str
    """In a few words, with its letter in the formula."""
    range: str
    """An interval such as "(0, 1]" or "[0, inf)": where the loss is defined, checked by `Loss.hold`."""
    origin: str
    """Where the default value comes from."""
    tried: tuple[float, ...]
    """Values worth comparing: figures show them, and the contract holds at each."""

    def holds(self, value: float) -> bool:
        """Whether a value lies in the range."""
        low, high = self.ends
        above = value > low if self.range[0] == "(" else value >= low
        below = value < high if self.range[-1] == ")" else value <= high
        return above and below and not isnan(value)

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper end of the range."""
        low, high = self.range[1:-1].split(",")
        return float(low), float(high)


@dataclass(frozen=True)
class Card:
    """The facts of a loss at the parameters it has. Each is a claim that `losslab.losses.contract` tries to refute.

    Values that depend on the number of classes are formulas in K, such as "log(K)", which are evaluated and printed
    alike. They may name the loss's hyperparameters. Only losses that are made of others leave a fact open with None.
    """

    formula: str
    """LaTeX."""
    plain: str
    """The same in one line of plain text."""
    source: str
    """Authors, title, year."""
    near: Slope | None
    """The gradient where the outputs are right: a margin that grows, a residual that shrinks."""
    far: Slope | None
    """The gradient where they are wrong: a margin that falls, a residual that grows."""
    convex: bool | None
    """In the outputs, for every target."""
    low: str | None = "0"
    """The greatest lower bound of the value, over outputs and class indices (or values)."""
    high: str | None = "oo"
    """The least upper bound; "oo" where there is none."""
    uniform: str | None = None
    """The value where all outputs are 0, for a class index; None for losses of values."""
    symmetric: str | None = None
    """What Σ_k L(z, k) is if it is the same for all outputs z (such losses tolerate label noise); None if it varies."""
    shift_invariant: bool = False
    """Whether adding one number to all outputs of an example changes nothing."""
    proper: bool | None = None
    """Whether the expected loss is least at, and only at, the true probabilities; None for losses of values."""
    elicits: str | None = None
    """For losses of values, what of the target's distribution minimises the expected loss: "mean", "median", or the
    level of a quantile such as "0.9"; None if it has no such name."""
    overflows_at: float = float("inf")
    """The output from which on the exact value is too large for float32: where a loss is exponential in it."""
    note: str = ""
    """What else one should know before using it."""

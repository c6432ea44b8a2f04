"""Explanations of finished runs: figures of what a run has learned. Imports no torch.

Each explanation is a module with a function `explain(runs, output)`, or `explain(runs, output, options)` if it takes
LandscapeOptions. The function draws into the folder `output`, or by default into figures/ of a single run, logs its
findings, and returns the paths of the figures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from losslab.errors import LabError

LIMITS = {"points": (2, 1001), "examples": (2, 2**63 - 1), "seed": (0, 2**63 - 1)}
"""Smallest and largest value of each integer option."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}
"""Name of each split in a sentence."""
CHECKPOINTS = ("best", "last")


def validate_integer(name: str, value: Any) -> int:
    """Check the value of an option in `LIMITS` and return it.

    Raises:
        LabError: the value is not an integer or is outside its limits.
    """
    low, high = LIMITS[name]
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        most = f"to {high}" if high < 2**63 - 1 else "to 2⁶³ - 1"
        raise LabError(f"{name} must be an integer from {low} {most}, got {value!r}")
    return value


@dataclass(frozen=True)
class LandscapeOptions:
    """Options of `landscape` and `barrier`, which evaluate a network at many points of weight space.

    Raises:
        LabError: a value is invalid.
    """

    points: int = 21
    """Number of points along each side of a plane, or on a line, whose ends are included."""
    examples: int = 1000
    """Maximum number of examples, which are drawn from the split and not augmented."""
    split: str = "train"
    """Split of the examples: "train", "val" or "test"."""
    seed: int = 0
    """Seed for the choice of examples and for the random directions."""
    ckpt: str = "best"
    """Checkpoint with the weights: "best" or "last"."""

    def __post_init__(self) -> None:
        for name in LIMITS:
            validate_integer(name, getattr(self, name))
        for name, allowed in (("split", SPLITS), ("ckpt", CHECKPOINTS)):
            if getattr(self, name) not in allowed:
                raise LabError(f"{name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")


DEFAULTS = LandscapeOptions()


class Explanation(NamedTuple):
    """An explanation that `losslab explain` can draw."""

    module_name: str
    applies: Callable[[dict[str, Any]], bool]
    """Function that returns whether the explanation can be drawn for a run with this configuration."""
    needs: str
    """Name for the runs to which the explanation applies, for messages."""
    takes_options: bool = False

    @property
    def module(self) -> ModuleType:
        """The module with the function `explain`; its import may import torch."""
        return import_module(self.module_name)


def _is_linear(config: dict[str, Any]) -> bool:
    return bool(config["model"]["_target_"] == "losslab.models.linear.linear")


def _is_network(config: dict[str, Any]) -> bool:
    return not _is_linear(config)


def _records_dynamics(config: dict[str, Any]) -> bool:
    return bool((config.get("callbacks") or {}).get("dynamics"))


_NETWORK = "a run of a network (for a linear model use --what linear)"
EXPLANATIONS = {
    "linear": Explanation(f"{__name__}.linear", _is_linear, "a run of the linear model (model=linear)"),
    "landscape": Explanation(f"{__name__}.landscape", _is_network, _NETWORK, takes_options=True),
    "barrier": Explanation(f"{__name__}.barrier", _is_network, _NETWORK, takes_options=True),
    "dynamics": Explanation(f"{__name__}.dynamics", _records_dynamics, "a run with callbacks=dynamics"),
}
"""All explanations, by the names that the option --what accepts."""

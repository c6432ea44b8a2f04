"""Explanations: figures of what finished runs learnt and how, one module each. Imports no torch.

Each module has `explain(runs, output)`, or `explain(runs, output, options)` where it takes LandscapeOptions. It draws
into `output`, or into the figures/ of the one run, logs a line for each finding, and returns the paths of the figures.
"""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

Config = dict[str, Any]


class Explanation(NamedTuple):
    """An explanation that `losslab explain` can draw."""

    module_name: str
    applies: Callable[[Config], bool]
    """Whether it can explain a run with this configuration."""
    needs: str
    """The kind of run it needs, in words."""
    takes_options: bool = False

    @property
    def module(self) -> ModuleType:
        """The module with `explain`; importing it may import torch."""
        return import_module(self.module_name)


def _is_linear(config: Config) -> bool:
    return bool(config["model"]["_target_"] == "losslab.models.linear.linear")


def _is_network(config: Config) -> bool:
    return not _is_linear(config)


def _records_dynamics(config: Config) -> bool:
    return bool((config.get("callbacks") or {}).get("dynamics"))


_NETWORK = "a run of a network (for a linear model see `linear`)"
EXPLANATIONS = {
    "linear": Explanation(f"{__name__}.linear", _is_linear, "a run of the linear model (model=linear)"),
    "landscape": Explanation(f"{__name__}.landscape", _is_network, _NETWORK, takes_options=True),
    "barrier": Explanation(f"{__name__}.barrier", _is_network, _NETWORK, takes_options=True),
    "dynamics": Explanation(f"{__name__}.dynamics", _records_dynamics, "a run with callbacks=dynamics"),
}
"""By the name that `--what` takes."""

"""Finds out whether a callback of the user makes the measured weights differ from the saved ones."""

import logging
from collections.abc import Mapping
from math import isclose, nan
from typing import Any

from lightning import Trainer
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

logger = logging.getLogger("losslab")


class MeasuredWeights:
    """Remembers the norm of all weights, and logs a warning if it differs later.

    It costs nothing if all callbacks are of losslab or Lightning, or on other ranks than the first.
    """

    def __init__(self) -> None:
        self._norm = nan
        self._callbacks = ""

    def setup(self, trainer: Trainer) -> None:
        """Find the callbacks of the user."""
        kinds = [type(each) for each in trainer.callbacks]  # type: ignore[attr-defined]
        own = [kind.__name__ for kind in kinds if not kind.__module__.startswith(("losslab.", "lightning."))]
        self._callbacks = ", ".join(own) if trainer.is_global_zero else ""

    def remember(self, module: nn.Module, state: Mapping[str, Any] | None = None) -> None:
        """Remember the weights of a module, or those in a `state_dict` of it."""
        if self._callbacks:
            self._norm = _norm(module, state)

    def compare(self, module: nn.Module, problem: str, state: Mapping[str, Any] | None = None) -> None:
        """Log the problem if the weights of the module, or in the `state_dict`, are not those last remembered."""
        if self._callbacks and not isclose(self._norm, _norm(module, state), rel_tol=1e-5):
            logger.warning("callbacks (%s): %s", self._callbacks, problem)
            self._callbacks = ""  # once is enough


def _norm(module: nn.Module, state: Mapping[str, Tensor] | None) -> float:
    named = module.named_parameters()
    return get_total_norm([weight.detach() if state is None else state[name] for name, weight in named]).item()

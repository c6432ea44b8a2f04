"""Finds out whether a callback of the user makes the measured weights differ from the saved ones."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor

from losslab.models.learner import Learner

logger = logging.getLogger("losslab")


class MeasuredWeights:
    """Copies the weights and the buffers of the network, and logs a warning if they differ later.

    It costs nothing if all callbacks are of losslab or Lightning, or on other ranks than the first.
    """

    def __init__(self) -> None:
        self._copies: dict[str, Tensor] = {}
        self._callbacks = ""

    def setup(self, trainer: Trainer) -> None:
        """Find the callbacks of the user."""
        kinds = [type(each) for each in trainer.callbacks]  # type: ignore[attr-defined]
        libraries = ("losslab.", "lightning.")
        own = [kind.__name__ for kind in kinds if not kind.__module__.startswith(libraries) or kind is LambdaCallback]
        self._callbacks = ", ".join(own) if trainer.is_global_zero else ""

    def remember(self, learner: Learner, state: Mapping[str, Any] | None = None) -> None:
        """Remember the weights of a learner, or those in a `state_dict` of it."""
        if self._callbacks:
            self._copies = {name: tensor.detach().clone() for name, tensor in _tensors(learner, state).items()}

    def compare(self, learner: Learner, problem: str, state: Mapping[str, Any] | None = None) -> None:
        """Log the problem if the weights of the learner, or in the `state_dict`, are not those last remembered."""
        if not self._callbacks:
            return
        pairs = [(self._copies[name], tensor) for name, tensor in _tensors(learner, state).items()]
        if not all(torch.allclose(old.to(new), new, rtol=0, atol=0, equal_nan=True) for old, new in pairs):
            logger.warning("callbacks (%s): %s", self._callbacks, problem)
            self._callbacks = ""  # once is enough


def _tensors(learner: Learner, state: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
    saved = learner.network.state_dict(prefix="network.") | dict(learner.named_parameters())
    chosen = saved if state is None else {name: state[name] for name in saved}
    return {name: value for name, value in chosen.items() if isinstance(value, Tensor)}  # not an extra state

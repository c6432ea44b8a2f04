"""Lookahead: weights that run ahead, and slow ones that follow and call them back."""

from math import inf
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from losslab.errors import LabError
from losslab.models.learner import Learner


class Lookahead(Callback):
    """Every few steps slow weights move towards the fast ones, and these go on from there (Zhang et al. 2019).

    As in Jordan 2024 (arXiv 2404.00498): a slow weight becomes d · slow + (1 - d) · fast, where d rises with the cube
    of the time passed, from 0 to `decay` when the run ends. Running statistics are averaged likewise. The last step
    is always such a one, so that what is validated, tested and kept are the slow weights.

    Args:
        every: so many steps.
        decay: the share of the slow weights that stays, at the end of the run.
    """

    def __init__(self, every: int = 5, decay: float = 0.95**5) -> None:
        if every < 1 or not 0 <= decay <= 1:
            raise LabError(f"lookahead needs every ≥ 1 and decay in 0..1: got every={every}, decay={decay}")
        self.every, self.decay = every, decay
        self.slow: list[Tensor] = []
        self._last = 0
        self._done = 0

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        steps = trainer.estimated_stepping_batches
        if steps == inf:
            raise LabError("lookahead needs an end: set trainer.max_epochs or trainer.max_steps")
        self._last, self._done = int(steps), trainer.global_step
        fast = _fast(pl_module)
        # A resumed run brings its slow weights along; they may lie on another device.
        self.slow = [old.to(new) for old, new in zip(self.slow, fast, strict=True)] if self.slow else _copies(fast)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Learner, outputs: Any, batch: Any, batch_idx: int
    ) -> None:  # fmt: skip
        step = trainer.global_step
        if step == self._done or (step % self.every and step != self._last):
            return
        self._done = step  # a step of several accumulated batches ends once
        decay = self.decay * (step / self._last) ** 3
        for slow, fast in zip(self.slow, _fast(pl_module), strict=True):
            slow.lerp_(fast, 1 - decay)
            fast.copy_(slow)

    def state_dict(self) -> dict[str, Any]:
        return {"slow": self.slow}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.slow = state_dict["slow"]


def _fast(learner: Learner) -> list[Tensor]:
    """The network's weights and running statistics themselves, detached."""
    return [tensor for tensor in learner.network.state_dict().values() if tensor.is_floating_point()]


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [torch.clone(tensor) for tensor in tensors]

"""The callback for Lookahead: slow weights that follow the trained weights and replace them every few steps."""

from math import inf
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from losslab.errors import LabError
from losslab.models.learner import Learner


class Lookahead(Callback):
    """Every few steps, moves slow weights towards the trained (fast) weights, and then copies them to the fast weights.

    From Zhang et al. 2019. As in Jordan 2024 (arXiv 2404.00498), slow = d · slow + (1 - d) · fast, where d is
    `decay` times the cube of the fraction of steps completed. Running statistics are averaged in the same way. The last
    step is always followed by this update, so that the slow weights are validated, tested and saved.

    Args:
        every: the number of steps between two updates.
        decay: the value of d at the end of the run.
    """

    def __init__(self, every: int = 5, decay: float = 0.95**5) -> None:
        if every < 1 or not 0 <= decay <= 1:
            raise LabError(f"lookahead needs every ≥ 1 and decay in 0..1: got every={every}, decay={decay}")
        self.every, self.decay = every, decay
        self.slow: list[Tensor] = []
        self._last_step = 0
        self._updated_at = 0

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        steps = trainer.estimated_stepping_batches
        if steps == inf:
            raise LabError("lookahead needs a limited run: set trainer.max_epochs or trainer.max_steps")
        self._last_step, self._updated_at = int(steps), trainer.global_step
        fast = _fast_weights(pl_module)
        # A resumed run has slow weights from its checkpoint, possibly on another device.
        self.slow = self.slow or list(map(torch.clone, fast))
        self.slow = [slow.to(weight) for slow, weight in zip(self.slow, fast, strict=True)]

    def on_train_batch_end(self, trainer: Trainer, pl_module: Learner, *_: Any) -> None:
        step = trainer.global_step
        if step == self._updated_at or (step % self.every and step != self._last_step):
            return
        self._updated_at = step  # with accumulated batches, this hook is called several times for one step
        decay = self.decay * (step / self._last_step) ** 3
        for slow, fast in zip(self.slow, _fast_weights(pl_module), strict=True):
            slow.lerp_(fast, 1 - decay)
            fast.copy_(slow)

    def state_dict(self) -> dict[str, Any]:
        return {"slow": self.slow}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.slow = state_dict["slow"]


def _fast_weights(learner: Learner) -> list[Tensor]:
    """Return the network's weights and running statistics, detached but not copied."""
    return [tensor for tensor in learner.network.state_dict().values() if tensor.is_floating_point()]

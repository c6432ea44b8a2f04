"""Global state that training sets: random generators and flags of torch. Programs that call losslab keep their own."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any, Self

import numpy as np
import torch

_VARIABLES = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG")
"""The environment variables that Lightning sets: with a seed, and with trainer.deterministic."""
_in_use = RLock()
"""Held by the thread that uses the global state: two runs at once would draw each other's random numbers."""


@dataclass(frozen=True)
class GlobalState:
    """The state of all random generators, the flags of torch, and Lightning's environment variables."""

    of_python: Any
    of_numpy: Any
    of_torch: torch.Tensor
    of_cuda: list[torch.Tensor]
    dtype: torch.dtype
    deterministic: tuple[bool, bool, bool, bool]
    """torch.use_deterministic_algorithms, its warn_only, and deterministic and benchmark of cuDNN."""
    variables: dict[str, str | None]

    @classmethod
    def current(cls) -> Self:
        """Return the current state."""
        return cls(
            random.getstate(),
            np.random.get_state(),  # noqa: NPY002 -- the generator that seed_everything seeds
            torch.get_rng_state(),
            torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            torch.get_default_dtype(),
            (
                torch.are_deterministic_algorithms_enabled(),
                torch.is_deterministic_algorithms_warn_only_enabled(),
                torch.backends.cudnn.deterministic,
                torch.backends.cudnn.benchmark,
            ),
            {name: os.environ.get(name) for name in _VARIABLES},
        )

    def restore(self) -> None:
        """Make this the current state."""
        random.setstate(self.of_python)
        np.random.set_state(self.of_numpy)  # noqa: NPY002
        torch.set_rng_state(self.of_torch)
        if self.of_cuda:
            torch.cuda.set_rng_state_all(self.of_cuda)
        torch.set_default_dtype(self.dtype)
        enabled, warn_only, torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = self.deterministic
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        for name, value in self.variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def global_state(state: GlobalState | None = None) -> Iterator[None]:
    """Within this context, use another global state, by default a copy of the current one. Restore it afterwards.

    Other threads wait until this thread has left the context.
    """
    with _in_use:
        before = GlobalState.current()
        if state is not None:
            state.restore()
        try:
            yield
        finally:
            before.restore()

"""The processes of a run do at the same step what one of them wishes."""

import torch
from torch import Tensor, distributed

SAVE = 1
"""The wish for a checkpoint. SAVE + the number of a signal: a checkpoint, and then to end."""


class Agreement:
    """The greatest wish of all processes, known to all after the same step.

    Each says after each step what it wishes, and hears then what was wished after the step before: nobody waits for
    the slowest. One process alone hears at once.
    """

    def __init__(self) -> None:
        self._asked: tuple[Tensor, distributed.Work] | None = None
        self._agreed = 0

    def ask(self, wish: int) -> int:
        """Say what this process wishes, 0 for nothing → what is to be done, until it is `done`."""
        if not (distributed.is_available() and distributed.is_initialized()):
            self._agreed = max(self._agreed, wish)
            return self._agreed
        self._hear()
        numbers = torch.tensor(wish)  # on the CPU, so that no GPU is waited for
        work = distributed.all_reduce(numbers, distributed.ReduceOp.MAX, async_op=True)
        assert work is not None  # noqa: S101 -- of this group, of which this process is one
        self._asked = numbers, work
        return self._agreed

    def settle(self, wish: int) -> int:
        """The same, but hear now what all wish now."""
        self.ask(wish)
        self._hear()
        return self._agreed

    def done(self) -> int:
        """What was to be done is done → what it was."""
        agreed, self._agreed = self._agreed, 0
        return agreed

    def _hear(self) -> None:
        if self._asked is not None:
            numbers, work = self._asked
            work.wait()
            self._agreed, self._asked = max(self._agreed, int(numbers)), None

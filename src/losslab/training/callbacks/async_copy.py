"""Copies from a GPU to the host that do not block the host."""

from typing import Any

import torch
from torch import Tensor


class AsyncHostCopy:
    """A copy of a tensor (N,) on the host, started now and read later.

    Reading a number from a GPU waits for everything that was queued before. This queues a copy to pinned memory
    instead; one step later it has usually completed. On other devices the tensor is cloned.

    Args:
        values: the tensor, on any device. It may be overwritten as soon as the constructor returns.
    """

    def __init__(self, values: Tensor) -> None:
        self._copied: Any = None
        if values.device.type == "cuda":
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()
        else:
            self._host = values.clone()

    def read(self) -> Tensor:
        """Return the values, on the host."""
        if self._copied is not None:
            self._copied.synchronize()  # waits only for the copy, not for work queued after it
        return self._host

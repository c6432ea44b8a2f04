"""Numbers on their way from a device, which goes on computing meanwhile."""

from typing import Any

import torch
from torch import Tensor


class Later:
    """A tensor (N,) that was asked for now and is read later.

    To ask a GPU for a number is to wait until it has done all that it was given. So it is told to put the number into
    the host's memory when it gets there; read one step later, it has long been there. Elsewhere nothing waits.

    Args:
        values: of any device. They may be overwritten as soon as this returns.
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
        """The values, on the host."""
        if self._copied is not None:
            self._copied.synchronize()  # with the copy alone: what was given to the device after it keeps running
        return self._host

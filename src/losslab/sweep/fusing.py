"""Forms groups of jobs that train as one (`hydra.launcher.fuse`). Imports no torch."""

from typing import Literal

from losslab.errors import LabError

Fuse = int | Literal["auto"] | None
"""The largest number of jobs in a group; "auto": groups where they are faster; None: every job runs by itself."""


def parse_fuse(fuse: object) -> Fuse:
    """Return the value of `hydra.launcher.fuse`.

    Raises:
        LabError: it is not valid.
    """
    if fuse == "auto":
        return "auto"
    if fuse is None or (isinstance(fuse, int) and not isinstance(fuse, bool) and fuse >= 2):
        return fuse
    raise LabError(f"hydra.launcher.fuse must be 2 or more, auto, or null: got {fuse!r}")

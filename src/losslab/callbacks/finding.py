"""A number that is NaN or infinite: what is said of it, and which of several processes' is the cause."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import distributed

_CURE = "lower optimizer.lr, clip with trainer.gradient_clip_val=1, or look at the data"


@dataclass(frozen=True)
class Moment:
    """When it was: all count from 1."""

    step: int
    epoch: int
    batch: int


@dataclass(frozen=True)
class Finding:
    """A loss, gradient or weight that is NaN or infinite, and where it is met first."""

    what: str
    where: str
    under: str
    """The loss, and of a sum its terms that are not finite."""
    moment: Moment
    rank: str = ""
    """The process; empty where there is but one."""
    shared: bool = False
    """Whether the processes have summed it, and this one has added nothing that is not finite."""

    def __str__(self) -> str:
        when = f"step {self.moment.step} (epoch {self.moment.epoch}, batch {self.moment.batch}{self.rank})"
        return f"{when}: a {self.what} became NaN or infinite under {self.under}, first in {self.where}; {_CURE}"


def cause(findings: Sequence[Finding | None]) -> Finding | None:
    """What to name of the findings of all processes, by rank: one that is a process's own, before a sum's."""
    named = [replace(found, rank=f", rank {rank}") for rank, found in enumerate(findings) if found is not None]
    own = [found for found in named if not found.shared]
    if own or len(named) < len(findings):  # a sum that is not the same everywhere went wrong where it was found
        return next(iter(own or named), None)
    return replace(named[0], rank=", every rank")


def gathered(mine: Finding | None) -> Finding | None:
    """The cause among the findings of all processes, on each of them. All must call it."""
    findings: list[Finding | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(findings, mine)
    return cause(findings)

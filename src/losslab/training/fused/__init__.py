"""Trains several runs as one, with stacked parameters. This module imports no torch.

The jobs of a sweep with `hydra.launcher.fuse` form groups. `group.train_group` trains a group in one process, and each
member of the group writes an ordinary run folder.
"""

from dataclasses import dataclass
from typing import Any

REFUSAL = "cannot be fused"
"""How the reason begins for which a member is not trained in a group, but must be trained alone."""


@dataclass(frozen=True)
class FusedMember:
    """A job of a sweep that trains as a member of a group."""

    number: int
    """The number of the job."""
    config: dict[str, Any]
    """The resolved configuration."""
    finished: bool
    """Whether its run is already finished (metrics.json exists). Nothing is written, but it keeps its place."""
    resumes: bool
    """Whether its folder already contains a run (config.json)."""


@dataclass(frozen=True)
class MemberResult:
    """How the training of a member ended."""

    value: float | None = None
    """The metric that a sweeper optimises."""
    reason: str | None = None
    """Why the member failed, in one line; None for success."""
    seconds: float = 0.0
    """Its share of the duration of the group."""

"""A lesson: a preset of conf/experiment, what its runs are to show, and the words around it."""

from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

from curriculum.preset import Preset
from curriculum.sight import Sight


@dataclass(frozen=True)
class Claim:
    """What is to come out: asserted of the kept numbers, and of smaller runs in every test."""

    group: str
    """Which group, by what tells it from the others of its panel, such as "loss=huber"."""
    metric: str
    verdict: str
    """Of its difference from the baseline: better, worse, not distinguishable."""
    low: float = -inf
    """The least that its mean may be, in the kept numbers."""
    high: float = inf
    again: bool = True
    """Whether the smaller runs of a test are enough to see it."""


@dataclass(frozen=True)
class Panel:
    """A table: groups of one circumstance, compared with one of them."""

    title: str
    baseline: str
    metrics: tuple[str, ...]
    claims: tuple[Claim, ...]
    within: str = ""
    """What all its groups share, such as "noise.rate=0.4", and is not said again; "" for all groups."""


@dataclass(frozen=True)
class Lesson:
    """One section of docs/lessons.md."""

    name: str
    """Of its preset, heading and figure."""
    title: str
    finding: str
    """What the figure shows, in one line."""
    panels: tuple[Panel, ...]
    sight: Sight
    sees: str
    why: str
    tries: str
    quick: tuple[str, ...] = ()
    """By what the preset is made small enough for a test."""
    seeds: int = 3
    """Of these smaller runs."""
    left_out: tuple[str, ...] = ()
    """Circumstances that are not run again in tests."""

    @cached_property
    def preset(self) -> Preset:
        """As it stands in conf/experiment."""
        return Preset.read(self.name)

    @property
    def said(self) -> dict[str, Any]:
        """What decides its numbers."""
        return {"command": self.preset.command, "preset": self.preset.body}

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that its panels compare by."""
        return tuple(dict.fromkeys(metric for panel in self.panels for metric in panel.metrics))

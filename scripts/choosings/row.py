"""A row of the decision table, and the commands that show it."""

import shlex
from dataclasses import dataclass

SEEDS = 4
BARE = ("callbacks=none", "logger=none")
"""Nothing is saved but the final values, which are then those of the last epoch's weights."""


@dataclass(frozen=True)
class Trial:
    """A sweep over some losses and all seeds."""

    settings: tuple[str, ...]
    bare: bool = True
    seeds: int = SEEDS
    label: str = ""
    """What the page calls it; by default, what of its settings is its own."""

    @property
    def command(self) -> str:
        """As it is typed, and as it was run."""
        seeds = ",".join(map(str, range(self.seeds)))
        return shlex.join(["python", "train.py", "-m", *self.settings, f"seed={seeds}", *(BARE if self.bare else ())])


@dataclass(frozen=True)
class Row:
    """A situation, the loss to take first, and how far this project's data show that it is one to take."""

    name: str
    """Of its heading's anchor and of its runs."""
    situation: str
    first: str
    compare: str
    reason: str
    source: str
    trials: tuple[Trial, ...]
    metrics: tuple[str, ...]
    baseline: str
    """The label of the runs that the others are compared with; "" for none."""
    levels: bool = False
    """Whether the runs are to reach the level τ of their label, and not compared with each other."""
    before: str = ""
    """A command that the trials need to have been run."""
    gap: str = ""
    """What the project's data cannot show."""
    tested: int = 270
    """Test examples of a classifier: 15 % of the digits, unless it says otherwise."""

    @property
    def commands(self) -> list[str]:
        """All that is typed, in order."""
        return [*filter(None, [self.before]), *(trial.command for trial in self.trials)]

    @property
    def said(self) -> dict[str, list[str]]:
        """What decides its numbers."""
        return {"commands": self.commands}

    def step(self, metric: str) -> float:
        """What a metric changes by at least: one test example of an accuracy, anything else by nothing."""
        return 1 / self.tested if metric == "test/accuracy" else 0.0

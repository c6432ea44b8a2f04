"""A row of the decision table: a task, the recommended loss, and the experiments that compare it with other losses."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pages.choosing_guide.measures import measure
from pages.experiments import Result, expand, run_sweep
from pages.freshness import compose
from pages.study import Study

SEEDS = 4
BARE = ("callbacks=none", "logger=none")
"""Overrides with which a run saves only its final values, measured with the weights of the last epoch."""


@dataclass(frozen=True)
class Sweep:
    """A sweep over losses and seeds."""

    settings: tuple[str, ...]
    bare: bool = True
    seeds: int = SEEDS
    label: str = ""
    """Label of its runs on the page; "" for the settings in which it differs from the other sweeps."""

    @property
    def command(self) -> str:
        """Shell command that runs the sweep, as shown on the page."""
        seeds = ",".join(map(str, range(self.seeds)))
        return shlex.join(["python", "train.py", "-m", *self.settings, f"seed={seeds}", *(BARE if self.bare else ())])


@dataclass(frozen=True)
class Sweeps:
    """An experiment of sweeps, in which nothing is tuned."""

    name: str
    sweeps: tuple[Sweep, ...]
    metrics: tuple[str, ...]
    baseline: str = ""
    """Label of the runs with which the others are compared; "" for no comparison."""
    levels: bool = False
    """Whether to compare each run with the τ in its label instead of with a baseline."""
    test_examples: int = 270
    """Number of test examples of a classification task: by default 15 % of the digits."""

    @property
    def commands(self) -> list[str]:
        """All commands, in the order in which they are run."""
        return [sweep.command for sweep in self.sweeps]

    @property
    def definition(self) -> dict[str, list[str]]:
        """What determines the results: the commands."""
        return {"commands": self.commands}

    resumable = False

    def configurations(self) -> list[dict[str, Any]]:
        """Compose the configuration of each run."""
        return compose(job for command in self.commands for job in expand(command))

    def step(self, metric: str) -> float:
        """Smallest possible change of a metric: one test example for an accuracy, 0 for other metrics."""
        return 1 / self.test_examples if metric == "test/accuracy" else 0.0

    def run(self, work_dir: Path, results_dir: Path) -> list[Result]:  # noqa: ARG002 -- writes no additional files
        """Run the commands and measure each run."""
        return [result for sweep in self.sweeps for result in self._run_sweep(sweep, work_dir)]

    def _run_sweep(self, sweep: Sweep, work_dir: Path) -> list[Result]:
        folder = run_sweep(sweep.command, work_dir)
        results = []
        for job in json.loads((folder / "summary.json").read_text())["jobs"]:
            values = dict(override.split("=", 1) for override in job["overrides"])
            label = sweep.label or self.label(job["overrides"])
            for metric in self.metrics:
                value = measure(metric, folder / job["folder"], job["metrics"])
                results.append(Result(self.name, label, int(values["seed"]), metric, value))
        return results

    def label(self, overrides: list[str]) -> str:
        """Label of a run: its loss, and the overrides that differ between the sweeps without an explicit label."""
        sweeps = [sweep.settings for sweep in self.sweeps if not sweep.label]
        shared = set.intersection(*map(set, sweeps)) if len(sweeps) > 1 else set()
        settings = [setting for sweep in sweeps for setting in sweep]
        own = [setting for setting in settings if setting not in shared] if len(sweeps) > 1 else []
        swept = [setting for setting in settings if "," in setting and "[" not in setting]
        keys = {setting.partition("=")[0] for setting in (*own, *swept)} | {"loss"}
        hidden = shared.union(BARE)
        return " ".join(each for each in overrides if each.partition("=")[0] in keys and each not in hidden)


def study(name: str, *overrides: str, setup: str = "") -> Study:
    """Return a study whose arguments are written as in a shell."""
    return Study(name, tuple(shlex.split(" ".join(overrides))), setup)


@dataclass(frozen=True)
class Situation:
    """A task, the loss to try first, the reason, and the experiments that test this choice."""

    title: str
    first: str
    """The loss that the source recommends, which is the reference of the study."""
    reason: str
    source: str
    experiments: tuple[Study | Sweeps, ...]
    """The first one has the anchor of the section as its name."""
    recommended: tuple[str, ...] = ()
    """Labels of further rows that the source recommends, such as "cross_entropy + temperature"."""
    words: Mapping[str, str] = field(default_factory=dict)
    """Replacements for labels of the study, or for overrides in them; "" to leave an override out."""
    limits: str = ""
    """Notes on the data and the metrics, and what the runs cannot show."""

    @property
    def name(self) -> str:
        """Anchor of the section on the page."""
        return self.experiments[0].name

"""A lesson: an experiment of conf/experiment, the claims that its runs must confirm, and its text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import inf
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from losslab.analysis.compare import Group, MetricComparison, Run, compare
from losslab.analysis.compare.differences import compare_metric
from losslab.runs import RunFolder
from pages.experiments import ROOT, RUN_OPTIONS, Result, run_sweep
from pages.freshness import compose
from pages.lessons.curves import CurvesSpec, collect_points, write_points

_PART = re.compile(r"^# (Question|Command|Cost|Expected):\s+(.*(?:\n# {5,}.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Preset:
    """Content of conf/experiment/NAME.yaml: the sweep, and the question, command, cost and expected result."""

    question: str
    command: str
    cost: str
    expected: str
    body: list[str]
    """All lines of the file, without comments."""
    sweep: dict[str, list[str]]
    """Swept key → its values."""
    loss: str
    """The loss that is chosen for all runs; "" if the sweep or the model chooses it."""

    @classmethod
    def read(cls, name: str) -> "Preset":
        """Read conf/experiment/NAME.yaml."""
        text = (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text()
        parts = {key.lower(): re.sub(r"\s*\n#\s+", " ", words) for key, words in _PART.findall(text)}
        body = [bare for line in text.splitlines() if (bare := re.sub(r"\s*(^|\s)#.*", "", line).rstrip())]
        content: Any = OmegaConf.to_container(OmegaConf.create(text))
        params = content["hydra"]["sweeper"]["params"]
        sweep = {key: _values(str(value)) for key, value in params.items()}
        chosen: dict[str, str] = {}
        for entry in content.get("defaults", []):
            chosen |= entry
        return cls(**parts, body=body, sweep=sweep, loss=chosen.get("override /loss", ""))

    def jobs(self, seeds: int) -> list[list[str]]:
        """Overrides of each job of the sweep, with only the first `seeds` seeds."""
        values = {key: each[:seeds] if key == "seed" else each for key, each in self.sweep.items()}
        pairs = [[f"{key}={value}" for value in each] for key, each in values.items()]
        return [[f"experiment={self.name}", *job] for job in product(*pairs)]

    @property
    def name(self) -> str:
        """Name of the experiment on the command line."""
        return self.command.rpartition("=")[2]


def _values(text: str) -> list[str]:
    span = re.fullmatch(r"range\((\d+)\)", text)
    return [str(number) for number in range(int(span[1]))] if span else text.split(",")


@dataclass(frozen=True)
class Claim:
    """An expected verdict. The tests check it on the recorded results and on smaller runs."""

    group: str
    """Label of a group of the panel, such as "loss=huber"."""
    metric: str
    verdict: str
    """Verdict on its difference from the baseline: "better", "worse" or "not distinguishable"; or "baseline" itself."""
    low: float = -inf
    """Lower bound of the mean in the recorded results."""
    high: float = inf
    """Upper bound of the mean in the recorded results."""
    retested: bool = True
    """Whether the smaller runs of the tests can confirm the claim."""


@dataclass(frozen=True)
class Panel:
    """Groups of runs that are compared with one of them: one table per metric."""

    title: str
    baseline: str
    metrics: tuple[str, ...]
    claims: tuple[Claim, ...]
    within: str = ""
    """Override of the groups in this panel, such as "noise.rate=0.4"; "" for all groups of the lesson."""

    def compare(self, groups: Sequence[Group]) -> list[MetricComparison]:
        """Compare the groups of the panel in each of its metrics."""
        inside = [
            Group(tuple(part for part in group.name if part != self.within), group.settings, group.runs)
            for group in groups
            if not self.within or self.within in group.name
        ]
        (baseline,) = [group for group in inside if group.label == self.baseline]
        return [compare_metric(inside, metric, baseline) for metric in self.metrics]

    def check(self, claim: Claim, groups: Sequence[Group], *, bounds: bool = True) -> str:
        """Explain why a claim of the panel does not hold; "" if it holds.

        Args:
            claim: claim to check.
            groups: all groups of the lesson.
            bounds: whether the mean must also be within the bounds of the claim.
        """
        comparison = self.compare(groups)[self.metrics.index(claim.metric)]
        group = next(group for group in comparison.groups if group.label == claim.group)
        difference, mean = comparison.difference(group), comparison.mean(group)
        verdict = difference.verdict if difference is not None else "baseline"
        if verdict != claim.verdict:
            return f"{claim.group} is {verdict} in {claim.metric}, not {claim.verdict}"
        if bounds and mean is not None and not claim.low <= mean <= claim.high:
            return f"{claim.metric} of {claim.group} is {mean:.4g}, not from {claim.low:g} to {claim.high:g}"
        return ""


@dataclass(frozen=True)
class Lesson:
    """One section of docs/lessons.md."""

    name: str
    """Name of the experiment, section and figure."""
    title: str
    finding: str
    """Title of the figure: what it shows, in one line."""
    panels: tuple[Panel, ...]
    curves: CurvesSpec
    observation: str
    explanation: str
    suggestions: str
    quick_overrides: tuple[str, ...] = ()
    """Overrides that make the experiment small enough for a test."""
    quick_seeds: int = 3
    not_retested: tuple[str, ...] = ()
    """`Panel.within` of the panels that the tests do not run again."""

    @cached_property
    def preset(self) -> Preset:
        """Content of the experiment's file in conf/experiment."""
        return Preset.read(self.name)

    @property
    def definition(self) -> dict[str, Any]:
        """What determines the results: the command and the content of the preset."""
        return {"command": self.preset.command, "preset": self.preset.body}

    resumable = False

    def configurations(self) -> list[dict[str, Any]]:
        """Compose the configuration of each run."""
        return compose([*job, *RUN_OPTIONS] for job in self.preset.jobs(1))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics of all panels, without duplicates."""
        return tuple(dict.fromkeys(metric for panel in self.panels for metric in panel.metrics))

    def run(self, work_dir: Path, results_dir: Path) -> list[Result]:
        """Run the sweep, and write the curves of the figure."""
        groups = compare([run_sweep(self.preset.command, work_dir)], self.metrics).groups
        write_points(collect_points(self.curves, groups), results_dir / f"{self.name}.csv")
        return [
            Result(self.name, group.label, run.seed, metric, run.metrics[metric])
            for group in groups
            for run in group.runs
            for metric in self.metrics
        ]

    def groups(self, results: Sequence[Result]) -> list[Group]:
        """Make groups from recorded results."""
        by_label: dict[str, dict[int, dict[str, float]]] = {}
        for result in results:
            if result.experiment == self.name:
                by_label.setdefault(result.label, {}).setdefault(result.seed, {})[result.metric] = result.value
        return [make_group(label.split(" "), seeds, self.preset.loss) for label, seeds in by_label.items()]


def make_group(name: Sequence[str], seeds: dict[int, dict[str, float]], loss: str = "") -> Group:
    """Make a group from the parts of its name, the metrics of each seed, and its loss; its runs have no folder."""
    runs = [Run(RunFolder(Path()), {"seed": seed}, metrics, 0.0) for seed, metrics in sorted(seeds.items())]
    return Group(tuple(name), {"choices.loss": loss}, tuple(runs))

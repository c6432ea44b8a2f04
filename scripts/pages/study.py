"""An experiment that is a `losslab study`: its command, its run, and the rows that it gives."""

import csv
import json
import shlex
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from losslab import CONF
from losslab.analysis.compare.statistics import GeometricEstimate
from losslab.analysis.compare.tables import format_estimate
from losslab.io.tables import markdown_table, write_csv
from losslab.study.race import Scale
from losslab.study.settings import LEARNING_RATE, Group, Settings, expand_groups
from losslab.study.tuning import TrialResult, Tuning
from pages.experiments import RUN_OPTIONS, Result, expand, run_command
from pages.freshness import compose

_RUN_DIR = "study"


@dataclass(frozen=True)
class StudyRow:
    """A row of the race of a study: a group, or a method that is fitted after training."""

    group: str
    """The label of the study, such as "focal" or "cross_entropy + temperature"."""
    metric: str
    """The metric that decides, without its split."""
    n: int
    """The number of seeds of its mean."""
    mean: float | None
    low: float | None
    high: float | None
    """The mean on the test data with its 95 % interval; None if the group diverged."""
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    """The difference from the reference (the ratio to it for an error), and its interval; None for the reference."""
    verdict: str
    """"reference", "better", "worse", "equivalent", "undecided", "diverged", or "same runs"."""
    rate: float | None
    """The tuned learning rate; None for a method that is fitted after training."""
    relative_rate: float | None
    """This rate divided by that of the reference."""
    range_low: float | None
    range_high: float | None
    """The lowest and highest of the neighbouring rates around the best that are as good within the margin."""
    at_edge: bool
    """Whether the tuned rate is at an end of the grid."""
    tuned: str = ""
    """All tuned values if there are several, such as "lr 0.03, c 2"."""

    @property
    def scale(self) -> Scale:
        """How the metric is compared."""
        return Scale.of(self.metric, None)

    @property
    def range_factor(self) -> float | None:
        """The width of the good range: its highest rate divided by its lowest."""
        return None if self.range_low is None or self.range_high is None else self.range_high / self.range_low

    @property
    def is_posthoc(self) -> bool:
        """Whether the row is a method that is fitted after training."""
        return " + " in self.group


@dataclass(frozen=True)
class Study:
    """A `losslab study`, and optionally a command before it, such as the training of a teacher."""

    name: str
    overrides: tuple[str, ...]
    """The arguments of `losslab study`, in the order of the command."""
    setup: str = ""
    """Command to run before; "" for none."""
    figures: tuple[str, ...] = ()
    """The figures of the study that the page shows, such as "race.png": copied to docs/PAGE/NAME-race.png."""

    resumable = True

    @property
    def command(self) -> str:
        """Shell command of the study, as shown on the page."""
        return shlex.join(["losslab", "study", *self.overrides])

    @property
    def commands(self) -> list[str]:
        """All commands, in the order in which they are run."""
        return [*filter(None, [self.setup]), self.command]

    @property
    def definition(self) -> dict[str, list[str]]:
        """What determines the results: the commands."""
        return {"commands": self.commands}

    @cached_property
    def groups(self) -> list[list[str]]:
        """The overrides of each group."""
        arguments = [each for each in self.overrides if not each.startswith(("study.", "hydra."))]
        texts = [each.partition("=")[2] for each in self.overrides if each.startswith("study.groups=")]
        more: Any = OmegaConf.create(f"groups: {texts[-1] if texts else '[]'}").groups
        return [[*group, *RUN_OPTIONS] for group in expand_groups(arguments, Settings(groups=list(more)))]

    def configurations(self) -> list[dict[str, Any]]:
        """Compose the configuration of each group and of the setup; one entry has the settings of the study."""
        settings = OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "sweeper" / "study.yaml"))
        given = [each for each in self.overrides if each.startswith("study.")]
        own = {
            "study": {"default": settings, "given": given, "_target_": "losslab.study.sweeper.StudySweeper"},
            "fused": {"_target_": "losslab.training.fused.group.train_group"},
        }
        return [own, *compose([*self.groups, *(expand(self.setup) if self.setup else [])])]

    def run(self, work_dir: Path, results_dir: Path) -> list[Result]:
        """Run the study, or continue it; write NAME.csv with its rows, and copy its figures."""
        done = work_dir / "setup_done"
        if self.setup and not done.is_file():
            shutil.rmtree(work_dir / "outputs", ignore_errors=True)
            run_command(self.setup, work_dir)
            done.touch()
        options = (*RUN_OPTIONS, f"run_dir={_RUN_DIR}", "hydra.launcher.n_jobs=2")
        run_command(self.command, work_dir, options, show_output=True)
        folder = work_dir / _RUN_DIR
        write_rows(extract_rows(folder), results_dir / f"{self.name}.csv")
        for figure in self.figures:
            shutil.copy(folder / figure, results_dir / f"{self.name}-{figure}")
        study = json.loads((folder / "study.json").read_text())
        return [
            Result(self.name, row["group"], int(seed), study["metric"], value)
            for row in study["race"]
            for seed, value in row["values"].items()
        ]

    def rows(self, results_dir: Path) -> list[StudyRow]:
        """Read the rows that `run` wrote; [] if there are none."""
        return read_rows(results_dir / f"{self.name}.csv")


def extract_rows(folder: Path) -> list[StudyRow]:
    """Read the rows of the race from the folder of a finished study, in the order of its answer."""
    study = json.loads((folder / "study.json").read_text())
    with (folder / "answer.csv").open(newline="") as file:
        answers = list(csv.DictReader(file))
    tunings = {each["group"]: _tuning(each, study["scale"]) for each in study["tuning"]}
    reference = _best_rate(tunings[study["reference"]])
    margin, as_ratio = study["scale"]["margin"], study["scale"]["by_ratio"]
    rows = []
    for answer in answers:
        tuning = tunings.get(answer["group"])
        rate = _best_rate(tuning) if tuning else None
        ends = tuning.good_range(margin, as_ratio=as_ratio) if tuning else None
        numbers = ("mean", "low", "high", "difference", "difference_low", "difference_high")
        rows.append(
            StudyRow(
                group=answer["group"],
                metric=study["scale"]["metric"],
                n=int(answer["n"]),
                verdict=answer["verdict"],
                rate=rate,
                relative_rate=rate / reference if rate and reference else None,
                range_low=ends[0][LEARNING_RATE] if ends else None,
                range_high=ends[1][LEARNING_RATE] if ends else None,
                at_edge=bool(tuning and tuning.edge),
                tuned=answer["tuned"] if tuning and "," in answer["tuned"] else "",
                **{name: _number(answer[name]) for name in numbers},
            )
        )
    return rows


def _tuning(content: Any, scale: Any) -> Tuning:
    results = tuple(
        TrialResult(each["values"], tuple(each["results"]), each["diverged_in_race"]) for each in content["trials"]
    )
    is_grid = len(results) > 1 and all(result.trial.keys() == {LEARNING_RATE} for result in results)
    return Tuning(Group((), content["group"]), results, is_grid, scale["higher_is_better"])


def _best_rate(tuning: Tuning) -> float | None:
    return None if tuning.best_result is None else tuning.best_result.trial.get(LEARNING_RATE)


def _number(text: str) -> float | None:
    return float(text) if text else None


def write_rows(rows: Iterable[StudyRow], file: Path) -> None:
    """Write rows as CSV, with six digits."""
    names = [field.name for field in fields(StudyRow)]
    cells = ([_cell(value) for value in asdict(row).values()] for row in rows)
    write_csv(file, names, cells)


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def read_rows(file: Path) -> list[StudyRow]:
    """Read the CSV file that `write_rows` wrote; [] if there is none."""
    if not file.is_file():
        return []
    with file.open(newline="") as lines:
        found = list(csv.DictReader(lines))
    texts: dict[str, Any] = {
        "group": str,
        "metric": str,
        "verdict": str,
        "n": int,
        "at_edge": lambda text: text == "True",
        "tuned": str,
    }
    return [StudyRow(**{name: texts.get(name, _number)(text) for name, text in each.items()}) for each in found]


def format_difference(row: StudyRow) -> str:
    """Format the difference of a row from the reference: points for a share, a factor for an error; "" if unknown."""
    if row.difference is None or row.difference_low is None or row.difference_high is None:
        return ""
    if row.scale.by_ratio:
        estimate = GeometricEstimate(row.difference, row.difference_low, row.difference_high)
        return format_estimate(estimate, signed=True)
    mean, low, high = (100 * value for value in (row.difference, row.difference_low, row.difference_high))
    digits = 1 if high - low >= 1 else 2
    return f"{mean:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def format_mean(row: StudyRow) -> str:
    """Format the mean of a row with its interval, a share in percent; "" if it diverged."""
    if row.mean is None or row.low is None or row.high is None:
        return ""
    if row.scale.by_ratio:
        return f"{row.mean:.3g} ({row.low:.3g} to {row.high:.3g})"
    return f"{100 * row.mean:.1f} ± {50 * (row.high - row.low):.1f}"


def study_table(rows: Sequence[StudyRow]) -> str:
    """Format the rows of a study as a Markdown table."""
    scale = rows[0].scale
    (reference,) = [row.group for row in rows if row.verdict == "reference"]
    versus = f"times {reference}" if scale.by_ratio else f"minus {reference}, points"
    unit = "" if scale.by_ratio else ", %"
    head = ("", f"test {scale.metric}{unit}", "n", versus, "verdict", "rate", f"rate / {reference}'s", "good rates")
    return markdown_table([head, *map(_cells, rows)], left=(0, 4))


def _cells(row: StudyRow) -> tuple[str, ...]:
    rate = "" if row.rate is None else row.tuned or f"{row.rate:g}{' (edge)' if row.at_edge else ''}"
    relative = "" if row.relative_rate is None else f"{row.relative_rate:.2g}"
    good = "" if row.range_low is None else f"{row.range_low:g} to {row.range_high:g}"
    return (f"`{row.group}`", format_mean(row), str(row.n), format_difference(row), row.verdict, rate, relative, good)

"""The answer of a study: one sentence, a table and the protocol, written as Markdown, CSV and JSON."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from losslab import runs
from losslab.analysis.compare.statistics import Estimate, GeometricEstimate
from losslab.analysis.compare.tables import NO_VALUE, format_estimate
from losslab.io import atomic
from losslab.io.figures import save_png
from losslab.io.tables import csv_text, markdown_table
from losslab.study.figures import draw_race
from losslab.study.race import Outcome, Race
from losslab.study.sequential import Interval
from losslab.study.settings import FIRST_TUNING_SEED, Settings
from losslab.study.tuning import Tuning, format_trial
from losslab.study.tuning_figures import draw_one_rate, draw_tuning

ANSWER = "answer.md"
FIGURES: Mapping[str, Callable[["Answer"], Any]] = {
    "race.png": draw_race,
    "tuning.png": draw_tuning,
    "one_rate.png": draw_one_rate,
}
"""The figures of a study with the functions that draw them. A function returns None if the figure does not apply."""
_OTHER_METRICS = ("accuracy", "nll", "ece", "mse", "mae")
_CSV_COLUMNS = (
    "group", "tuned", "n", "mean", "low", "high", "pairs", "difference", "difference_low", "difference_high",
    "items_low", "items_high", "verdict", "seeds_needed", "seconds_per_run",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """The results of a study.

    In its texts, accuracies and other shares are in percent, and their differences in points; errors are compared by
    ratios.
    """

    settings: Settings
    tunings: Sequence[Tuning]
    race: Race
    names: Mapping[str, Any]
    """The model, the data and the epochs that all groups share; None where they differ."""
    seconds: Mapping[int, float]
    """The mean duration of a run of the race, by the index of the group."""
    command: Sequence[str]

    @cached_property
    def outcomes(self) -> list[Outcome]:
        """The outcome of each row of the race, the best first."""
        return self.race.outcomes()

    @property
    def reference(self) -> str:
        """The label of the reference."""
        return self.race.rows[self.race.reference].label

    @property
    def test_examples(self) -> int | None:
        """The number of test examples of a run; None if it is not known, or differs between runs."""
        sizes = {len(scores) for row in self.race.rows for scores in row.items.values()}
        return sizes.pop() if len(sizes) == 1 else None

    @property
    def in_points(self) -> bool:
        """Whether the metric is a share, whose differences are in points."""
        return not self.race.scale.by_ratio and 0 < self.race.scale.margin < 1

    @property
    def margin_text(self) -> str:
        """The margin of equivalence with its unit."""
        scale = self.race.scale
        return f"{100 * scale.margin:g} %" if scale.by_ratio else f"{100 * scale.margin:g} points"

    def sentence(self) -> str:
        """Return the answer in one sentence."""
        reference = self.reference
        parts = [self._clause(word) for word in ("better", "worse", "equivalent", "undecided", "diverged")]
        found = "; ".join(part for part in parts if part) or f"there is nothing to compare with {reference}"
        where = [f"on {self.names['data']}" if self.names.get("data") else ""]
        where.append(f"with {self.names['model']}" if self.names.get("model") else "")
        start = " ".join(part for part in where if part)
        return f"{start[:1].upper()}{start[1:]}, {found}." if start else f"{found}."

    def _clause(self, verdict: str) -> str:
        found = [outcome for outcome in self.outcomes if outcome.verdict == verdict]
        if not found:
            return ""
        names, verb = _join([outcome.row.label for outcome in found]), "is" if len(found) == 1 else "are"
        if verdict == "equivalent":
            margin = f"{self.margin_text} of test {self.race.scale.metric}"
            return f"{names} {verb} equivalent to {self.reference} within {margin}"
        if verdict == "diverged":
            return f"{names} diverged"
        if verdict == "undecided":
            needs = _join([_about(outcome.seeds_needed) for outcome in found])
            return f"{names} {verb} undecided against {self.reference} ({needs} more seeds would be needed)"
        amounts = [self.amount(outcome.difference) for outcome in found]
        first = f"{found[0].row.label} is {verdict} than {self.reference} by {amounts[0]}"
        rest = [f"{outcome.row.label} by {amount}" for outcome, amount in zip(found[1:], amounts[1:], strict=True)]
        return ", ".join([first, *rest])

    def amount(self, interval: Interval | None) -> str:
        """Return the size of a difference for a sentence: "1.2 points (0.8 to 1.6)", "a factor of 1.2 (1.1 to 1.3)"."""
        if not self.race.scale.by_ratio or interval is None:
            return self.format_difference(interval)
        mean, low, high = interval if interval.mean >= 1 else (1 / interval.mean, 1 / interval.high, 1 / interval.low)
        return f"a factor of {mean:.3g} ({low:.3g} to {high:.3g})"

    def format_difference(self, interval: Interval | None, *, signed: bool = False) -> str:
        """Format a difference (a ratio) with its interval: "1.2 points (0.8 to 1.6)", or "×1.2 (1.1 to 1.3)"."""
        if interval is None:
            return NO_VALUE
        if self.race.scale.by_ratio:
            return format_estimate(GeometricEstimate(*interval), signed=True)
        mean, low, high = (100 * value for value in interval)
        if not signed and mean < 0:
            mean, low, high = -mean, -high, -low
        sign = "+" if signed else ""
        digits = 1 if high - low >= 1 else 2
        return (
            f"{mean:{sign}.{digits}f}{'' if signed else ' points'} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"
        )

    def format_mean(self, estimate: Estimate | GeometricEstimate | None) -> str:
        """Format the mean of a row; a share in percent."""
        if estimate is None:
            return NO_VALUE
        if isinstance(estimate, Estimate) and self.in_points:
            estimate = Estimate(100 * estimate.mean, 100 * estimate.half_width)
        return format_estimate(estimate)

    def tuned(self, outcome: Outcome) -> str:
        """Return the tuned values of a row, such as "0.03"."""
        best = self.tunings[outcome.row.group].best_result
        values = {} if best is None else best.trial
        texts = [
            f"{value:g}" if len(values) == 1 else f"{key.partition('.')[2]} {value:g}" for key, value in values.items()
        ]
        edge = " (edge)" if self.tunings[outcome.row.group].edge and best is not None else ""
        return ", ".join(texts) + edge

    def table(self) -> list[tuple[str, ...]]:
        """Return a header and a row for each group and each method after training, the best first."""
        scale = self.race.scale
        others = [
            name
            for name in _OTHER_METRICS
            if name != scale.metric and any(outcome.row.mean(name) is not None for outcome in self.outcomes)
        ]
        keys = {key for tuning in self.tunings for result in tuning.results for key in result.trial}
        tuned = "lr" if keys == {"optimizer.lr"} else "tuned"
        unit = ", %" if self.in_points else ""
        against = f"times {self.reference}" if scale.by_ratio else f"minus {self.reference}, points"
        head = ("", tuned, f"test {scale.metric}{unit}", "n", against, "another test set", "verdict", *others, "s/run")
        return [head, *(self._cells(outcome, others) for outcome in self.outcomes)]

    def short_table(self) -> list[tuple[str, ...]]:
        """Return the first columns of the table, for a terminal."""
        return [(*row[:5], row[6]) for row in self.table()]

    def _cells(self, outcome: Outcome, others: Sequence[str]) -> tuple[str, ...]:
        row = outcome.row
        more = [NO_VALUE if value is None else f"{value:.3g}" for value in map(row.mean, others)]
        seconds = f"{self.seconds[row.group]:.2g}" if row.group in self.seconds and not row.is_posthoc else ""
        seed_cell = self.format_difference(outcome.difference, signed=True) if outcome.difference else ""
        item_cell = self._item_range(outcome.items)
        mean = self.format_mean(outcome.estimate)
        return (
            row.label,
            self.tuned(outcome),
            mean,
            str(len(row.values)),
            seed_cell,
            item_cell,
            self.verdict(outcome),
            *more,
            seconds,
        )

    def verdict(self, outcome: Outcome) -> str:
        """Return the verdict on a row in words, such as "undecided: about 35 more seeds"."""
        if outcome.verdict == "undecided":
            return f"undecided: {_about(outcome.seeds_needed)} more seeds"
        return "same as without" if outcome.verdict == "same runs" else outcome.verdict

    def _item_range(self, interval: Interval | None) -> str:
        if interval is None:
            return ""
        if self.race.scale.by_ratio:
            return f"{interval.low:.3g} to {interval.high:.3g}"
        return f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"

    def protocol(self) -> list[str]:
        """Return how the study was done, in about ten sentences."""
        settings, race, scale = self.settings, self.race, self.race.scale
        tuned = sorted({key for tuning in self.tunings for result in tuning.results for key in result.trial})
        trials = " or ".join(map(str, sorted({len(tuning.results) for tuning in self.tunings})))
        seeds = f"seed {FIRST_TUNING_SEED}"
        if settings.tune_seeds > 1:
            seeds = f"seeds {FIRST_TUNING_SEED} to {FIRST_TUNING_SEED + settings.tune_seeds - 1}"
        edges = [tuning.group.label for tuning in self.tunings if tuning.edge]
        edge = f"The best rate of {_join(edges)} is" if edges else "No best rate is"
        best = "was the best group in the tuning, which has other seeds"
        chosen = "was named in the command" if settings.reference else best
        size = f"a difference of {self.margin_text} or more"
        comparisons = len(race.compared())
        test = f"{self.test_examples:,} test examples" if self.test_examples else "test data"
        return [
            (
                f"Tuning: {trials} trials of {', '.join(tuned)} for each group{self._refined()}, {seeds}. "
                f"{self._repeated()}The best mean of val/{scale.metric} wins; a run that diverges is the worst."
                if tuned
                else "Tuning: none."
            ),
            *(
                [f"{edge} at the edge of the grid{', so it may be better still beyond' if edges else ''}."]
                if any(tuning.is_grid for tuning in self.tunings)
                else []
            ),
            (
                "Race: seeds 0, 1, 2, ..., which nothing was tuned on. With one seed, all groups have the same "
                f"initial weights, batches and data. {self._replaced()}"
                f"The groups are compared after {_join([*map(str, race.sizes)])} seeds (the looks)."
            ),
            f"Each run is measured on the {test}, with its best checkpoint by the monitored metric on validation data.",
            f"The reference, {self.reference}, {chosen}.",
            (
                "Better or worse: the paired t test rejects that there is no difference. Equivalent: two one-sided t "
                f"tests reject {size}. Undecided: neither, which is no evidence that there is no difference."
            ),
            (
                "Each look spends a quarter of what is left of the significance level of 5 %, and Holm's method "
                f"corrects for {comparisons} groups: the probability of any false verdict of a kind is at most 5 %."
            ),
            (
                "The interval of a difference has 95 % confidence for itself and is corrected for early stopping ("
                "Chuang & Lai 2000), but not for the number of groups: a group may be undecided although its interval "
                "leaves out 0. That of a mean is Student's."
            ),
            "Another test set: the 95 % interval of the difference over test examples, for these networks (bootstrap).",
        ]

    def _refined(self) -> str:
        count = 2 * self.settings.refinements if all(tuning.is_grid for tuning in self.tunings) else 0
        return f", of which {count} beside its best rate so far" if count else ""

    def _repeated(self) -> str:
        first, last = (FIRST_TUNING_SEED + count for count in (self.settings.tune_seeds, self.settings.finalist_seeds))
        if not any(len(result.values) > self.settings.tune_seeds for each in self.tunings for result in each.results):
            return ""
        return f"The best {self.settings.finalists} trials of each group have more seeds, {first} to {last - 1}. "

    def _replaced(self) -> str:
        """Name the trials with which a run of the race diverged."""
        found = [
            f"{tuning.group.label} diverged at {format_trial(result.trial)}"
            for tuning in self.tunings
            for result in tuning.results
            if result.diverged_in_race
        ]
        return f"{_join(found)}; the next best trial took its place. " if found else ""

    def markdown(self, figures: Mapping[str, str]) -> str:
        """Return the content of answer.md, with figures: their titles by the names of their files."""
        rows = [f"# {self.sentence()}", markdown_table(self.table(), left=(0, 6))]
        rows += [f"![{title}]({name})" for name, title in figures.items()]
        shared = [
            f"{value} epoch{'s' * (value != 1)}" if key == "epochs" else f"{key} {value}"
            for key, value in self.names.items()
            if value
        ]
        rows.append("## Protocol\n\n" + "\n".join(f"- {line}" for line in [", ".join(shared) + ".", *self.protocol()]))
        rows.append("```bash\nlosslab study " + _shell(self.command) + "\n```")
        return "\n\n".join(rows) + "\n"

    def csv(self) -> str:
        """Return the content of answer.csv: unrounded, shares as fractions."""
        rows: list[Sequence[object]] = [_CSV_COLUMNS]
        for outcome in self.outcomes:
            ends = (
                (outcome.estimate.mean, outcome.estimate.low, outcome.estimate.high)
                if outcome.estimate
                else (None,) * 3
            )
            items = outcome.items[1:] if outcome.items else (None, None)
            rows.append(
                (
                    outcome.row.label, self.tuned(outcome), len(outcome.row.values), *ends, outcome.pairs or None,
                    *(outcome.difference or (None,) * 3), *items, outcome.verdict, outcome.seeds_needed,
                    self.seconds.get(outcome.row.group),
                )
            )  # fmt: skip
        return csv_text(rows)

    def results(self) -> dict[str, Any]:
        """Return the results for study.json."""
        return {
            "answer": self.sentence(),
            "metric": f"test/{self.race.scale.metric}",
            "scale": asdict(self.race.scale),
            "reference": self.reference,
            "tuning": [
                {
                    "group": tuning.group.label,
                    "trials": [
                        {
                            "values": result.trial,
                            "results": result.values,
                            "diverged_in_race": result.diverged_in_race,
                        }
                        for result in tuning.results
                    ],
                    "best": None if tuning.best_result is None else tuning.best_result.trial,
                    "at_edge": bool(tuning.edge),
                }
                for tuning in self.tunings
            ],
            "race": [
                {
                    "group": outcome.row.label,
                    "values": {str(seed): value for seed, value in sorted(outcome.row.values.items())},
                    "diverged": outcome.row.diverged,
                    "difference": outcome.difference and outcome.difference._asdict(),
                    "items": outcome.items and outcome.items._asdict(),
                    "pairs": outcome.pairs,
                    "verdict": outcome.verdict,
                    "seeds_needed": outcome.seeds_needed,
                }
                for outcome in self.outcomes
            ],
        }


def write_answer(answer: Answer, folder: Path) -> None:
    """Write answer.md, answer.csv, the figures, and the results in study.json."""
    atomic.write_bytes(folder / "answer.csv", answer.csv().encode())
    runs.write_json(folder / runs.STUDY, {"command": list(answer.command), **answer.results()})
    titles = {}
    for name, draw in FIGURES.items():
        figure = draw(answer)
        if figure is None:
            (folder / name).unlink(missing_ok=True)
        else:
            save_png(figure, folder / name)
            titles[name] = figure.get_suptitle()
    atomic.write_bytes(folder / ANSWER, answer.markdown(titles).encode())


def mean_seconds(durations: Mapping[tuple[int, int], float]) -> dict[int, float]:
    """Return the mean duration of the runs of each group, from durations by group and seed."""
    groups = {group for group, _ in durations}
    return {group: fmean(value for (own, _), value in durations.items() if own == group) for group in groups}


def _about(count: int | None) -> str:
    return f"about {count}" if count else "very many"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _shell(command: Sequence[str]) -> str:
    import shlex  # noqa: PLC0415

    return shlex.join(command)

"""The Hydra sweeper that runs a study: tunes each group, races the groups, and writes the answer. Imports no torch."""

import contextlib
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich import get_console
from rich.progress import track

from losslab import runs
from losslab.errors import LabError
from losslab.io.tables import terminal_table, wrap_text
from losslab.io.untrusted import read_json
from losslab.study.answer import ANSWER, Answer, mean_seconds, write_answer
from losslab.study.race import Race, Row, Scale
from losslab.study.sequential import look_sizes
from losslab.study.settings import (
    FIRST_TUNING_SEED,
    LEARNING_RATE,
    TYPED_AGAIN,
    Design,
    Group,
    Settings,
    Trial,
    default_trials,
    find_group,
    make_parameter,
    parameter_name,
    parse_groups,
)
from losslab.study.stage import Run, Stage
from losslab.study.test_items import EvaluationJob, evaluate_runs, read_items
from losslab.study.tuning import TrialResult, Tuning, format_trial, sides_to_extend
from losslab.training.config import ProcessContext
from losslab.training.distributed import spawn

logger = logging.getLogger("losslab")

ITEMS = "test_items"
"""The folder in the folder of a study with the scores of the test examples of each run."""
_MOST_REPLACED = 3
"""How often a group that diverges in the race gets its next best trial."""
_PLAIN_LOSSES = ("cross_entropy", "bce")
"""The losses to whose runs methods after training are fitted."""


class StudySweeper:
    """Runs a study of the groups on the command line.

    Args:
        params: more overrides by key, such as {"loss": "cross_entropy,focal"}, as Hydra's basic sweeper takes them.
        settings: the fields of `Settings`.
    """

    def __init__(self, params: Mapping[str, Any] | None = None, **settings: Any) -> None:
        self._params, self._settings = params or {}, settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the objects that Hydra passes to a sweeper."""
        self._hydra_context, self._task, self._config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Run the study, or continue it if its folder contains runs."""
        settings = Settings(**OmegaConf.to_container(OmegaConf.create(self._settings)))  # type: ignore[arg-type]
        groups = parse_groups([*(f"{key}={value}" for key, value in self._params.items()), *arguments], settings)
        folder = Path(self._config.hydra.sweep.dir).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        context: ProcessContext = self._task.context  # type: ignore[attr-defined]
        command = context.command or _as_typed(self._config.hydra.overrides)
        try:
            with runs.lock(folder):
                stages = {
                    name: Stage(folder / name, self._hydra_context, self._task, self._config)
                    for name in ("tune", "race")
                }
                Study(settings, groups, folder, command, stages).run()
        except BaseException:
            if context.sweep is not None:
                # not logger.exception: the error is reported once, where the process ends
                logger.error("not finished; to continue: %s", _resume_command(folder, command))  # noqa: TRY400
            with contextlib.suppress(OSError):
                folder.rmdir()  # if nothing was written
            raise
        finally:
            if context.sweep is not None:
                context.sweep.write()
            context.sweep = None  # otherwise the process would log it as an ordinary sweep
        return []


class Study:
    """The state of a study while it runs."""

    def __init__(
        self,
        settings: Settings,
        groups: Sequence[Group],
        folder: Path,
        command: Sequence[str],
        stages: Mapping[str, Stage],
    ) -> None:
        self.settings, self.groups, self.folder, self.command = settings, groups, folder, command
        self._tune, self._race = stages["tune"], stages["race"]
        self.designs = [self._design(group) for group in groups]
        tuned = {parameter.key for design in self.designs for parameter in design.parameters}
        missing = [name for name in map(parameter_name, settings.tune) if name not in tuned]
        if missing:
            raise LabError(f"study.tune: no group has the key {', '.join(missing)}; a usual one is {LEARNING_RATE}")
        choices = [self._tune.choices(group.overrides) for group in groups]
        self._is_plain = [each.get("loss") in _PLAIN_LOSSES for each in choices]
        """Whether a group has cross-entropy, to which methods after training are usually applied."""
        self.names = {key: _shared([each.get(key) for each in choices]) for key in ("model", "data")}
        epochs = [OmegaConf.select(self._tune.compose(group.overrides), "trainer.max_epochs") for group in groups]
        self.names["epochs"] = _shared(epochs)
        self.tuning_runs: dict[tuple[int, str, int], Run] = {}
        """The runs of the tuning by the index of the group, the text of the trial, and the seed."""
        self.race_runs: dict[tuple[int, int], Run] = {}
        """The runs of the race by the index of the group and the seed."""

    def run(self) -> None:
        """Run all parts of the study."""
        earlier: dict[str, Any] = {}
        if self.settings.reference is not None:
            find_group(self.groups, self.settings.reference)
        if self.settings.metric is not None:
            Scale.of(self.settings.metric, self.settings.margin)
        with contextlib.suppress(FileNotFoundError, LabError):
            earlier = read_json(self.folder / runs.STUDY)  # results that are kept until there are new ones
        if not earlier:
            runs.write_json(self.folder / runs.STUDY, {"command": list(self.command)})
        logger.info("study folder  %s", runs.display_path(self.folder))
        self._run_first()
        self._log_plan()
        if self.settings.dry_run:
            again = _resume_command(self.folder, self.command)
            logger.info("dry run       stopped; the first runs are kept for %s", again)
            return
        # Only now, because a command that fails at once must not become that of an existing study.
        runs.write_json(self.folder / runs.STUDY, {**earlier, "command": list(self.command)})
        tunings = self.tune()
        race = self.race(tunings)
        seconds = mean_seconds({key: run.seconds for key, run in self.race_runs.items()})
        answer = Answer(self.settings, tunings, race, self.names, seconds, self.command)
        write_answer(answer, self.folder)
        logger.info("%s", terminal_table(answer.short_table(), left=(0, 5)))
        logger.info("%s", wrap_text(answer.sentence()))
        logger.info("answer  %s", runs.display_path(self.folder / ANSWER))

    # Tuning

    def _design(self, group: Group) -> Design:
        config = self._tune.compose(group.overrides)
        parameters = []
        for entry in self.settings.tune:
            key = parameter_name(entry)
            value = OmegaConf.select(config, key)
            tried: Sequence[float] = ()
            if isinstance(entry, str) and key.startswith("loss.") and value is not None:
                tried = spawn.run_in_subprocess(tried_values, config.loss._target_, key.removeprefix("loss."))
            parameter = make_parameter(entry, value, tried)
            if parameter is not None:
                parameters.append(parameter)
        if len(self.settings.tune) > 1:  # a group with one of several keys gets as many trials in the same interval
            parameters = [replace(parameter, center=None) for parameter in parameters]
        return Design.create(parameters, self.settings.trials or default_trials(len(self.settings.tune)))

    def _run_first(self) -> None:
        """Train one run of each group, in the middle of its trials, to check the configuration and to time it."""
        first = [(index, design.trials[(len(design.trials) - 1) // 2]) for index, design in enumerate(self.designs)]
        logger.info("first runs    %d groups, one run each, to check and to time them", len(self.groups))
        for run in self._run_trials(first, [FIRST_TUNING_SEED], is_check=True):
            run.value(f"val/{self.scale.metric}")

    def _run_trials(
        self, trials: Sequence[tuple[int, Trial]], seeds: Sequence[int], *, is_check: bool = False
    ) -> list[Run]:
        wanted = [(group, trial, seed) for group, trial in trials for seed in seeds]
        new = [each for each in wanted if (each[0], str(each[1]), each[2]) not in self.tuning_runs]
        jobs = [job_overrides(self.groups[group], trial, seed) for group, trial, seed in new]
        for (group, trial, seed), run in zip(new, self._tune.run(jobs, is_check=is_check), strict=True):
            self.tuning_runs[group, str(trial), seed] = run
        return [self.tuning_runs[group, str(trial), seed] for group, trial, seed in wanted]

    def tune(self) -> list[Tuning]:
        """Run the trials of all groups.

        If all groups have grids, they are extended while the best rate of any group is at an edge, and then refined.
        The best trials of each group are repeated with more seeds.
        """
        seeds = range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.settings.tune_seeds)
        trials = [(index, trial) for index, design in enumerate(self.designs) for trial in design.trials]
        while True:
            count = len(trials) * len(seeds)
            logger.info("tune          %d runs, %s", count, self._time_for(count))
            self._run_trials(trials, seeds)
            tunings = self._tunings()
            sides = sides_to_extend(tunings) if all(design.may_extend for design in self.designs) else []
            if not sides:
                break
            trials = []
            for side in sides:
                trials += [(index, trial) for index, design in enumerate(self.designs) for trial in design.extend(side)]
            at_edge = ", ".join(tuning.group.label for tuning in tunings if tuning.edge)
            logger.info(
                "tune          the best rate of %s is at the edge: %d more runs", at_edge, len(trials) * len(seeds)
            )
        for _ in range(self._refinements):
            trials = []
            for index, (design, tuning) in enumerate(zip(self.designs, tunings, strict=True)):
                if tuning.best is not None:
                    trials += [(index, trial) for trial in design.refine(tuning.best)]
            if trials:
                count = len(trials) * len(seeds)
                logger.info("tune          beside the best rates: %d runs, %s", count, self._time_for(count))
                self._run_trials(trials, seeds)
                tunings = self._tunings()
        more = range(seeds.stop, FIRST_TUNING_SEED + self.settings.finalist_seeds)
        trials = [
            (index, trial)
            for index, tuning in enumerate(tunings)
            for trial in tuning.finalists(self.settings.finalists)
        ]
        if trials and more:
            count = len(trials) * len(more)
            logger.info("tune          the best trials with more seeds: %d runs, %s", count, self._time_for(count))
            self._run_trials(trials, more)
            tunings = self._tunings()
        for tuning in tunings:
            _log_tuning(tuning)
        return tunings

    @property
    def _refinements(self) -> int:
        """How often the grids are refined: not if some groups have none, because all get equally many trials."""
        return self.settings.refinements if all(design.is_grid for design in self.designs) else 0

    def _tunings(self) -> list[Tuning]:
        """Return the results of each group so far."""
        metric, higher_is_better = f"val/{self.scale.metric}", self.scale.higher_is_better
        values: dict[tuple[int, str], list[float | None]] = {}
        for (index, trial, _), run in sorted(self.tuning_runs.items(), key=itemgetter(0)):
            values.setdefault((index, trial), []).append(value := run.value(metric))
            if value is not None and value < 0 and self.scale.by_ratio:
                label = self.groups[index].label
                raise LabError(
                    f"{metric} of {label} is {value:g}, and only errors above 0 have ratios: set study.metric"
                )
        tunings = []
        for index, (group, design) in enumerate(zip(self.groups, self.designs, strict=True)):
            results = [TrialResult(trial, tuple(values[index, str(trial)])) for trial in design.trials]
            tunings.append(Tuning(group, tuple(results), design.is_grid, higher_is_better))
        return tunings

    @property
    def scale(self) -> Scale:
        """The metric that decides; by default the accuracy, or in a regression the squared error."""
        metric = self.settings.metric
        if metric is None:
            names = [run.metrics for run in self.tuning_runs.values() if run.metrics]
            if not names:
                raise LabError("the first run of every group diverged: lower optimizer.lr, the middle of the rates")
            metric = "accuracy" if "val/accuracy" in names[0] else "mse"
        return Scale.of(metric, self.settings.margin)

    # Race

    def race(self, tunings: list[Tuning]) -> Race:
        """Add seeds in rounds until each group is decided, or has the largest number of seeds.

        A group that diverges is run again with its next best trial. Its tuning is replaced in the list.
        """
        rows = [Row(group.label, group=index) for index, group in enumerate(self.groups)]
        settings = self.settings
        for row, tuning in zip(rows, tunings, strict=True):
            if tuning.best is None:
                row.diverged.append(FIRST_TUNING_SEED)
        race = Race(self.scale, rows, self._reference(tunings, rows), settings.first_seeds, settings.max_seeds)
        starters = [row.group for row in rows if not row.diverged]
        seeds: Mapping[int, Sequence[int]] = {group: range(settings.first_seeds) for group in starters}
        while seeds:
            self._run_round(race, tunings, seeds)
            again = self._replace_diverged(race, tunings)
            race.reference = self._reference(tunings, rows)
            seeds = again or race.next_seeds()
        return race

    def _replace_diverged(self, race: Race, tunings: list[Tuning]) -> dict[int, list[int]]:
        """Choose the next best trial of each group that diverged, and return the seeds to run again by group."""
        again = {}
        for group, tuning in enumerate(tunings):
            replaced = sum(result.diverged_in_race for result in tuning.results)
            if not race.rows[group].diverged or tuning.best_result is None or replaced == _MOST_REPLACED:
                continue
            next_best = tuning.without_best()
            if next_best.best_result is not None:
                best = format_trial(tuning.best_result.trial)
                logger.info("race          %s diverged at %s: again with the next best trial", tuning.group.label, best)
                tunings[group], again[group] = next_best, race.restart(group)
        return again

    def _run_round(self, race: Race, tunings: Sequence[Tuning], seeds: Mapping[int, Sequence[int]]) -> None:
        wanted = [(group, seed) for group, each in seeds.items() for seed in each]
        count = len(wanted)
        about = f"{count} runs, {self._time_for(count)}; undecided: {_undecided_text(race, seeds, self.groups)}"
        logger.info("race          up to %d seeds: %s", max(map(max, filter(None, seeds.values()))) + 1, about)
        jobs = []
        for group, seed in wanted:
            best = tunings[group].best_result
            assert best is not None  # noqa: S101 -- a group without a best trial is out of the race
            jobs.append(job_overrides(self.groups[group], best.trial, seed))
        for (group, seed), run in zip(wanted, self._race.run(jobs), strict=True):
            self.race_runs[group, seed] = run
            value = run.value(f"test/{race.scale.metric}")
            if value is None:
                race.rows[group].diverged.append(seed)
            else:
                race.rows[group].add(seed, value, _without_split(run.metrics))
        self._evaluate(race, wanted)

    def _evaluate(self, race: Race, wanted: Sequence[tuple[int, int]]) -> None:
        """Evaluate new runs of the race again: the score of each test item, and methods that are fitted afterwards."""
        metric = race.scale.metric
        files: dict[tuple[int, int], Path] = {}
        jobs = []
        for group, seed in wanted:
            run = self.race_runs[group, seed]
            if run.folder is None or not run.metrics:
                continue
            posthoc = self.settings.posthoc and self._is_plain[group]
            files[group, seed] = file = self.folder / ITEMS / f"{run.folder.name}-{metric}{'-posthoc' * posthoc}.npz"
            if read_items(file) is None:
                jobs.append(EvaluationJob(run.folder, run.config, file, metric, posthoc))
        if jobs:
            logger.info("evaluate      %d runs, for the scores of the test examples", len(jobs))
        console = get_console()
        parts = list(batched(jobs, max(8, len(jobs) // 10)))  # each process imports torch's libraries for a second
        for part in track(parts, "evaluate", console=console, transient=True, disable=not console.is_terminal):
            spawn.run_in_subprocess(evaluate_runs, part)
        for (group, seed), file in files.items():
            items = read_items(file)
            if items is not None:
                race.add_items(group, seed, items)

    def _reference(self, tunings: Sequence[Tuning], rows: Sequence[Row]) -> int:
        """Return the index of the reference: the group that the user named, or the best group after tuning."""
        if self.settings.reference is not None:
            index = find_group(self.groups, self.settings.reference)
            if rows[index].diverged:
                raise LabError(f"the reference {rows[index].label} diverged: name another group in study.reference")
            return index
        sign = 1 if self.scale.higher_is_better else -1
        left = [
            (sign * tuning.best_result.mean, -index)
            for index, (tuning, row) in enumerate(zip(tunings, rows, strict=False))  # not the methods after training
            if not row.diverged and tuning.best_result is not None and tuning.best_result.mean is not None
        ]
        if not left:
            raise LabError("every group diverged: lower optimizer.lr, the middle of the tuned rates")
        return -max(left)[1]

    # Messages

    def _log_plan(self) -> None:
        """Log the numbers of runs of all parts, and how long they take if each takes as long as the first runs."""
        settings, count = self.settings, len(self.groups)
        trials = sum(len(design.trials) + 2 * self._refinements for design in self.designs)
        last = look_sizes(settings.max_seeds, settings.first_seeds)[-1]
        tune, first, most = trials * settings.tune_seeds, count * settings.first_seeds, count * last
        more = max(0, settings.finalist_seeds - settings.tune_seeds)
        finalists = sum(min(len(design.trials), settings.finalists) for design in self.designs if design.parameters)
        seeds = "1 seed" if settings.tune_seeds == 1 else f"{settings.tune_seeds} seeds"
        race = f"{first} runs, {self._time_for(first)}"
        if most > first:
            race = f"{first} to {most} runs, {self._time_for(first)} to {self._time_for(most)}"
        logger.info(
            "plan          tune: %d groups, %d trials in all, %s = %d runs, %s",
            count, trials, seeds, tune, self._time_for(tune),
        )  # fmt: skip
        if more and finalists:
            finals = f"{finalists * more} runs, {self._time_for(finalists * more)}"
            logger.info("plan          tune: the best %d trials, %d more seeds = %s", finalists, more, finals)
        logger.info("plan          race: %s", race)
        if last < settings.max_seeds:
            logger.info("plan          race: its last round has %d seeds, not %d", last, settings.max_seeds)
        logger.info("plan          if each run takes as long as the first; those that train as one group take less")

    def _time_for(self, count: int) -> str:
        """Return how long a number of runs takes at the pace of the latest runs."""
        return f"about {_duration(count * (self._race.pace or self._tune.pace))}"


def _as_typed(overrides: Any) -> list[str]:
    """Return the command of `losslab study` for a study that was started with hydra/sweeper=study."""
    settings = [text for text in overrides.hydra if text.startswith("hydra.sweeper.")]
    return [*overrides.task, *(text.replace("hydra.sweeper.", "study.", 1) for text in settings)]


def _resume_command(folder: Path, command: Sequence[str]) -> str:
    typed_again = [word for word in command if word.lstrip("+").partition("=")[0] in TYPED_AGAIN]
    return shlex.join(["losslab", "study", f"resume={runs.display_path(folder)}", *typed_again])


def batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield parts of a sequence, each of `size` items, of which the last may be smaller."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def job_overrides(group: Group, trial: Trial, seed: int) -> list[str]:
    """Return the overrides of a run: those of the group, of which a trial and a seed replace some."""
    own = {key: f"{key}={value:g}" for key, value in trial.items()}
    kept = [text for text in group.overrides if text.partition("=")[0] not in own]
    return [*kept, *own.values(), f"seed={seed}"]


def tried_values(target: str, name: str) -> Sequence[float]:
    """Return the values of a loss's hyperparameter that are worth trying; () if the loss declares none."""
    from hydra.utils import get_class  # noqa: PLC0415 -- imports torch

    parameter = getattr(get_class(target), "hyperparameters", {}).get(name)
    return () if parameter is None else parameter.tried


def _log_tuning(tuning: Tuning) -> None:
    best = tuning.best_result
    if best is None:
        logger.warning("tune          %s diverged in every trial", tuning.group.label)
        return
    values = format_trial(best.trial)
    edge = ", at the edge of the grid: it may be better still beyond" if tuning.edge else ""
    logger.info("tune          %s: %s (%.4g on the validation data)%s", tuning.group.label, values, best.mean, edge)


def _without_split(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of the test data by name without the split."""
    return {name.partition("/")[2]: value for name, value in metrics.items() if name.startswith("test/")}


def _shared(values: Sequence[Any]) -> Any:
    """Return the value that all have; None if they differ."""
    return values[0] if all(value == values[0] for value in values) else None


def _undecided_text(race: Race, seeds: Mapping[int, Sequence[int]], groups: Sequence[Group]) -> str:
    undecided = [groups[group].label for group in seeds if group != race.rows[race.reference].group]
    return ", ".join(undecided) if len(undecided) <= 4 else f"{len(undecided)} groups"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

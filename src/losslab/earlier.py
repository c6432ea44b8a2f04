"""What earlier calls of a sweep left in its folder, and what of it a new call takes over. Imports no torch."""

import contextlib
import json
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from losslab import asking, runs
from losslab.errors import LabError
from losslab.recognising import exactly, identity
from losslab.runs import RunFolder
from losslab.sweep import Job, State, jobs_of

logger = logging.getLogger("losslab")


@dataclass
class Left:
    """A run that lies there."""

    run: RunFolder
    exactly: str
    number: int | None
    """Of its job; None where nothing says it."""
    seconds: float | None
    """That it took; None unless the call that ran it lived to write it down."""

    @property
    def final(self) -> dict[str, float] | None:
        """Final values; None of a run that is not finished."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(runs.read_text(self.run.metrics))
            return found if isinstance(found, dict) else None
        return None


class Earlier:
    """The runs in the folder of a sweep, each of which one job may take over.

    Args:
        sweep: the folder.

    Raises:
        LabError: its summary is damaged.
    """

    def __init__(self, sweep: Path) -> None:
        rows = jobs_of(sweep, over=True)
        self._home = sweep.resolve()
        named = {(sweep / row["folder"]).resolve(): row for row in rows if row.get("folder")}
        self._rows = {path: row for path, row in named.items() if self._home in path.parents}
        self._left: defaultdict[str, list[Left]] = defaultdict(list)
        self._numbers: dict[int, Path | None] = {}
        self._monitored: dict[str, tuple[str, str] | None] = {}
        for path in sweep.iterdir() if sweep.is_dir() else ():
            if path.is_dir() and _number(path) is not None:
                self._numbers[_number(path) or 0] = path.resolve()
        for run in runs.search([place for place in (sweep, *self._rows) if place.is_dir()]).runs:
            try:
                self._find(run)
            except LabError as error:
                logger.warning("not taken over: %s", error)

    def _find(self, run: RunFolder) -> None:
        config, path = run.read_settings(), run.path.resolve()
        if self._home not in path.parents:  # by a link: what the sweep writes stays in its folder
            message = f"{run.path} leads out of the folder of the sweep"
            raise LabError(message)
        row = self._rows.get(path, {})
        number = row.get("job", _number(path))
        seconds = row.get("seconds") if row.get("state") is State.DONE else None
        self._left[identity(config)].append(Left(run, exactly(config), number, seconds))
        if number is not None:
            self._numbers.setdefault(number, path)

    @property
    def rest(self) -> list[dict[str, Any]]:
        """What the summary says of the jobs whose runs lie there and were not taken over."""
        return [row for path, row in self._rows.items() if path.is_dir()]

    def take(self, config: Mapping[str, Any]) -> Left | None:
        """The run of this resolved configuration, if there is one and no job has taken it yet."""
        same = self._left.get(identity(config))
        if not same:
            return None
        asked = exactly(config)
        left = same.pop(next((place for place, each in enumerate(same) if each.exactly == asked), 0))
        self._rows.pop(left.run.path.resolve(), None)
        return left

    def number(self, wanted: int, folder: Path | None) -> int:
        """The number of a job: the one that it wants, or the first that is free where another folder has that.

        Args:
            wanted: its place among the jobs, or what it was before.
            folder: where it runs or would run under this number; None for a job that has none, or may not have it.
        """
        path = None if folder is None else folder.resolve()
        if wanted in self._numbers and (path is None or self._numbers[wanted] != path):
            wanted = next(free for free in count() if free not in self._numbers)
        self._numbers[wanted] = None  # to no other job
        if path is not None:
            self._rows.pop(path, None)
        return wanted

    def fill_in(self, taken: Sequence[tuple[Job, Left, Mapping[str, Any]]]) -> None:
        """Tell jobs what became of the runs that they took over, each with its resolved configuration.

        What the task of a finished one returned is read from its folder: the metric to optimise, or the one by which
        runs on its data are compared.
        """
        data = {_kind_of_data(config): config["data"] for _, _, config in taken}
        unknown = {key: given for key, given in data.items() if key not in self._monitored}
        if unknown:
            self._monitored |= dict(zip(unknown, asking.ask(_monitored, list(unknown.values())), strict=True))
        for job, left, config in taken:
            monitored = self._monitored[_kind_of_data(config)]
            if monitored is not None:
                job.news |= dict(zip(("metric", "mode"), monitored, strict=True))
            final = left.final
            job.before, job.resumes = final is not None, final is None
            if final is not None:
                job.state = State.DONE
                job.value = final.get(str(config["optimized_metric"] or job.news.get("metric")))
                job.seconds = left.seconds if left.seconds is not None else _trained(left.run)


def _number(path: Path) -> int | None:
    start = path.name.partition("-")[0]
    return int(start) if start.isdecimal() else None


def _trained(run: RunFolder) -> float:
    """The seconds that its epochs took."""
    with contextlib.suppress(OSError, ValueError):
        return sum(float(line.rpartition(",")[2]) for line in runs.read_text(run.timing).splitlines()[1:])
    return 0.0


def _kind_of_data(config: Mapping[str, Any]) -> str:
    """The data without what follows from the seed: what is measured on them does not."""
    follows = {key.removeprefix("data.") for key in config["per_run"] if key.startswith("data.")}
    return runs.as_json({key: value for key, value in config["data"].items() if key not in follows})


def _monitored(data: Sequence[dict[str, Any]]) -> list[tuple[str, str] | None]:
    """The metric by which runs on each of these data are compared, and whether its "min" or "max" is best."""
    from losslab import experiment, metrics  # noqa: PLC0415

    found: list[tuple[str, str] | None] = []
    for each in data:
        try:
            task = experiment.facts(each).task
            found.append((f"val/{metrics.MONITOR[task]}", metrics.mode(task)))
        except LabError:  # data that are gone: the run is finished, and needs them no more
            found.append(None)
    return found

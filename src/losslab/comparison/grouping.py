"""Runs whose configurations differ in nothing but the seed, together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from losslab.comparison.labels import labels, matches
from losslab.comparison.reading import Run
from losslab.comparison.settings import Settings, settings
from losslab.errors import LabError


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one configuration."""

    name: tuple[str, ...]
    """What tells it from the other groups, in parts such as "loss=focal"."""
    settings: Settings
    runs: tuple[Run, ...]
    """Those that count, one a seed, by seed."""
    repeated: tuple[Run, ...] = ()
    """Older ones of the same seeds, which do not count."""
    flawed: tuple[Run, ...] = ()
    """Those that failed, are not finished or are damaged."""

    @property
    def label(self) -> str:
        """What tells it from the other groups."""
        return " ".join(self.name)

    def values(self, metric: str) -> dict[int, float]:
        """A final value by seed, of the runs that have it."""
        return {run.seed: run.metrics[metric] for run in self.runs if metric in run.metrics}

    @property
    def size(self) -> int:
        """How many seeds there are, finished or not."""
        return len({run.seed for run in (*self.runs, *self.flawed)})


def group(runs: Iterable[Run]) -> list[Group]:
    """Groups in the order of their first runs. Of runs that repeat a seed the newest finished one counts."""
    gathered: dict[frozenset[tuple[str, object]], list[Run]] = {}
    known: dict[frozenset[tuple[str, object]], Settings] = {}
    for run in runs:
        own = settings(run)
        key = frozenset(own.items())
        known.setdefault(key, own)
        gathered.setdefault(key, []).append(run)
    names = labels([*known.values()])
    return [_group(name, known[key], gathered[key]) for name, key in zip(names, known, strict=True)]


def _group(name: tuple[str, ...], own: Settings, members: Sequence[Run]) -> Group:
    finished = sorted((run for run in members if not run.flaw), key=lambda run: run.written)
    newest = {run.seed: run for run in finished}
    counting = tuple(newest[seed] for seed in sorted(newest))
    older = tuple(run for run in finished if newest[run.seed] is not run)
    return Group(name, own, counting, older, tuple(run for run in members if run.flaw))


def pick(groups: Sequence[Group], asked: Sequence[str]) -> Group:
    """The one group that has these values: ["loss=focal", "loss.gamma=2"].

    Raises:
        LabError: there is none, or several have them.
    """
    parts = " ".join(asked).split()
    pairs = dict(part.partition("=")[::2] for part in parts)
    if not pairs or not all("=" in part for part in parts):
        message = f"a baseline is named by its values, as in loss=cross_entropy, got {' '.join(asked)!r}"
        raise LabError(message)
    if len(pairs) < len(parts):
        twice = next(key for key in pairs if sum(part.partition("=")[0] == key for part in parts) > 1)
        message = f"baseline {' '.join(parts)} says {twice} more than once: there is one baseline, name its value once"
        raise LabError(message)
    fitting = [one for one in groups if matches(one.settings, pairs)]
    if len(fitting) == 1:
        return fitting[0]
    what = "is in several groups, add what tells them apart" if fitting else "is in no group; there are"
    message = f"baseline {' '.join(asked)} {what}: {'; '.join(one.label for one in fitting or groups)}"
    raise LabError(message)

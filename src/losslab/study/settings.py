"""The settings of a study, the groups that it compares, and the trials by which each group is tuned."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import ceil, inf, log2
from typing import Any

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from scipy.stats import qmc

from losslab.errors import LabError

Trial = dict[str, float]
"""The value of each tuned parameter in a trial, by config key."""

FIRST_TUNING_SEED = 10_000
"""The seed of the first run of each trial. The race has the seeds 0, 1, 2, ..., so no run of it was tuned on."""
TYPED_AGAIN = ("data.url", "data.verify")
"""The keys that are not read from the folder of a study, since with them it would choose what is downloaded."""
LEARNING_RATE = "optimizer.lr"
_STEP = 10**0.5
"""The ratio of neighbouring learning rates."""
_EXTENSION = 2
"""The number of learning rates that are added at an end of the grid where the best rate of a group is."""
_MAX_EXTENSIONS = 3
_FLOATS = ("loss.", "optimizer.", "scheduler.")
"""Keys whose values may be any numbers, although a configuration may contain an integer."""
_WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")
"""An override in a text of overrides. Quoted parts may contain spaces."""


@dataclass(frozen=True)
class Settings:
    """The settings study.* of a study.

    Raises:
        LabError: a value is not valid.
    """

    groups: Sequence[str] = ()
    """More groups to compare, each as overrides in one text, such as "loss=focal loss.gamma=5"."""
    reference: str | None = None
    """The group with which the others are compared, such as "loss=cross_entropy"; None: the best group after tuning."""
    metric: str | None = None
    """The metric that decides, without its split, such as "nll"; None: accuracy, or mse in a regression."""
    margin: float | None = None
    """Differences below it are equivalent; for accuracy and other shares in their unit, for errors as a fraction."""
    tune: Sequence[Any] = (LEARNING_RATE,)
    """The config keys to tune, each a key or a mapping {key: [low, high]}."""
    trials: int | None = None
    """The number of trials of each group; None: 7 for one key, otherwise 8 for each key, rounded up to a power of 2."""
    refinements: int = 1
    """How often two learning rates beside the best one of each group are added, each time at half the distance.

    Nothing is added if not all groups have a grid of learning rates, because all get equally many trials."""
    tune_seeds: int = 3
    """The number of seeds of each trial."""
    finalists: int = 3
    """The number of best trials of each group that are repeated with more seeds."""
    finalist_seeds: int = 10
    """The number of seeds of these trials, if it is larger."""
    max_seeds: int = 20
    """The largest number of seeds in the race."""
    first_seeds: int = 5
    """The number of seeds in the first round of the race; later rounds have at least as many."""
    posthoc: bool = True
    """Whether to compare methods that are fitted after training, such as temperature scaling."""
    dry_run: bool = False
    """Whether to stop after the plan and its timed runs."""

    def __post_init__(self) -> None:
        for name, (is_valid, expected) in _RULES.items():
            value = getattr(self, name)
            if not (value is None and name in _OPTIONAL) and not is_valid(value):
                raise LabError(f"study.{name} must be {expected}, got {value!r:.40}")
        if self.max_seeds < self.first_seeds:
            raise LabError(f"study.max_seeds={self.max_seeds} is below study.first_seeds={self.first_seeds}: raise it")
        names = [parameter_name(entry) for entry in self.tune]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise LabError(f"study.tune lists {', '.join(repeated)} twice: list each key once")


def _is_integer(minimum: int, maximum: int = 1000) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


_OPTIONAL = ("reference", "metric", "margin", "trials")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "groups": (_is_list, "a list of texts, such as ['loss=focal loss.gamma=5']"),
    "tune": (_is_list, "a list of keys, such as [optimizer.lr,optimizer.weight_decay]"),
    "trials": (_is_integer(2), "an integer from 2 to 1000"),
    "refinements": (_is_integer(0, 10), "an integer from 0 to 10"),
    "tune_seeds": (_is_integer(1), "an integer from 1 to 1000"),
    "finalists": (_is_integer(2), "an integer from 2 to 1000"),
    "finalist_seeds": (_is_integer(1), "an integer from 1 to 1000"),
    "first_seeds": (_is_integer(2), "an integer from 2 to 1000"),
    "max_seeds": (_is_integer(2, FIRST_TUNING_SEED), f"an integer from 2 to {FIRST_TUNING_SEED}"),
    "margin": (lambda value: isinstance(value, int | float) and 0 < value < 1, "a number between 0 and 1"),
    "reference": (lambda value: isinstance(value, str), "a group, such as loss=cross_entropy"),
    "metric": (
        lambda value: isinstance(value, str) and "/" not in value and value != "loss",
        "the name of a metric, not of the loss, and without its split, such as nll",
    ),
    "posthoc": (lambda value: isinstance(value, bool), "true or false"),
    "dry_run": (lambda value: isinstance(value, bool), "true or false"),
}
"""For each setting whether a value is valid, and what is."""


@dataclass(frozen=True)
class Group:
    """One of the groups that a study compares: a configuration, except for tuned parameters and the seed."""

    overrides: tuple[str, ...]
    """All overrides of the command line for this group."""
    label: str = ""
    """The overrides in which it differs from the other groups, such as "focal" or "focal gamma=5"."""


def parse_groups(arguments: Sequence[str], settings: Settings) -> list[Group]:
    """Return the groups of a command: each combination of the values in its sweeps, and the groups study.groups.

    Raises:
        LabError: there are fewer than two groups, a group occurs twice, or a sweep is over a seed or a tuned parameter.
    """
    groups = expand_groups(arguments, settings)
    if len(groups) < 2:
        raise LabError("a study compares at least two groups: name several losses, as in loss=cross_entropy,focal")
    if len(set(map(frozenset, groups))) < len(groups):
        raise LabError("a group occurs twice: name each group once")
    return [Group(overrides, label) for overrides, label in zip(groups, _labels(groups), strict=True)]


def expand_groups(arguments: Sequence[str], settings: Settings) -> list[tuple[str, ...]]:
    """Return the overrides of each group of a command, as `parse_groups` does. Without groups, return [arguments]."""
    parser = OverridesParser.create()
    # Of several overrides with one key, the last counts, as in Hydra's basic sweeper.
    parsed = list({each.get_key_element(): each for each in parser.parse_overrides(list(arguments))}.values())
    tuned = {parameter_name(each) for each in settings.tune}
    for override in parsed:
        _check_seed(override)
        if override.is_sweep_override() and override.key_or_group in tuned:
            raise LabError(f"{override.key_or_group} is tuned: give one value, or leave it out of study.tune")
    options = [_values(override) for override in parsed]
    swept = any(len(option) > 1 for option in options)
    groups = list(product(*options)) if swept or not settings.groups else []
    common = [option[0] for option in options if len(option) == 1]
    for text in settings.groups:
        if not isinstance(text, str) or not text.strip():
            raise LabError(f"a group in study.groups must be a text of overrides, got {text!r:.60}")
        own = parser.parse_overrides(_WORD.findall(text))
        for override in own:
            _check_seed(override)
            if override.is_sweep_override():
                raise LabError(f"{override.input_line} in study.groups has several values: write a group for each")
        keys = {override.get_key_element() for override in own}
        kept = [each for each in common if parser.parse_override(each).get_key_element() not in keys]
        groups.append((*kept, *(str(override.input_line) for override in own)))
    return groups


def _check_seed(override: Override) -> None:
    if override.key_or_group == "seed":
        raise LabError("a study chooses its seeds: leave seed= out, and set study.max_seeds")


def _values(override: Override) -> list[str]:
    """Return the override of each value of a sweep; for a single value, the override itself."""
    if not override.is_sweep_override():
        return [str(override.input_line)]
    key = override.get_key_element()
    if override.value_type not in {ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP, ValueType.RANGE_SWEEP}:
        raise LabError(f"{override.input_line} does not list its values: write {key}=VALUE,VALUE")
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _labels(groups: Sequence[Sequence[str]]) -> list[str]:
    shared = set.intersection(*map(set, groups))
    own = [[text for text in group if text not in shared] for group in groups]
    labels = [" ".join(text.removeprefix("loss=").removeprefix("loss.") for text in each) for each in own]
    return [label or "default" for label in labels]


def find_group(groups: Sequence[Group], text: str) -> int:
    """Return the index of the group that has these overrides, or this label.

    Raises:
        LabError: no group or several groups have them.
    """
    wanted = set(_WORD.findall(text))
    found = [index for index, group in enumerate(groups) if text == group.label]
    found = found or [index for index, group in enumerate(groups) if wanted <= set(group.overrides)]
    if len(found) == 1:
        return found[0]
    problem = "matches several groups" if found else "matches no group"
    labels = ", ".join(group.label for group in groups)
    raise LabError(f"study.reference={text} {problem}: name one of {labels}")


@dataclass(frozen=True)
class Parameter:
    """A tuned parameter of a group, with the interval of its values."""

    key: str
    low: float
    high: float
    center: float | None = None
    """The value of the configuration, around which learning rates are placed; None if the user gave the interval."""
    is_integer: bool = False
    """Whether only integers are tried."""

    def at(self, position: float) -> float:
        """Return the value at a position from 0 to 1 in the interval, on a logarithmic scale if it is above 0."""
        if self.low > 0:
            value = self.low * (self.high / self.low) ** position
        else:
            value = self.low + (self.high - self.low) * position
        value = min(max(float(f"{value:.3g}"), self.low), self.high)
        return float(round(value)) if self.is_integer else value


def parameter_name(entry: Any) -> str:
    """Return the config key of an entry of study.tune.

    Raises:
        LabError: the entry is neither a key nor a mapping {key: [low, high]}.
    """
    if isinstance(entry, Mapping) and len(entry) == 1:
        entry = next(iter(entry))
    if not isinstance(entry, str) or "." not in entry:
        raise LabError(
            f"study.tune must list config keys, such as optimizer.lr or {{loss.gamma: [0.5, 5]}}: got {entry!r:.60}"
        )
    return entry


def make_parameter(entry: Any, value: Any, tried: Sequence[float] = ()) -> Parameter | None:
    """Return a tuned parameter of a group, or None if the configuration of the group does not have it.

    Args:
        entry: the entry of study.tune.
        value: the value in the configuration of the group; None if there is none.
        tried: for a hyperparameter of a loss, the values that are worth trying.

    Raises:
        LabError: the value is no number, or the interval is not valid, or there is none and the value suggests none.
    """
    key = parameter_name(entry)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LabError(
            f"study.tune: {key} is {value!r:.40}, and only numbers can be tuned: give a group for each value"
        )
    is_integer = isinstance(value, int) and not key.startswith(_FLOATS)
    if not isinstance(entry, str):
        interval = entry[key]
        try:
            low, high = map(float, interval)
        except (TypeError, ValueError):
            low = high = 0.0
        if not -inf < low < high < inf:
            raise LabError(f"study.tune: the interval of {key} must be [low, high], got {interval!r:.40}")
        return Parameter(key, low, high, is_integer=is_integer)
    if key == LEARNING_RATE and value > 0:
        return Parameter(key, value / _STEP**3, value * _STEP**3, value)
    if len(tried) > 1:
        return Parameter(key, min(tried), max(tried))
    if value > 0 and not key.startswith("loss."):
        return Parameter(key, max(value / 10, 1 if is_integer else 0), value * 10, is_integer=is_integer)
    raise LabError(f"study.tune: give the interval of {key}, as in 'study.tune=[{{{key}:[LOW,HIGH]}}]'")


@dataclass
class Design:
    """The trials of a group. A grid of learning rates may be extended and refined; other designs are fixed."""

    parameters: Sequence[Parameter]
    trials: list[Trial] = field(default_factory=list)
    """All trials; those of a single parameter in the order of its values."""
    extensions: int = 0
    refinements: int = 0

    @property
    def is_grid(self) -> bool:
        """Whether the trials are learning rates at equal ratios, around the rate of the configuration."""
        return len(self.parameters) == 1 and self.parameters[0].center is not None

    @classmethod
    def create(cls, parameters: Sequence[Parameter], count: int) -> "Design":
        """Place `count` trials: at equal distances for one parameter, by a Sobol sequence for several."""
        design = cls(parameters)
        if not parameters:
            design.trials = [{}]
        elif design.is_grid:
            middle = (count - 1) // 2
            design.trials = [design._rate(index - middle) for index in range(count)]
        elif len(parameters) == 1:
            design.trials = [{parameters[0].key: parameters[0].at(position)} for position in np.linspace(0, 1, count)]
        else:
            points = qmc.Sobol(len(parameters), rng=0).random(2 ** ceil(log2(count)))[:count]
            design.trials = [
                {parameter.key: parameter.at(position) for parameter, position in zip(parameters, point, strict=True)}
                for point in points
            ]
        return design

    def _rate(self, steps: int) -> Trial:
        parameter = self.parameters[0]
        assert parameter.center is not None  # noqa: S101 -- for the type checker
        return {parameter.key: float(f"{parameter.center * _STEP**steps:.2g}") if steps else parameter.center}

    def extend(self, side: int) -> list[Trial]:
        """Add learning rates below (side -1) or above (side 1) the grid, and return them."""
        center = self.parameters[0].center
        assert center is not None  # noqa: S101 -- for the type checker
        end = self.trials[0 if side < 0 else -1][self.parameters[0].key]
        steps = round(np.log(end / center) / np.log(_STEP))
        added = [self._rate(steps + side * (index + 1)) for index in range(_EXTENSION)]
        self.trials = [*added[::-1], *self.trials] if side < 0 else [*self.trials, *added]
        self.extensions += 1
        return added

    def refine(self, best: int) -> list[Trial]:
        """Add a learning rate on each side of the best trial, half as far away as its neighbours, and return both."""
        key = self.parameters[0].key
        self.refinements += 1
        rate, ratio = self.trials[best][key], _STEP**0.5**self.refinements
        added = [{key: float(f"{rate * factor:.2g}")} for factor in (1 / ratio, ratio)]
        self.trials = sorted([*self.trials, *added], key=lambda trial: trial[key])
        return added

    @property
    def may_extend(self) -> bool:
        """Whether the grid may be extended once more."""
        return self.is_grid and self.extensions < _MAX_EXTENSIONS


def default_trials(count: int) -> int:
    """Return the number of trials of each group for a number of tuned parameters."""
    return 7 if count == 1 else 2 ** ceil(log2(8 * count)) if count else 1

"""Whether recorded results are still current: hashes of the composed configurations and of the code that a run uses."""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import grimp

import losslab
from losslab.runs.trust import leaves
from losslab.training.config import compose as compose_run

Hashes = dict[str, str]
"""Section of the configuration, or module of losslab → hash of its content."""
Change = tuple[str, str, str]
"""A module, and its hashes before and after a change; "" if there was or is no such module."""

_PACKAGE = Path(losslab.__file__).parent
_NO_INFLUENCE = {"name", "tags", "run_dir", "notes", "choices", "per_run", "logger", "traceback", "trust"}
"""Sections of a configuration that do not change the numbers of a run."""
_OF_THE_MACHINE = {"data.dir"}
_LOOP = "losslab.training.experiment"
_LEFT_OUT = (
    "losslab.doctor", "losslab.training.preflight", "losslab.losses.catalog", "losslab.losses.card",
    "losslab.training.config", "losslab.training.interpolations", "losslab.training.distributed",
    "losslab.training.loggers", "losslab.training.event_file", "losslab.training.callbacks.tensorboard",
    "losslab.training.callbacks.progress", "losslab.training.callbacks.disk", "losslab.training.callbacks.history",
    "losslab.training.callbacks.weight_trajectory", "losslab.runs",
    "losslab.io.atomic", "losslab.io.figures", "losslab.io.tables", "losslab.io.terminal", "losslab.io.untrusted",
    "losslab.sweep.composing", "losslab.sweep.display", "losslab.sweep.job_scheduler", "losslab.sweep.recorded",
    "losslab.sweep.resume", "losslab.sweep.state",
    "losslab.study.answer", "losslab.study.figures", "losslab.study.tuning_figures",
)  # fmt: skip
"""Modules and packages that compose, check, display, draw, start processes or write files."""
_DECIDING = (
    "losslab.study.settings", "losslab.study.sweeper", "losslab.study.stage", "losslab.study.tuning",
    "losslab.study.race", "losslab.study.sequential", "losslab.sweep",
)  # fmt: skip
"""Modules and packages that decide which runs a study trains and compare them, but change no run."""


@dataclass(frozen=True)
class Fingerprint:
    """What determines the numbers of an experiment, apart from its commands and the versions of other libraries."""

    configuration: Hashes
    """Section of the composed configurations → hash of its values in all runs."""
    code: Hashes
    """Module → hash. A run uses the modules of its `_target_`s, the training loop, and what these import, directly or
    indirectly, except the modules that compose, check, display, draw, start processes or write files."""
    targets: Mapping[str, frozenset[str]]
    """Module → the `_target_`s in it."""

    @classmethod
    def of(cls, configurations: Sequence[Mapping[str, Any]]) -> "Fingerprint":
        """Compute the fingerprint of an experiment from the composed configurations of its runs."""
        sections = {name for config in configurations for name in config} - _NO_INFLUENCE
        values = {name: [_without_machine(name, config.get(name)) for config in configurations] for name in sections}
        configuration = {name: _hash(json.dumps(values[name], sort_keys=True)) for name in sorted(sections)}
        targets: dict[str, frozenset[str]] = {}
        for target in {str(value) for each in values.values() for value in _targets(each)}:
            module = _module_of(target)
            if module:
                targets[module] = targets.get(module, frozenset()) | {target}
        return cls(configuration, {name: hash_module(name) for name in used_modules(targets)}, targets)

    def of_runs(self) -> "Fingerprint":
        """Return the part that single runs depend on, without what decides which runs a study trains."""
        configuration = {name: each for name, each in self.configuration.items() if name != "study"}
        code = {name: each for name, each in self.code.items() if not _is_in(name, _DECIDING)}
        return replace(self, configuration=configuration, code=code)

    def record(self) -> dict[str, str]:
        """Return the hashes as they are recorded."""
        return {"configuration": format_hashes(self.configuration), "code": format_hashes(self.code)}


@dataclass(frozen=True)
class Staleness:
    """What has changed since an experiment was recorded."""

    missing: bool = False
    """Whether there are no results."""
    definition: tuple[str, ...] = ()
    """The changed parts of its definition, such as its commands."""
    unknown: bool = False
    """Whether it was recorded without hashes."""
    configuration: tuple[str, ...] = ()
    """The changed sections of its composed configurations."""
    code: tuple[Change, ...] = ()

    @classmethod
    def of(cls, definition: Mapping[str, Any], record: Mapping[str, Any] | None, now: Fingerprint) -> "Staleness":
        """Compare a recorded experiment with its present definition and fingerprint."""
        if record is None:
            return cls(missing=True)
        changed = tuple(key for key, value in definition.items() if record.get(key) != value)
        if "code" not in record or "configuration" not in record:
            return cls(definition=changed, unknown=True)
        configuration = [name for name, *_ in changes(parse_hashes(record["configuration"]), now.configuration)]
        return cls(
            definition=changed,
            configuration=tuple(configuration),
            code=tuple(changes(parse_hashes(record["code"]), now.code)),
        )

    @property
    def reasons(self) -> list[str]:
        """The reasons why the results are stale; [] if they are current."""
        found = [
            "it was never run" * self.missing,
            f"definition changed: {', '.join(self.definition)}" * bool(self.definition),
            "recorded without hashes" * self.unknown,
            f"composed configuration changed: {', '.join(self.configuration)}" * bool(self.configuration),
            f"code changed: {', '.join(module for module, *_ in self.code)}" * bool(self.code),
        ]
        return [reason for reason in found if reason]

    @property
    def needs_run(self) -> bool:
        """Whether the recorded numbers cannot be confirmed by a repetition, because another experiment gave them."""
        return self.missing or bool(self.definition)

    @property
    def needs_repetition(self) -> bool:
        """Whether only a repetition of this experiment can confirm its numbers."""
        return self.unknown or bool(self.configuration)


def compose(jobs: Iterable[Sequence[str]]) -> list[dict[str, Any]]:
    """Compose the configuration of each job from its overrides."""
    return [_compose(tuple(job)) for job in jobs]


@cache
def _compose(job: tuple[str, ...]) -> dict[str, Any]:
    return compose_run([*job, "name=run"], run_dir="run")  # the usual name depends on the names of files


def _without_machine(section: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: part for key, part in value.items() if f"{section}.{key}" not in _OF_THE_MACHINE}


def _targets(values: Any) -> Iterator[Any]:
    return (value for each in values for key, value in leaves({"": each}) if key.rpartition(".")[2] == "_target_")


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph("losslab", exclude_type_checking_imports=True, cache_dir=None)


def _module_of(target: str) -> str:
    """Return the module of losslab that contains the object with this dotted name; "" if it is not in losslab."""
    while target and target not in _graph().modules:
        target = target.rpartition(".")[0]
    return target


def used_modules(targets: Iterable[str]) -> list[str]:
    """List the modules that a run uses whose `_target_`s are in these modules (see `Fingerprint.code`)."""
    found: set[str] = set()
    left = {_LOOP, *targets}
    while left:
        name = left.pop()
        found.add(name)
        left |= {each for each in _graph().find_modules_directly_imported_by(name) if _counts(each)} - found
    return sorted(each for each in found if _counts(each))


def _counts(module: str) -> bool:
    return module != "losslab" and not _is_in(module, _LEFT_OUT)


def _is_in(module: str, names: Iterable[str]) -> bool:
    """Return whether a module is one of some modules, or in one of some packages."""
    return any(module == each or module.startswith(f"{each}.") for each in names)


@cache
def hash_module(name: str) -> str:
    """Compute the hash of a module, which does not depend on comments, docstrings and formatting."""
    path = _PACKAGE.parent.joinpath(*name.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return hash_source(file.read_text(encoding="utf-8"))


def hash_source(source: str) -> str:
    """Compute the hash of source code without comments, docstrings and formatting."""
    return _hash(json.dumps(_syntax(ast.parse(source))))


def _syntax(node: Any) -> Any:
    """Return a syntax tree as nested lists. Empty fields are left out, because their names depend on the version."""
    if isinstance(node, list):
        return [_syntax(each) for each in node if not _is_docstring(each)]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
    return [type(node).__name__, *([name, _syntax(value)] for name, value in fields if name != "kind")]


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def changes(before: Hashes, now: Hashes) -> list[Change]:
    """List the names whose hashes differ, with both hashes."""
    names = sorted(before.keys() | now.keys())
    pairs = [(name, before.get(name, ""), now.get(name, "")) for name in names]
    return [pair for pair in pairs if pair[1] != pair[2]]


def format_hashes(hashes: Hashes) -> str:
    """Format hashes as one line."""
    return " ".join(f"{name}:{each}" for name, each in sorted(hashes.items()))


def parse_hashes(text: str) -> Hashes:
    """Read what `format_hashes` wrote."""
    return dict(pair.split(":") for pair in text.split())

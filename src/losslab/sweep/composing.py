"""Composes the configurations of the jobs of a sweep, most of them faster than Hydra. Imports no torch."""

import copy
import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any, NamedTuple

import yaml
from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf._utils import get_omega_conf_dumper
from omegaconf.errors import OmegaConfBaseException

from losslab.io import conf_groups
from losslab.runs.trust import leaves
from losslab.training import interpolations
from losslab.training.config import to_plain

_KEY = re.compile(r"(?!hydra\b)[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,15})", re.ASCII)
_MISSING = object()


class ValueOverride(NamedTuple):
    """An override such as optimizer.lr=0.1, which sets a single value and does not choose a file."""

    key: str
    value: int | float | bool | str | None
    text: str


class Template:
    """A configuration that Hydra composed. Those of jobs that differ only in single values are derived from it.

    Args:
        config: the configuration.
        overrides: the overrides of its job.
    """

    def __init__(self, config: DictConfig, overrides: Sequence[ValueOverride | str]) -> None:
        task = _without_hydra(copy.deepcopy(config))
        self._config, self._task = pickle.dumps(config), pickle.dumps(task)
        self._keys = [part.key if isinstance(part, ValueOverride) else _parse(part).key_or_group for part in overrides]
        self.choices: dict[str, Any] = OmegaConf.to_container(config.hydra.runtime.choices)  # type: ignore[assignment]
        self.folders = conf_groups.source_folders(config.hydra.runtime.config_sources)
        self.task = to_plain(task)
        """The configuration without the key `hydra` as plain containers, with unresolved interpolations."""
        self.hydra: dict[str, Any] = OmegaConf.to_container(config.hydra, enum_to_str=True)  # type: ignore[assignment]
        """The configuration of Hydra as plain containers, with unresolved interpolations."""

    @cached_property
    def refers_to_hydra(self) -> bool:
        """Whether a value of the configuration is an interpolation such as ${hydra:job.num}."""
        return any("hydra:" in value for _, value in leaves(self.task) if interpolations.is_interpolation(value))

    def full_config(self, overrides: Sequence[ValueOverride | str]) -> DictConfig:
        """Return the configuration of a job, with the key `hydra`."""
        config = _with_values(self._config, overrides)
        for index, part in enumerate(overrides):
            if isinstance(part, ValueOverride):
                config.hydra.overrides.task[index] = part.text
                config.hydra.job.override_dirname = self._override_dirname(overrides)
        return config

    def task_config(self, overrides: Sequence[ValueOverride | str]) -> DictConfig:
        """Return the configuration of a job without the key `hydra`."""
        return _with_values(self._task, overrides)

    def plain(self, overrides: Sequence[ValueOverride | str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the configuration of a job without the key `hydra`, and the value of this key, as plain containers."""
        task, hydra = self.task, self.hydra
        if any(isinstance(part, ValueOverride) for part in overrides):
            hydra = with_value(hydra, "overrides.task", list(map(text, overrides)))
            hydra = with_value(hydra, "job.override_dirname", self._override_dirname(overrides))
        for part in overrides:
            if isinstance(part, ValueOverride):
                task = with_value(task, part.key, part.value)
        return task, hydra

    def _override_dirname(self, overrides: Sequence[ValueOverride | str]) -> str:
        parts: Any = [
            SimpleNamespace(key_or_group=key, input_line=text(part))
            for key, part in zip(self._keys, overrides, strict=True)
        ]
        return get_overrides_dirname(parts, **self.hydra["job"]["config"]["override_dirname"])

    def value_is_set(self, override: ValueOverride) -> bool:
        """Return whether an override has set a single value of the configuration, and nothing changed it afterwards."""
        value: Any = self.task
        for name in override.key.split("."):
            value = value.get(name, _MISSING) if isinstance(value, dict) else _MISSING
        return type(value) is type(override.value) and value == override.value

    def can_vary(self, overrides: Sequence[str]) -> bool:
        """Return whether the settings of Hydra that depend on the overrides of the job can be derived."""
        texts = [value for _, value in leaves(self.hydra["job"]["config"])]
        return self.hydra["overrides"]["task"] == [*overrides] and not any(map(interpolations.is_interpolation, texts))


def _without_hydra(config: DictConfig) -> DictConfig:
    with read_write(config), open_dict(config):
        del config["hydra"]
    return config


def _with_values(pickled: bytes, overrides: Sequence[ValueOverride | str]) -> DictConfig:
    config: DictConfig = pickle.loads(pickled)  # noqa: S301 -- pickled by `Template`
    for part in overrides:
        if isinstance(part, ValueOverride):
            OmegaConf.update(config, part.key, part.value)
    return config


def text(override: ValueOverride | str) -> str:
    """Return an override as it was typed."""
    return override.text if isinstance(override, ValueOverride) else override


def _parse(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


class Composer:
    """Composes the configurations of jobs like `load_sweep_config` of a Hydra config loader, and with equal results.

    Hydra composes the first job of each combination of choices. For another job that differs from it only in single
    values, such as optimizer.lr=0.1, a copy is made, in which the values are set by the function that Hydra calls.

    Args:
        load: `load_sweep_config` of the config loader.
        master: the configuration of the sweep.
    """

    def __init__(self, load: Callable[[DictConfig, list[str]], DictConfig], master: DictConfig) -> None:
        self._load, self._master = load, master
        self._templates: dict[tuple[tuple[bool, str], ...], Template] = {}
        self._parsed: dict[str, ValueOverride | None] = {}
        self._other_keys: set[str] = set()
        """Keys that look like those of values, but choose files or are changed by other overrides."""

    def compose(self, overrides: Sequence[str], *, with_hydra: bool = True) -> DictConfig:
        """Return the configuration of a job, with or without the key `hydra`.

        Raises:
            CompactHydraException: an override is wrong.
        """
        template, parts = self.template(overrides)
        try:
            config = template.full_config(parts) if with_hydra else template.task_config(parts)
        except OmegaConfBaseException:  # Hydra names the override
            config = self._load(self._master, list(overrides))
            config = config if with_hydra else _without_hydra(config)
        OmegaConf.copy_cache(from_config=self._master, to_config=config)
        return config

    def template(self, overrides: Sequence[str]) -> tuple[Template, list[ValueOverride | str]]:
        """Return the template from which the configuration of a job is derived, and the overrides as it needs them.

        Raises:
            CompactHydraException: an override is wrong.
        """
        parts = self._parts(overrides)
        template = self._templates.get(_signature(parts))
        if template is None:
            template = Template(self._load(self._master, list(overrides)), parts)
            can_vary = template.can_vary(overrides)
            values = [part for part in parts if isinstance(part, ValueOverride)]
            self._other_keys |= {part.key for part in values if not (can_vary and template.value_is_set(part))}
            parts = self._parts(overrides)
            self._templates[_signature(parts)] = template
        return template, parts

    def _parts(self, overrides: Sequence[str]) -> list[ValueOverride | str]:
        for override in overrides:
            if override not in self._parsed:
                self._parsed[override] = parse_value(override)
        parts = [(self._parsed[override], override) for override in overrides]
        return [override if part is None or part.key in self._other_keys else part for part, override in parts]


def _signature(parts: Sequence[ValueOverride | str]) -> tuple[tuple[bool, str], ...]:
    """Return what the overrides of jobs have in common whose configurations are derived from one template."""
    return tuple((True, part.key) if isinstance(part, ValueOverride) else (False, part) for part in parts)


def parse_value(override: str) -> ValueOverride | None:
    """Return an override that sets a single value; None if it is another one, or if it cannot be parsed."""
    key, equals, typed = override.partition("=")
    if not equals or not _KEY.fullmatch(key):
        return None
    if _INTEGER.fullmatch(typed):
        return ValueOverride(key, int(typed), override)
    try:
        parsed = _parse(override)
        value: Any = parsed.value()
    except HydraException:
        return None
    is_change = parsed.type is OverrideType.CHANGE and parsed.package is None and not parsed.is_sweep_override()
    if not is_change or not isinstance(value, int | float | str | None):
        return None
    return None if value == "???" or interpolations.is_interpolation(value) else ValueOverride(key, value, override)


def with_value(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return a copy of nested dicts with another value. Only the dicts that contain it are copied."""
    name, _, rest = key.partition(".")
    return {**config, name: with_value(config[name], rest, value) if rest else value}


class YamlWriter:
    """Writes plain containers in the same format as `OmegaConf.save`. Parts that it has written before take no time."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], str] = {}

    def format(self, config: Mapping[str, Any] | list[str]) -> str:
        """Return the text of a configuration."""
        if isinstance(config, list):
            return _to_yaml(config)
        if len(config) == 1:  # hydra.yaml has only the key hydra
            ((name, sections),) = config.items()
            if isinstance(sections, dict) and sections:
                return f"{name}:\n" + "".join(self._section(name, *section) for section in sections.items())
        return "".join(self._section("", *section) for section in config.items())

    def _section(self, parent: str, name: str, content: Any) -> str:
        key = (parent, name, json.dumps(content, default=repr))
        known = self._known.get(key)
        if known is None:
            known = _to_yaml({parent: {name: content}}).partition("\n")[2] if parent else _to_yaml({name: content})
            self._known[key] = known
        return known


class _Dumper(getattr(yaml, "CDumper", yaml.Dumper)):  # type: ignore[misc]
    """The dumper of OmegaConf, in C if available."""


_Dumper.add_representer(str, get_omega_conf_dumper().str_representer)


def _to_yaml(content: Any) -> str:
    return yaml.dump(content, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=_Dumper)  # type: ignore[no-any-return]

"""Resolves the interpolations of a configuration as OmegaConf does, but faster. Imports no torch.

OmegaConf parses an interpolation each time it is resolved, which takes longer than everything else. Here, the values of
plain references such as ${optimizer.lr} are looked up, and functions such as ${divisor:10,${x}} are called.
OmegaConf resolves only the other interpolations.
"""

import re
from collections.abc import Callable, Mapping
from functools import reduce
from operator import getitem
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\}", re.ASCII)
_ARGUMENT = rf"(?:0|[1-9]\d*|null|{_REFERENCE.pattern.replace('(', '(?:', 1)})"
_CALL = re.compile(rf"\$\{{(\w+):({_ARGUMENT}(?:,{_ARGUMENT})*)\}}", re.ASCII)
_MAX_DEPTH = 20
NOT_FOUND = object()
"""What `look_up` returns if OmegaConf must resolve an interpolation."""


def resolve_all(
    plain: Mapping[str, Any], load: Callable[[], DictConfig], functions: Mapping[str, Callable[..., Any]]
) -> dict[str, Any]:
    """Return the same as `OmegaConf.to_container(load(), resolve=True)`.

    Args:
        plain: the result of `OmegaConf.to_container` with `resolve=False`.
        load: returns the configuration. It is called only if OmegaConf must resolve an interpolation.
        functions: resolvers by name, whose results are single values and depend only on their arguments.

    Raises:
        OmegaConfBaseException: an interpolation cannot be resolved.
    """

    def resolved(value: Any, keys: tuple[Any, ...]) -> Any:
        if isinstance(value, Mapping):
            return {key: resolved(each, (*keys, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [resolved(each, (*keys, index)) for index, each in enumerate(value)]
        if not is_interpolation(value):
            return value
        found = look_up(plain, value)
        if found is NOT_FOUND:
            found = _call(plain, value, functions)
        if found is NOT_FOUND:
            found = reduce(getitem, keys, load())
        return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found

    try:
        result: dict[str, Any] = resolved(plain, ())
    except OmegaConfBaseException:
        result = OmegaConf.to_container(load(), resolve=True)  # type: ignore[assignment]  # raises its usual message
    return result


def _call(root: Mapping[str, Any], text: str, functions: Mapping[str, Callable[..., Any]]) -> Any:
    """Return the result of one of the functions whose arguments are integers, null or references."""
    call = _CALL.fullmatch(text)
    if call is None or call[1] not in functions:
        return NOT_FOUND
    arguments = [
        int(each) if each.isdecimal() else None if each == "null" else look_up(root, each)
        for each in call[2].split(",")
    ]
    return NOT_FOUND if NOT_FOUND in arguments else functions[call[1]](*arguments)


def is_interpolation(value: Any) -> bool:
    """Return whether a value contains an interpolation, which may be escaped."""
    return isinstance(value, str) and "${" in value


def look_up(root: Mapping[str, Any], text: str) -> Any:
    """Return the value of an interpolation if it is a plain reference to a single value, otherwise `NOT_FOUND`."""
    for _ in range(_MAX_DEPTH):
        reference = _REFERENCE.fullmatch(text)
        value: Any = NOT_FOUND if reference is None else _value_at(root, reference[1])
        if not is_interpolation(value):
            return NOT_FOUND if isinstance(value, Mapping | list) or value == "???" else value
        text = value
    return NOT_FOUND


def _value_at(root: Mapping[str, Any], key: str) -> Any:
    value: Any = root
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return NOT_FOUND
        value = value[name]
    return value


def select(cfg: DictConfig, plain: Mapping[str, Any], key: str) -> Any:
    """Return the same as `OmegaConf.select(cfg, key)`, but a dict or list if it is a container without interpolation.

    `plain` is the result of `OmegaConf.to_container` for `cfg` with `resolve=False`.
    """
    value: Any = plain
    for name in key.split("."):
        if is_interpolation(value):
            return OmegaConf.select(cfg, key)
        if not isinstance(value, Mapping) or name not in value:
            return None
        value = value[name]
    return OmegaConf.select(cfg, key) if is_interpolation(value) or value == "???" else value

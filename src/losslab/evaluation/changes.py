"""`--data KEY=VALUE`: the data of a finished run with some of their options changed."""

import inspect
import os
import types
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from losslab.errors import LabError
from losslab.making import class_of

DRAWN_ANEW = {"split_seed", "val_size", "data_seed", "subset"}
"""Options by which training and held-out examples change places."""


def parse(given: Sequence[str], data: dict[str, Any]) -> dict[str, Any]:
    """The options of `KEY=VALUE`, read as Hydra reads them on the command line of train.py.

    Args:
        given: as typed; "data.KEY=VALUE" is understood too.
        data: the configuration of the run's data.

    Raises:
        LabError: what was typed is no such pair, the data have no such option, or it takes no such value.
    """
    accepted = _accepted(data) if given else {}
    changes = {}
    for typed in given:
        name, _, _ = typed.removeprefix("data.").partition("=")
        key, value = _pair(typed)
        known = [key for key in data if not key.startswith("_")]
        if key not in known and key not in accepted:
            everything = sorted({*known, *accepted})
            near = get_close_matches(key, everything)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(everything)}"
            message = f"--data {name}: these data have no such option; {hint}"
            raise LabError(message)
        if key in accepted and not _is(value, accepted[key]):
            message = f"--data {typed}: {key} must be {_named(accepted[key])}, got {value!r}"
            raise LabError(message)
        changes[key] = value
    return changes


def _pair(typed: str) -> tuple[str, Any]:
    if "=" not in typed:
        message = f"--data takes KEY=VALUE, as in --data dir=/somewhere: got {typed}"
        raise LabError(message)
    try:
        override = OverridesParser.create().parse_override(typed.removeprefix("data."))
    except HydraException as error:
        message = f"--data {typed}: {str(error).splitlines()[0]} (quote what has spaces or brackets: 'KEY=\"a b\"')"
        raise LabError(message) from error
    if override.is_sweep_override() or override.is_delete() or override.is_add() or override.package is not None:
        message = f"--data {typed}: one value is evaluated at a time, as KEY=VALUE"
        raise LabError(message)
    return override.key_or_group, override.value()


def _accepted(data: dict[str, Any]) -> dict[str, Any]:
    """What the data module may be given by name, and the types it declares."""
    parameters = inspect.signature(class_of("data", data), eval_str=True).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL}}


_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}


def _is(value: Any, declared: Any) -> bool:
    """Whether a value is of a declared type, as far as that can be said; True where it cannot."""
    if get_origin(declared) in (Union, types.UnionType):
        return any(_is(value, each) for each in get_args(declared))
    if (get_origin(declared) or declared) in (os.PathLike, Path):
        return isinstance(value, str)
    if declared not in _PLAIN:
        return True
    if isinstance(value, bool):
        return declared is bool
    return isinstance(value, int | float if declared is float else declared)


def _named(declared: Any) -> str:
    options = get_args(declared) if get_origin(declared) in (Union, types.UnionType) else (declared,)
    return " or ".join(dict.fromkeys(_PLAIN.get(option, "a path") for option in options))

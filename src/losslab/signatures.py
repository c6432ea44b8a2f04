"""What can be made of a part of the configuration, told from the signature of what it names."""

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from math import isnan
from os import PathLike
from pathlib import Path
from reprlib import Repr
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from torch import Tensor

from losslab.errors import LabError

_TRUSTED = ("losslab", "lightning", "torch", "torchvision")
"""Whose annotations are right; others' may say less than is taken."""
_HYDRAS = ("_target_", "_partial_", "_recursive_", "_convert_")
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a word",
    type(None): "null",
}
_repr = Repr()
_repr.maxstring = _repr.maxother = 60


def check(place: str, config: Any) -> None:
    """Refuse what a part of the configuration sets and what it names does not take, in the parts within it too.

    Raises:
        LabError: there is no such option, or its value is of another kind than its annotation says.
    """
    if not isinstance(config, Mapping):
        return
    for name, value in config.items():
        for number, each in enumerate(value if isinstance(value, list | tuple) else ()):
            check(f"{place}.{name}[{number}]", each)
        check(f"{place}.{name}", value)
    if not isinstance(config.get("_target_"), str) or "_args_" in config:
        return
    try:
        target = get_object(config["_target_"])
        parameters = inspect.signature(target).parameters
        hints = get_type_hints(target if inspect.isroutine(target) else target.__init__)
    except Exception:  # noqa: BLE001 -- it is not there, is written in C++, or names types that are not
        return
    options = {str(name): value for name, value in config.items() if name not in _HYDRAS}
    _check_names(place, target.__name__, options, parameters)
    if str(target.__module__).partition(".")[0] in _TRUSTED:
        for name, value in options.items():
            hint = hints.get(name, Any)
            if not (name in parameters and value is parameters[name].default) and not fits(value, hint):
                message = f"{place}.{name} must be {in_words(hint)}, got {shown(value)}"
                raise LabError(message)


def _check_names(
    place: str, called: str, options: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> None:
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in options:
        if name not in parameters:
            known = [each for each in parameters if each != "self"]
            alike = get_close_matches(name, known)
            what = f"did you mean {alike[0]}?" if alike else f"it takes {', '.join(known) or 'nothing'}"
            message = f"{place}.{name}: {called} takes no such thing: {what}"
            raise LabError(message)


def shown(value: Any) -> str:
    """A value as it may be written on the command line, cut where it is long."""
    words = {True: "true", False: "false", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else _repr.repr(value)


def fits(value: Any, hint: Any) -> bool:  # noqa: C901, PLR0911 -- a line for each kind of annotation
    """Whether a value of a configuration is what an annotation says; true where that cannot be told."""
    origin, inside = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in {Union, types.UnionType}:
        return any(fits(value, each) for each in inside)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in inside)
    if isinstance(value, Mapping) and "_target_" in value:
        return not (isinstance(hint, type) and issubclass(hint, bool | int | float | str))
    kind = origin or hint
    if not isinstance(kind, type):
        return True
    if kind in {int, float}:
        plain = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        return plain and not (isinstance(value, float) and isnan(value))
    if kind is Tensor:
        return isinstance(value, Tensor)
    if kind in {Path, PathLike}:
        return isinstance(value, str | Path)
    if isinstance(value, list | tuple) and issubclass(kind, Iterable) and not issubclass(kind, str | Mapping):
        each = inside[0] if inside else Any
        alike = len(inside) < 2 or inside[1] is ...
        return all(map(fits, value, [each] * len(value))) if alike else _fit_in_order(value, inside)
    if kind is Mapping or kind is dict:
        return isinstance(value, Mapping) and all(fits(each, inside[1] if inside else Any) for each in value.values())
    if issubclass(kind, Callable):  # type: ignore[arg-type]
        return callable(value)
    try:
        return isinstance(value, kind) and not (kind is not str and kind is not object and isinstance(value, str))
    except TypeError:  # a protocol that says nothing at run time
        return True


def _fit_in_order(value: Any, hints: tuple[Any, ...]) -> bool:
    return len(value) == len(hints) and all(map(fits, value, hints))


def _words(hint: Any) -> list[str]:
    return [shown(each).strip("'") for each in get_args(hint)] if get_origin(hint) is Literal else [in_words(hint)]


def in_words(hint: Any) -> str:
    """What an annotation says, in the words of a configuration."""
    origin, inside = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        # A tensor no configuration can hold: it is there for who calls from Python.
        return " or ".join(dict.fromkeys(word for each in inside if each is not Tensor for word in _words(each)))
    if origin is Literal:
        return " or ".join(_words(hint))
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Iterable) and kind not in {str, Tensor}:
        several = issubclass(kind, Mapping)
        each = in_words(inside[0]).removeprefix("a ").replace(" or a ", " or ") if inside else ""
        return "settings by name" if several else f"a list ({each} each)" if inside else "a list"
    if kind in {Path, PathLike}:
        return "a path"
    return _WORDS.get(kind, f"a {getattr(kind, '__name__', kind)} (_target_=...)")

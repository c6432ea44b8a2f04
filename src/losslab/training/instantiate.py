"""What can be made of a part of the configuration, told from the signature of what it names.

Single parts of an experiment out of their configurations; what is wrong with one is said in one line.
"""

import importlib
import inspect
import re
import traceback
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from math import isnan
from os import PathLike
from pathlib import Path
from reprlib import Repr
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from losslab.data.batch import DataSpec
from losslab.errors import LabError
from losslab.losses.adapter.adapted import adapt
from losslab.losses.base import Loss
from losslab.models.cosine import with_cosine_outputs
from losslab.targets import Kind

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
                raise LabError(f"{place}.{name} must be {in_words(hint)}, got {shown(value)}")


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
            raise LabError(f"{place}.{name}: {called} takes no such thing: {what}")


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


def make(place: str, config: Any, **given: Any) -> Any:
    """What a part of the configuration describes; what is wrong with it becomes one line that names the place."""
    if config is not None and not (isinstance(config, Mapping) and isinstance(config.get("_target_"), str)):
        group = place.partition(".")[0]
        raise LabError(f"{place}: it does not say what is to be made: set {place}._target_, or choose {group}=NAME")
    described = {**config, **given} if config else given
    with one_line(place):
        try:
            made = instantiate(config, **given)
        except InstantiationException as error:
            if not isinstance(error.__cause__, LabError):
                check(place, described)  # in better words, if it is a value's kind
            raise
        check(place, described)
        return made


def make_later(place: str, config: Any) -> Any:
    """The same for what can only be made once the rest is there (an optimizer of parameters): a function that makes it.

    Raises:
        LabError: it would be made now.
    """
    if isinstance(config, Mapping) and config.get("_partial_") in (False, None):
        raise LabError(f"{place}._partial_ must be true: it is made later, of what it is for")
    return make(place, config)


def make_loss(config: dict[str, Any], kind: Kind, targets: int) -> Loss:
    """The loss of a configuration for targets of a kind, adapted if it is none of losslab's.

    Raises:
        LabError: there is no such thing, or it takes no such targets.
    """
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    if _wants_more(_named(str(config["_target_"])), options) and "_partial_" not in config:
        config = config | {"_partial_": True}
    loss = adapt(make("loss", config), kind, targets)
    if not loss.wants:
        name = type(loss).__name__
        raise LabError(
            f"{name} must say which targets it takes: wants = (Kind.INDEX, Kind.PROBABILITIES), for instance"
        )
    return loss


def make_alone(config: dict[str, Any], targets: int) -> Loss:
    """The loss of a configuration where there are no data: for so many classes, labels or values.

    A criterion from elsewhere is asked to take class indices first (or what they can be spelt as), then values, then
    0/1 labels.

    Raises:
        LabError: there is no such thing, or it takes none of these.
    """
    refused: LabError | None = None
    for kind in (Kind.INDEX, Kind.VALUES, Kind.BINARY):
        try:
            return make_loss(config, kind, targets)
        except LabError as error:
            refused = refused or error
    assert refused is not None  # noqa: S101 -- for the type checker
    raise refused


def class_of(place: str, config: dict[str, Any]) -> type:
    """The class that a part of the configuration is made of, which is not made.

    Raises:
        LabError: there is no such class.
    """
    target = str(config["_target_"])
    path, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(path), name)
    except Exception as error:  # whatever importing it raises
        raise LabError(
            f"{place}: cannot import {target} ({' '.join(str(error).split())}): set {place}._target_ to a class"
        ) from error
    if not isinstance(found, type):
        raise LabError(f"{place}: {target} is no class: set {place}._target_ to one")
    return found


def _named(target: str) -> Any:
    """What a path names; None where only making it can say what is wrong, or where it lies inside a class.

    Raises:
        LabError: its module has no such name. It says which names come near.
    """
    path, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(path)
    except Exception:  # noqa: BLE001 -- whatever importing it raises is said when it is made
        return None
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == path]
        alike = get_close_matches(name, dir(module)) or own
        raise LabError(f"{path} has no {name}, but {', '.join(alike) or 'nothing like it'}")
    return getattr(module, name)


def _wants_more(named: Any, options: dict[str, Any]) -> bool:
    """Whether this is a function that these options do not suffice for: it waits for outputs and targets."""
    if not inspect.isroutine(named):
        return False
    try:
        inspect.signature(named).bind(**options)
    except (TypeError, ValueError):  # ValueError: one of torch's own, written in C++
        return True
    return False


def make_network(config: dict[str, Any], spec: DataSpec, loss: Loss) -> nn.Module:
    """The network of a configuration, with as many outputs as the loss needs for these data."""
    outputs = loss.outputs(spec.targets)
    network: nn.Module = make("model", config["model"], input_shape=spec.input_shape, outputs=outputs)
    if loss.cosine_outputs:
        network = with_cosine_outputs(network)
    if str(config["trainer"].get("precision")) == "64-true":
        network = network.double()  # as Lightning will: now, so that float64 weights can be loaded
    return network.to(memory_format=torch.channels_last) if len(spec.input_shape) > 1 else network


@contextmanager
def one_line(place: str) -> Iterator[None]:
    """Turn what Hydra and Lightning raise on bad values into one line that says where the value stands."""
    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, LabError):
            raise LabError(str(cause)) from error  # it names the value itself
        raise LabError(" ".join(f"{place}: {cause or error}".split())) from error
    except TypeError as error:
        flag = re.match(r"Instantiation: (_\w+_) flag must be a bool", str(error))  # Hydra's own
        if flag is None:
            raise
        raise LabError(f"{place}.{flag[1]} must be true or false") from error
    except RuntimeError as error:
        if "torch/optim" not in Path(traceback.extract_tb(error.__traceback__)[-1].filename).as_posix():
            raise
        raise LabError(
            f"optimizer: it cannot take a step ({' '.join(str(error).split())}): look at optimizer and scheduler"
        ) from error
    except MisconfigurationException as error:
        raise LabError(" ".join(f"{place}: {error}".split())) from error

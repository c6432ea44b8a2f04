"""Instantiating single parts of a configuration. Errors are one line that names the config key.

Arguments are validated against the signature of what `_target_` names, since Hydra's own messages do not say what is
accepted instead.
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

_CHECKED_PACKAGES = ("losslab", "lightning", "torch", "torchvision")
"""Packages whose annotations are complete; those of others may list less than is accepted."""
_HYDRA_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_")
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "null"}
_repr = Repr()
_repr.maxstring = _repr.maxother = 60


def make(key: str, config: Any, **arguments: Any) -> Any:
    """Instantiate a part of the configuration.

    Args:
        key: of the part, for messages.
        config: the part, with a `_target_`; or None, which gives None.
        arguments: further arguments.

    Raises:
        LabError: it cannot be instantiated, or has an argument that its target does not accept.
    """
    if config is not None and not (isinstance(config, Mapping) and isinstance(config.get("_target_"), str)):
        group = key.partition(".")[0]
        raise LabError(f"{key}: it has no _target_: set {key}._target_, or choose {group}=NAME")
    whole = {**config, **arguments} if config else arguments
    with translate_errors(key):
        try:
            made = instantiate(config, **arguments)
        except InstantiationException as error:
            if not isinstance(error.__cause__, LabError):
                validate_arguments(key, whole)  # says it better, if an argument is wrong
            raise
        validate_arguments(key, whole)
        return made


def make_partial(key: str, config: Any) -> Any:
    """Instantiate a function that makes the part later, such as an optimizer once there are parameters.

    Raises:
        LabError: as `make`; or the configuration is not `_partial_`.
    """
    if isinstance(config, Mapping) and config.get("_partial_") in (False, None):
        raise LabError(f"{key}._partial_ must be true: it is instantiated later")
    return make(key, config)


def make_loss(config: dict[str, Any], kind: Kind, targets: int) -> Loss:
    """Instantiate the loss for targets of a kind; a criterion of another library is adapted.

    Raises:
        LabError: it cannot be instantiated, or does not take such targets.
    """
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    if _is_function_of_outputs(_import(str(config["_target_"])), arguments) and "_partial_" not in config:
        config = config | {"_partial_": True}
    loss = adapt(make("loss", config), kind, targets)
    if not loss.wants:
        name = type(loss).__name__
        raise LabError(
            f"{name} must say which targets it takes: wants = (Kind.INDEX, Kind.PROBABILITIES), for instance"
        )
    return loss


def make_loss_without_data(config: dict[str, Any], targets: int) -> Loss:
    """Instantiate the loss for this number of classes, labels or values.

    A criterion of another library is tried with class indices first, then with values, then with 0/1 labels.

    Raises:
        LabError: it cannot be instantiated, or takes none of these.
    """
    refused: LabError | None = None
    for kind in (Kind.INDEX, Kind.VALUES, Kind.BINARY):
        try:
            return make_loss(config, kind, targets)
        except LabError as error:
            refused = refused or error
    assert refused is not None  # noqa: S101 -- for the type checker
    raise refused


def make_network(config: dict[str, Any], spec: DataSpec, loss: Loss) -> nn.Module:
    """Instantiate the network of a whole configuration, with as many outputs as the loss needs for these data."""
    outputs = loss.outputs(spec.targets)
    network: nn.Module = make("model", config["model"], input_shape=spec.input_shape, outputs=outputs)
    if loss.cosine_outputs:
        network = with_cosine_outputs(network)
    if str(config["trainer"].get("precision")) == "64-true":
        network = network.double()  # as Lightning does later: now, so that float64 weights can be loaded
    return network.to(memory_format=torch.channels_last) if len(spec.input_shape) > 1 else network


def import_class(key: str, config: dict[str, Any]) -> type:
    """Import the class that a part of the configuration names.

    Raises:
        LabError: there is no such class.
    """
    target = str(config["_target_"])
    module, _, name = target.rpartition(".")
    try:
        value = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever importing raises
        raise LabError(
            f"{key}: cannot import {target} ({' '.join(str(error).split())}): set {key}._target_ to a class"
        ) from error
    if not isinstance(value, type):
        raise LabError(f"{key}: {target} is no class: set {key}._target_ to one")
    return value


def _import(target: str) -> Any:
    """Import what a dotted name names; None if its module cannot be imported, which instantiating it then reports.

    Raises:
        LabError: its module has no such name; the message lists similar ones.
    """
    path, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(path)
    except Exception:  # noqa: BLE001 -- whatever importing raises
        return None
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == path]
        similar = get_close_matches(name, dir(module)) or own
        raise LabError(f"{path} has no {name}, but {', '.join(similar) or 'nothing like it'}")
    return getattr(module, name)


def _is_function_of_outputs(value: Any, arguments: dict[str, Any]) -> bool:
    """Return whether this is a function that needs more than these arguments: outputs and targets."""
    if not inspect.isroutine(value):
        return False
    try:
        inspect.signature(value).bind(**arguments)
    except (TypeError, ValueError):  # ValueError: a function written in C++ has no signature
        return True
    return False


@contextmanager
def translate_errors(key: str) -> Iterator[None]:
    """Turn what Hydra, Lightning and torch.optim raise on wrong values into a LabError of one line."""
    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, LabError):
            raise LabError(str(cause)) from error  # it names the value itself
        raise LabError(" ".join(f"{key}: {cause or error}".split())) from error
    except TypeError as error:
        flag = re.match(r"Instantiation: (_\w+_) flag must be a bool", str(error))  # Hydra's own
        if flag is None:
            raise
        raise LabError(f"{key}.{flag[1]} must be true or false") from error
    except RuntimeError as error:
        if "torch/optim" not in Path(traceback.extract_tb(error.__traceback__)[-1].filename).as_posix():
            raise
        raise LabError(
            f"optimizer: it cannot take a step ({' '.join(str(error).split())}): look at optimizer and scheduler"
        ) from error
    except MisconfigurationException as error:
        raise LabError(" ".join(f"{key}: {error}".split())) from error


def validate_arguments(key: str, config: Any) -> None:
    """Check the arguments in a part of the configuration, and in the parts within it, against their signatures.

    Raises:
        LabError: there is no such argument, or its value does not match its annotation.
    """
    if not isinstance(config, Mapping):
        return
    for name, value in config.items():
        for index, item in enumerate(value if isinstance(value, list | tuple) else ()):
            validate_arguments(f"{key}.{name}[{index}]", item)
        validate_arguments(f"{key}.{name}", value)
    if not isinstance(config.get("_target_"), str) or "_args_" in config:
        return
    try:
        target = get_object(config["_target_"])
        parameters = inspect.signature(target).parameters
        hints = get_type_hints(target if inspect.isroutine(target) else target.__init__)
    except Exception:  # noqa: BLE001 -- it does not exist, is written in C++, or its annotations cannot be resolved
        return
    arguments = {str(name): value for name, value in config.items() if name not in _HYDRA_KEYS}
    unknown = [name for name in arguments if name not in parameters]
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        known = [name for name in parameters if name != "self"]
        similar = get_close_matches(unknown[0], known)
        hint = f"did you mean {similar[0]}?" if similar else f"it takes {', '.join(known) or 'nothing'}"
        raise LabError(f"{key}.{unknown[0]}: {target.__name__} takes no such argument: {hint}")
    if str(target.__module__).partition(".")[0] in _CHECKED_PACKAGES:
        for name, value in arguments.items():
            hint = hints.get(name, Any)
            is_default = name in parameters and value is parameters[name].default
            if not is_default and not matches_annotation(value, hint):
                raise LabError(f"{key}.{name} must be {describe_annotation(hint)}, got {format_value(value)}")


def matches_annotation(value: Any, hint: Any) -> bool:  # noqa: C901, PLR0911 -- a line for each kind of annotation
    """Return whether a value of a configuration matches an annotation; true where that cannot be told."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in {Union, types.UnionType}:
        return any(matches_annotation(value, each) for each in arguments)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in arguments)
    if isinstance(value, Mapping) and "_target_" in value:
        return not (isinstance(hint, type) and issubclass(hint, bool | int | float | str))
    kind = origin or hint
    if not isinstance(kind, type):
        return True
    if kind in {int, float}:
        is_number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        return is_number and not (isinstance(value, float) and isnan(value))
    if kind is Tensor:
        return isinstance(value, Tensor)
    if kind in {Path, PathLike}:
        return isinstance(value, str | Path)
    if isinstance(value, list | tuple) and issubclass(kind, Iterable) and not issubclass(kind, str | Mapping):
        hints = arguments if len(arguments) > 1 and arguments[1] is not ... else (*arguments, Any)[:1] * len(value)
        return len(value) == len(hints) and all(map(matches_annotation, value, hints))
    if kind is Mapping or kind is dict:
        items = value.values() if isinstance(value, Mapping) else ()
        item_hint = arguments[1] if arguments else Any
        return isinstance(value, Mapping) and all(matches_annotation(item, item_hint) for item in items)
    if issubclass(kind, Callable):  # type: ignore[arg-type]
        return callable(value)
    try:
        return isinstance(value, kind) and not (kind is not str and kind is not object and isinstance(value, str))
    except TypeError:  # a protocol that cannot be checked at run time
        return True


def describe_annotation(hint: Any) -> str:
    """Describe the values that an annotation allows, as they are written in a configuration."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        # Tensors are left out: no configuration can hold one, they are for callers in Python.
        options = [option for each in arguments if each is not Tensor for option in _describe_options(each)]
        return " or ".join(dict.fromkeys(options))
    if origin is Literal:
        return " or ".join(_describe_options(hint))
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Iterable) and kind not in {str, Tensor}:
        if issubclass(kind, Mapping):
            return "settings by name"
        item = describe_annotation(arguments[0]).removeprefix("a ").replace(" or a ", " or ") if arguments else ""
        return f"a list ({item} each)" if arguments else "a list"
    if kind in {Path, PathLike}:
        return "a path"
    return _TYPE_NAMES.get(kind, f"a {getattr(kind, '__name__', kind)} (_target_=...)")


def _describe_options(hint: Any) -> list[str]:
    if get_origin(hint) is Literal:
        return [format_value(value).strip("'") for value in get_args(hint)]
    return [describe_annotation(hint)]


def format_value(value: Any) -> str:
    """Format a value as on the command line, shortened where it is long."""
    words = {True: "true", False: "false", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else _repr.repr(value)

"""Instantiates parts of a configuration. Error messages are one line, which names the config key where possible.

Arguments are validated against the signature of the `_target_`, because Hydra's messages do not list its arguments.
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

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from losslab.data.batch import DataSpec
from losslab.data.module import ExperimentDataModule
from losslab.errors import LabError, message_of, user_line
from losslab.losses.adapter.adapted import Adapted, Warn, adapt
from losslab.losses.adapter.output_kind import OutputKind
from losslab.losses.base import Loss
from losslab.targets import Kind

_TYPE_CHECKED_PACKAGES = ("losslab", "lightning", "torch", "torchvision")
"""Packages whose annotations are checked. Other packages may accept more than their annotations allow."""
_HYDRA_KEYS = ("_target_", "_partial_", "_recursive_", "_convert_")
_TYPE_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "a string", type(None): "null"}
_repr = Repr()
_repr.maxstring = _repr.maxother = 60


def make(key: str, config: Any, **arguments: Any) -> Any:
    """Instantiate the part of the configuration at the config key `key`, or return None if `config` is None.

    Raises:
        LabError: the part cannot be instantiated, or has an argument that its target does not accept.
    """
    if config is not None and not (isinstance(config, Mapping) and isinstance(config.get("_target_"), str)):
        group = key.partition(".")[0]
        raise LabError(f"{key}: it has no _target_: set {key}._target_, or choose {group}=NAME")
    all_arguments = {**config, **arguments} if config else arguments
    with translate_errors(key):
        try:
            made = instantiate(config, **arguments)
        except InstantiationException as error:
            if not isinstance(error.__cause__, LabError):
                validate_arguments(key, all_arguments)  # raises a clearer error if an argument is wrong
            raise
        validate_arguments(key, all_arguments)
        return made


def make_partial(key: str, config: Any) -> Any:
    """Return a partial function that creates an optimizer or a scheduler from the remaining arguments.

    Raises:
        LabError: see `make`; or `_partial_` is not true.
    """
    if isinstance(config, Mapping) and config.get("_partial_") in (False, None):
        raise LabError(f"{key}._partial_ must be true: {key} is called later, with the parameters or the optimizer")
    # Lists as lists, since checkpoints contain them.
    return make(key, {"_convert_": "all", **config} if isinstance(config, Mapping) else config)


def make_data(config: dict[str, Any]) -> ExperimentDataModule:
    """Instantiate the data module.

    Raises:
        LabError: it cannot be instantiated, or is not a complete subclass of `ExperimentDataModule`.
    """
    data = make("data", config)
    name = type(data).__name__
    if not isinstance(data, ExperimentDataModule):
        raise LabError(
            f"data: {name} is not a losslab.data.module.ExperimentDataModule: subclass it, and return the splits from "
            "load() instead of loaders (README, Your own data)"
        )
    for method in ("train_dataloader", "val_dataloader", "test_dataloader"):
        if getattr(type(data), method) is not getattr(ExperimentDataModule, method):
            raise LabError(
                f"data: {name} must not define {method}(): return the split from load(); batch_size, augment and "
                "transform are attributes (README, Your own data)"
            )
    if not isinstance(getattr(data, "spec", None), DataSpec):
        raise LabError(
            f"data: {name} must set spec = DataSpec(task, kind, input_shape, targets), which describes the data"
        )
    if "splits" not in vars(data):
        raise LabError(f"data: {name}.__init__() must call super().__init__(batch_size, eval_batch_size, seed=seed)")
    try:
        data.spec.check()
    except LabError as error:
        raise LabError(f"data: {name}.{error}") from error
    return data


def make_loss(config: dict[str, Any], kind: Kind, targets: int, *, warn: Warn = "all") -> Loss:
    """Instantiate the loss for targets of this kind and number. Adapt it if it is a criterion of another library.

    `warn` says which warnings about an adapted criterion are logged.

    Raises:
        LabError: the loss cannot be instantiated, or does not accept such targets.
    """
    if _is_function_of_outputs(config) and "_partial_" not in config:
        config = config | {"_partial_": True}
    loss = adapt(make("loss", config), kind, targets, warn=warn)
    if not loss.wants:
        name = type(loss).__name__
        raise LabError(
            f"loss: {name} must declare the targets that it accepts, such as wants = (Kind.INDEX, Kind.PROBABILITIES)"
        )
    return loss


_ESTIMATES = {
    Kind.VALUES: {OutputKind.VALUES, OutputKind.LOG_VALUES},
    Kind.BINARY: {OutputKind.BINARY_LOGITS, OutputKind.SIGNED_SCORES, OutputKind.PROBABILITIES},
}
"""What outputs are that estimate values or 0/1 labels. Those for class indices may be anything."""


def make_loss_without_data(config: dict[str, Any], targets: int) -> Loss:
    """Instantiate the loss for this number of classes, labels or values.

    A criterion of another library is tried with class indices, values and 0/1 labels. The first of these kinds that it
    takes as it is, and that its outputs estimate, decides.

    Raises:
        LabError: the loss cannot be instantiated or accepts none of these. The message is about class indices.
    """
    errors: list[LabError] = []
    possible: list[tuple[bool, bool, Loss]] = []
    for kind in (Kind.INDEX, Kind.VALUES, Kind.BINARY):
        try:
            loss = make_loss(config, kind, targets, warn="nothing")
        except LabError as error:
            errors.append(error)
            continue
        same_kind = loss.wants[0] is kind
        if not isinstance(loss, Adapted) or (same_kind and loss.output_kind in _ESTIMATES.get(kind, OutputKind)):
            return loss
        is_known = loss.output_kind is not OutputKind.UNKNOWN
        possible.append((is_known, same_kind and kind is Kind.VALUES, loss))
    if not possible:
        raise errors[0]
    return max(possible, key=lambda each: each[:2])[2]


def import_class(key: str, config: dict[str, Any]) -> type:
    """Import the `_target_` class of a part of the configuration.

    Raises:
        LabError: the class does not exist.
    """
    target = str(config["_target_"])
    module, _, name = target.rpartition(".")
    try:
        value = getattr(importlib.import_module(module), name)
    except Exception as error:  # the import of a module may raise anything
        raise LabError(f"{key}: cannot import {target} ({message_of(error)}): set {key}._target_ to a class") from error
    if not isinstance(value, type):
        raise LabError(f"{key}: {target} is not a class: set {key}._target_ to one")
    return value


def _is_function_of_outputs(config: dict[str, Any]) -> bool:
    """Return whether the `_target_` of a loss is a function that requires more than the configured arguments.

    Raises:
        LabError: the module of the `_target_` has no such name; the message lists similar names.
    """
    path, _, name = str(config["_target_"]).rpartition(".")
    try:
        module = importlib.import_module(path)
    except Exception:  # noqa: BLE001 -- a module may raise anything, and `make` reports the error
        return False
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == path]
        similar = " or ".join(get_close_matches(name, dir(module)))
        hint = f"did you mean {similar}?" if similar else f"it has {', '.join(own) or 'no classes or functions'}"
        raise LabError(f"loss._target_: {path} has no {name}: {hint}")
    function = getattr(module, name)
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    if inspect.isroutine(function):
        try:
            inspect.signature(function).bind(**arguments)
        except (TypeError, ValueError):  # ValueError: a function written in C++ has no signature
            return True
    return False


@contextmanager
def translate_errors(key: str) -> Iterator[None]:
    """Turn errors of Hydra, Lightning and torch.optim about wrong values of a config key into a LabError."""
    try:
        yield
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, LabError):
            raise LabError(str(cause)) from error  # its message already says what is wrong and where
        line = None if cause is None else user_line(cause)
        reason = f"{line}: {type(cause).__name__}: {cause}" if line else cause or error
        raise LabError(" ".join(f"{key}: {reason}".split())) from error
    except TypeError as error:
        flag = re.match(r"Instantiation: (_\w+_) flag must be a bool", str(error))  # a message of Hydra
        if flag is None:
            raise
        raise LabError(f"{key}.{flag[1]} must be true or false") from error
    except RuntimeError as error:
        if "torch/optim" not in Path(traceback.extract_tb(error.__traceback__)[-1].filename).as_posix():
            raise
        raise LabError(
            f"optimizer: it cannot take a step ({message_of(error)}): check the options of optimizer and scheduler"
        ) from error
    except MisconfigurationException as error:
        raise LabError(" ".join(f"{key}: {error}".split())) from error


def validate_arguments(key: str, config: Any) -> None:
    """Check the arguments of a part of the configuration, and of its nested parts, against the signatures.

    Raises:
        LabError: an argument does not exist, or its value does not match its annotation.
    """
    if not isinstance(config, Mapping):
        return
    for name, value in config.items():
        items = value if isinstance(value, list | tuple) else ()
        for index, item in enumerate(items):
            validate_arguments(f"{key}.{name}[{index}]", item)
        validate_arguments(f"{key}.{name}", value)
    if not isinstance(config.get("_target_"), str) or "_args_" in config:
        return
    try:
        target = get_object(config["_target_"])
        parameters = inspect.signature(target).parameters
        hints = get_type_hints(target if inspect.isroutine(target) else target.__init__)
    except Exception:  # noqa: BLE001 -- it does not exist, has no signature, or its annotations cannot be resolved
        return
    arguments = {str(name): value for name, value in config.items() if name not in _HYDRA_KEYS}
    unknown = [name for name in arguments if name not in parameters]
    if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        raise _unknown_arguments(key, target.__name__, unknown, [name for name in parameters if name != "self"])
    if str(target.__module__).partition(".")[0] in _TYPE_CHECKED_PACKAGES:
        for name, value in arguments.items():
            hint = hints.get(name, Any)
            is_default = name in parameters and value is parameters[name].default
            if not is_default and not matches_annotation(value, hint):
                raise LabError(f"{key}.{name} must be {describe_annotation(hint)}, got {format_value(value)}")


def _unknown_arguments(key: str, target: str, unknown: list[str], known: list[str]) -> LabError:
    """Return the error for arguments that a target lacks."""
    similar = get_close_matches(unknown[0], known)
    if similar:
        return LabError(f"{key}.{unknown[0]}: {target} has no such argument: did you mean {similar[0]}?")
    names, without = ", ".join(f"{key}.{name}" for name in unknown), " ".join(f"~{key}.{name}" for name in unknown)
    return LabError(
        f"{names}: {target} has no such argument: leave out what you set, and what files set with {without} "
        f"(it has {', '.join(known) or 'no arguments'})"
    )


def matches_annotation(value: Any, hint: Any) -> bool:  # noqa: C901, PLR0911 -- a case for each kind of annotation
    """Return whether a value of a configuration matches an annotation; True if this cannot be decided."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in {Union, types.UnionType}:
        return any(matches_annotation(value, each) for each in arguments)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in arguments)
    if isinstance(value, Mapping) and "_target_" in value:  # Hydra replaces it by an object
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
        has_fixed_length = len(arguments) > 1 and arguments[1] is not ...  # such as tuple[int, float]
        hints = arguments if has_fixed_length else (*arguments, Any)[:1] * len(value)
        return len(value) == len(hints) and all(map(matches_annotation, value, hints))
    if kind is Mapping or kind is dict:
        items = value.values() if isinstance(value, Mapping) else ()
        item_hint = arguments[1] if arguments else Any
        return isinstance(value, Mapping) and all(matches_annotation(item, item_hint) for item in items)
    if issubclass(kind, Callable):  # type: ignore[arg-type]
        return callable(value)
    try:
        # A string is also an instance of types such as Sequence, which do not mean a string.
        return isinstance(value, kind) and (kind in {str, object} or not isinstance(value, str))
    except TypeError:  # a protocol that cannot be checked at run time
        return True


def describe_annotation(hint: Any) -> str:
    """Describe the values that an annotation allows, such as "an integer or null"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, types.UnionType}:
        # Tensors are left out: they can be passed only from Python, not in a configuration.
        options = " or ".join(describe_annotation(each) for each in arguments if each is not Tensor)
        return " or ".join(dict.fromkeys(options.split(" or ")))  # each option once
    if origin is Literal:
        return " or ".join(format_value(value).strip("'") for value in arguments)
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, Iterable) and kind not in {str, Tensor}:
        if issubclass(kind, Mapping):
            return "a mapping"
        return f"a list, each item {describe_annotation(arguments[0])}" if arguments else "a list"
    if kind in {Path, PathLike}:
        return "a path"
    return _TYPE_NAMES.get(kind, f"a {getattr(kind, '__name__', kind)} (_target_=...)")


def format_value(value: Any) -> str:
    """Format a value as on the command line, shortened if it is long."""
    words = {True: "true", False: "false", None: "null"}
    return words[value] if value is None or isinstance(value, bool) else _repr.repr(value)

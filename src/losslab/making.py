"""Single parts of an experiment out of their configurations; what is wrong with one is said in one line."""

import importlib
import inspect
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from losslab import signatures
from losslab.data.batch import Facts
from losslab.errors import LabError
from losslab.losses.adapter import adapt
from losslab.losses.base import Loss
from losslab.networks.cosine import with_cosine_outputs
from losslab.targets import Kind


def make(place: str, config: Any, **given: Any) -> Any:
    """What a part of the configuration describes; what is wrong with it becomes one line that names the place."""
    if config is not None and not (isinstance(config, Mapping) and isinstance(config.get("_target_"), str)):
        group = place.partition(".")[0]
        message = f"{place}: it does not say what is to be made: set {place}._target_, or choose {group}=NAME"
        raise LabError(message)
    described = {**config, **given} if config else given
    with one_line(place):
        try:
            made = instantiate(config, **given)
        except InstantiationException as error:
            if not isinstance(error.__cause__, LabError):
                signatures.check(place, described)  # in better words, if it is a value's kind
            raise
        signatures.check(place, described)
        return made


def make_later(place: str, config: Any) -> Any:
    """The same for what can only be made once the rest is there (an optimizer of parameters): a function that makes it.

    Raises:
        LabError: it would be made now.
    """
    if isinstance(config, Mapping) and config.get("_partial_") in (False, None):
        message = f"{place}._partial_ must be true: it is made later, of what it is for"
        raise LabError(message)
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
        message = f"{name} must say which targets it takes: wants = (Kind.INDEX, Kind.PROBABILITIES), for instance"
        raise LabError(message)
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
        message = f"{place}: cannot import {target} ({' '.join(str(error).split())}): set {place}._target_ to a class"
        raise LabError(message) from error
    if not isinstance(found, type):
        message = f"{place}: {target} is no class: set {place}._target_ to one"
        raise LabError(message)
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
        message = f"{path} has no {name}, but {', '.join(alike) or 'nothing like it'}"
        raise LabError(message)
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


def make_network(config: dict[str, Any], facts: Facts, loss: Loss) -> nn.Module:
    """The network of a configuration, with as many outputs as the loss needs for these data."""
    outputs = loss.outputs(facts.targets)
    network: nn.Module = make("model", config["model"], input_shape=facts.input_shape, outputs=outputs)
    if loss.cosine_outputs:
        network = with_cosine_outputs(network)
    if str(config["trainer"].get("precision")) == "64-true":
        network = network.double()  # as Lightning will: now, so that float64 weights can be loaded
    return network.to(memory_format=torch.channels_last) if len(facts.input_shape) > 1 else network


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
        message = f"{place}.{flag[1]} must be true or false"
        raise LabError(message) from error
    except RuntimeError as error:
        if "torch/optim" not in Path(traceback.extract_tb(error.__traceback__)[-1].filename).as_posix():
            raise
        message = f"optimizer: it cannot take a step ({' '.join(str(error).split())}): look at optimizer and scheduler"
        raise LabError(message) from error
    except MisconfigurationException as error:
        raise LabError(" ".join(f"{place}: {error}".split())) from error

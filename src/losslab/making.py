"""Single parts of an experiment out of their configurations; what is wrong with one is said in one line."""

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pydoc import locate
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from losslab.data.batch import Facts
from losslab.errors import LabError
from losslab.losses.adapter import adapt
from losslab.losses.base import Loss
from losslab.networks.cosine import with_cosine_outputs
from losslab.targets import Kind


def make(place: str, config: Any, **given: Any) -> Any:
    """What a part of the configuration describes; what is wrong with it becomes one line that names the place."""
    with one_line(place):
        return instantiate(config, **given)


def make_loss(config: dict[str, Any], kind: Kind, targets: int) -> Loss:
    """The loss of a configuration for targets of a kind, adapted if it is none of losslab's.

    Raises:
        LabError: there is no such thing, or it takes no such targets.
    """
    target, options = str(config["_target_"]), {key: value for key, value in config.items() if not key.startswith("_")}
    _check_that_it_is_there(target)
    if "_partial_" not in config and _wants_more(target, options):
        config = config | {"_partial_": True}
    loss = adapt(make("loss", config), kind, targets)
    if not loss.wants:
        name = type(loss).__name__
        message = f"{name} must say which targets it takes: wants = (Kind.INDEX, Kind.PROBABILITIES), for instance"
        raise LabError(message)
    return loss


def make_alone(config: dict[str, Any], targets: int) -> Loss:
    """The loss of a configuration where there are no data: for so many classes, labels or values.

    Of a criterion from elsewhere that takes several kinds of target: indices, unless its outputs estimate values.

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


def _check_that_it_is_there(target: str) -> None:
    """Refuse a mistyped name with those that its module has."""
    path, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(path)
    except Exception:  # noqa: BLE001 -- a class within a class, or what a module raises: said when it is made
        return
    if not hasattr(module, name):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == path]
        alike = get_close_matches(name, dir(module)) or own
        message = f"{path} has no {name}, but {', '.join(alike) or 'nothing like it'}"
        raise LabError(message)


def _wants_more(target: str, options: dict[str, Any]) -> bool:
    """Whether this names a function that these options do not suffice for: it waits for outputs and targets."""
    try:
        function = locate(target)  # and not Hydra's get_object, which logs what it does not find
    except Exception:  # noqa: BLE001 -- whatever importing it raises is said when it is made
        return False
    if not inspect.isroutine(function):
        return False
    try:
        inspect.signature(function).bind(**options)
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
    except MisconfigurationException as error:
        raise LabError(" ".join(f"{place}: {error}".split())) from error

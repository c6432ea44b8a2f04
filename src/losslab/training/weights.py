"""Loads weights from Lightning checkpoints (.ckpt) and from files with the state_dict of a network (.pth)."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from losslab.errors import LabError, message_of
from losslab.io import atomic, torch_files
from losslab.losses.hyperparameters import find_hyperparameter
from losslab.models.learner import Learner
from losslab.runs import RunFolder, find_runs

_MAX_REASON = 200


class _Weights(NamedTuple):
    network: dict[str, Tensor]
    loss: dict[str, Tensor]
    """The parameters and buffers of the loss, such as the class vectors of ArcFace."""
    loss_numbers: dict[str, float]
    """The hyperparameters of the loss that `Anneal` callbacks change, by config key, with the values at this epoch."""


def find(path: Path) -> Path:
    """Return the file of weights that a path stands for: of a run, its best weights; of a folder, its only file.

    Raises:
        LabError: there is no such path, or the folder contains no weights or several.
    """
    path = path.expanduser()
    if path.is_dir():
        found = [RunFolder(path).checkpoint("best"), RunFolder(path).weights] if RunFolder(path).config.exists() else []
        found = [file for file in [*found, path / "best.ckpt", path / "last.ckpt"] if file.is_file()][:1]
        found = found or sorted(file for ending in ("ckpt", "pth", "pt") for file in path.glob(f"*.{ending}"))
        if len(found) == 1:
            return found[0]
        inside = [str(file) for file in found] or [str(run.path) for run in find_runs([path]).runs]
        what = "checkpoints" if found else "runs"
        choose = (
            f"choose one of its {len(inside)} {what}, such as {inside[0]}" if inside else "it contains no checkpoint"
        )
        raise LabError(f"{path} is a folder: {choose}")
    if not path.exists():
        alike = get_close_matches(path.name, [file.name for file in path.parent.glob("*")], 1) if path.name else []
        hint = f": did you mean {path.parent / alike[0]}?" if alike else ""
        raise LabError(f"no checkpoint at {path}{hint}")
    return path


def load(learner: Learner, path: Path, content: dict[str, Any] | None = None) -> None:
    """Load the weights of a finished or interrupted run into its network and loss.

    The file is not read if `content`, its `loaded_parts`, is given.

    Raises:
        LabError: the file is missing, damaged, or from another network, or lacks the learned parameters of the loss.
    """
    with _reading(path, content) as weights:
        learner.network.load_state_dict(_without_prefix(weights.network, learner.network))
        if weights.loss:
            learner.loss.load_state_dict(weights.loss)
        elif names := [name for name, _ in learner.loss.named_parameters()]:
            raise LabError(
                f"{path} lacks the learned parameters of the loss ({', '.join(names)}): use best.ckpt or last.ckpt"
            )
        for key, value in weights.loss_numbers.items():
            loss, name = find_hyperparameter(learner.loss, key)
            loss.set_hyperparameter(name, value)


def initialize(learner: Learner, path: Path) -> None:
    """Initialise a new run from the weights in a file. For errors see `load`.

    The file may be from another loss: only parameters of the loss whose names and shapes match are loaded.
    """
    with _reading(path) as weights:
        learner.network.load_state_dict(_without_prefix(weights.network, learner.network))
        # Buffers of a loss, such as class weights, are not loaded: the configuration of this run determines them.
        fitting = {
            name: weights.loss[name]
            for name, parameter in learner.loss.named_parameters()
            if name in weights.loss and weights.loss[name].shape == parameter.shape
        }
        learner.loss.load_state_dict(fitting, strict=False)


def load_network(network: nn.Module, path: Path) -> None:
    """Load weights into a network. For errors see `load`."""
    with _reading(path) as weights:
        network.load_state_dict(_without_prefix(weights.network, network))


def _without_prefix(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Remove a prefix such as "model." or "module." that another program put before all names of the network."""
    names = [*network.state_dict()]
    for found in state:
        prefix = found.removesuffix(names[0]) if names else ""
        if prefix and found.endswith(f".{names[0]}") and all(prefix + name in state for name in names):
            return entries_below(prefix, state)
    return state


def check_finite(module: nn.Module, path: Path) -> None:
    """Raise a LabError that names the tensor if loaded weights contain NaN or infinity."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise LabError(
                f"{path} contains NaN or infinite values ({name}): the run diverged, evaluate another checkpoint"
            )


def _read(path: Path) -> _Weights:
    path = find(path)
    try:
        intact = atomic.matches_checksum(path) is not False  # None if the file has no checksum
        content = torch_files.load(path) if intact else None
    except Exception as error:  # a damaged file may raise anything
        # Left out, because this message of torch advises to load the file unsafely.
        reason = "" if "weights_only" in str(error) else f" ({message_of(error, _MAX_REASON)})"
        raise LabError(f"cannot load {path}, it is damaged or not a checkpoint{reason}: choose another") from error
    if not intact:
        checksum = atomic.checksum_path(path).name
        raise LabError(f"{path} is damaged (SHA-256 mismatch with {checksum}): choose another")
    return _parse(_check_dict(content, path, "weights"), path)


def _parse(content: dict[str, Any], path: Path) -> _Weights:
    key = next((key for key in ("state_dict", "model_state_dict", "model") if isinstance(content.get(key), dict)), None)
    if key is None:
        return _Weights(_check_tensors(content, path), {}, {})
    state = _check_tensors(content[key], path)
    if not entries_below("network.", state):  # a checkpoint of another program
        return _Weights(state, {}, {})
    numbers = _check_dict(content.get("loss_numbers", {}), path, "hyperparameters of the loss")
    return _Weights(entries_below("network.", state), entries_below("loss.", state), numbers)


def _check_dict(content: Any, path: Path, kind: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise LabError(
            f"{path} contains a {type(content).__name__} instead of a dict of {kind}: choose another checkpoint"
        )
    return content


def _check_tensors(state: Any, path: Path) -> dict[str, Tensor]:
    tensors = _check_dict(state, path, "weights")
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.is_complex():
            kind = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise LabError(f"{path} contains {kind} instead of a weight under {name!r}: choose another checkpoint")
    return tensors


def entries_below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the entries of a state_dict whose names start with `prefix`, and remove the prefix from the names."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def loaded_parts(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a checkpoint of losslab that `load` uses."""
    return {key: checkpoint[key] for key in ("state_dict", "loss_numbers") if key in checkpoint}


@contextmanager
def _reading(path: Path, content: dict[str, Any] | None = None) -> Iterator[_Weights]:
    """Yield the weights in a file, and replace exceptions of load_state_dict by a LabError of one line."""
    weights = _read(path) if content is None else _parse(content, path)
    try:
        yield weights
    except LabError:
        raise
    except Exception as error:  # load_state_dict may raise anything for unexpected content
        reason = message_of(error, _MAX_REASON)
        raise LabError(
            f"cannot load {path} into this network, the weights belong to a different architecture: {reason}"
        ) from error

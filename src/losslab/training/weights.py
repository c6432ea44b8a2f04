"""Loading weights from checkpoints of Lightning (.ckpt) and from plain state_dicts of a network (.pth)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from losslab.errors import LabError, message_of
from losslab.io import atomic, torch_files
from losslab.losses.hyperparameters import find_hyperparameter
from losslab.models.learner import Learner

_MAX_REASON = 200


class _Weights(NamedTuple):
    network: dict[str, Tensor]
    loss: dict[str, Tensor]
    """Learnt parameters of the loss, such as the class vectors of ArcFace."""
    loss_numbers: dict[str, float]
    """Hyperparameters of the loss that a callback changed over the epochs."""


def load(learner: Learner, path: Path) -> None:
    """Load a finished or interrupted run's weights into its network and loss.

    Raises:
        LabError: the file is missing, damaged, of another network, or lacks what the loss has learnt.
    """
    weights = _read(path)
    with _translate_mismatch(path):
        learner.network.load_state_dict(weights.network)
        if weights.loss:
            learner.loss.load_state_dict(weights.loss)
        elif names := [name for name, _ in learner.loss.named_parameters()]:
            raise LabError(
                f"{path} holds no weights of the loss, which learns ({', '.join(names)}): use best.ckpt or last.ckpt"
            )
        for key, value in weights.loss_numbers.items():
            holder, name = find_hyperparameter(learner.loss, key)
            holder.set_hyperparameter(name, value)


def initialize(learner: Learner, path: Path) -> None:
    """Initialize a new run from a file's weights. The loss, which may be another, takes the parameters that fit it.

    Raises:
        LabError: the file is missing, damaged, or of another network.
    """
    weights = _read(path)
    with _translate_mismatch(path):
        learner.network.load_state_dict(weights.network)
        # No buffers: those of a loss, such as class weights, are configuration, and this run has its own.
        fitting = {
            name: weights.loss[name]
            for name, parameter in learner.loss.named_parameters()
            if name in weights.loss and weights.loss[name].shape == parameter.shape
        }
        learner.loss.load_state_dict(fitting, strict=False)


def load_network(network: nn.Module, path: Path) -> None:
    """Load weights into a network alone.

    Raises:
        LabError: the file is missing, damaged, or of another network.
    """
    weights = _read(path)
    with _translate_mismatch(path):
        network.load_state_dict(weights.network)


def check_finite(module: nn.Module, path: Path) -> None:
    """Refuse loaded weights that hold NaN or infinity.

    Raises:
        LabError: one does; the message names it.
    """
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise LabError(
                f"{path} holds NaN or infinite values ({name}): the run diverged, evaluate another checkpoint"
            )


def _read(path: Path) -> _Weights:
    try:
        intact = atomic.matches_checksum(path) is not False
        content = torch_files.load(path) if intact else None
    except FileNotFoundError as error:
        raise LabError(f"no checkpoint at {path}") from error
    except Exception as error:  # a damaged file may raise anything
        # torch's own message advises to load the file unsafely.
        reason = "" if "weights_only" in str(error) else f" ({message_of(error, _MAX_REASON)})"
        raise LabError(f"cannot load {path}, which is damaged or no checkpoint{reason}: name another") from error
    if not intact:
        raise LabError(f"{path} is damaged, its SHA-256 is not that in {atomic.checksum_path(path).name}: name another")
    content = _check_dict(content, path, "weights")
    if "state_dict" not in content:
        return _Weights(_check_tensors(content, path), {}, {})
    state = _check_tensors(content["state_dict"], path)
    numbers = _check_dict(content.get("loss_numbers", {}), path, "numbers of the loss")
    return _Weights(_with_prefix("network.", state), _with_prefix("loss.", state), numbers)


def _check_dict(content: Any, path: Path, what: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise LabError(f"{path} holds no {what} by name but a {type(content).__name__}: name another checkpoint")
    return content


def _check_tensors(state: Any, path: Path) -> dict[str, Tensor]:
    tensors = _check_dict(state, path, "weights")
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.is_complex():
            what = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise LabError(f"{path} holds {what} under {name!r} where weights should be: name another checkpoint")
    return tensors


def _with_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


@contextmanager
def _translate_mismatch(path: Path) -> Iterator[None]:
    try:
        yield
    except LabError:
        raise
    except Exception as error:  # a RuntimeError of many lines, or whatever strange content leads load_state_dict to
        reason = message_of(error, _MAX_REASON)
        raise LabError(f"cannot load {path} into this network, it is of another: {reason}") from error

"""Weights from files: checkpoints of Lightning's (.ckpt), and plain state_dicts of a network (.pth)."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from losslab.errors import LabError
from losslab.io import atomic, torch_files
from losslab.losses.base import Loss
from losslab.losses.hyperparameters import find_hyperparameter
from losslab.models.learner import Learner


def load(learner: Learner, path: Path, *, start: bool = False) -> None:
    """Load the weights of a file into the learner's network and loss.

    A loss that learns (ArcFace's class vectors) is part of what was trained, and so is a number of it that was moved
    over the epochs. To `start` another run from the weights,
    the loss takes what fits it, if anything: it may be another loss.

    Raises:
        LabError: the file is missing, damaged, belongs to another network, or lacks what the loss has learnt.
    """
    network, learnt, numbers = _read(path)
    with _of_another(path):
        learner.network.load_state_dict(network)
        _load_loss(learner.loss, learnt, path, start=start)
        for parameter, value in ({} if start else numbers).items():
            holder, name = find_hyperparameter(learner.loss, parameter)
            holder.set_hyperparameter(name, value)


def load_network(network: nn.Module, path: Path) -> None:
    """Load the weights of a file into a network alone.

    Raises:
        LabError: the file is missing, damaged, or belongs to another network.
    """
    state = _read(path)[0]
    with _of_another(path):
        network.load_state_dict(state)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, float]]:
    """The states of the network and of the loss, and numbers of the loss that changed as it was trained."""
    try:
        whole = atomic.matches_checksum(path) is not False
        content = torch_files.load(path) if whole else None
    except FileNotFoundError as error:
        raise LabError(f"no checkpoint at {path}") from error
    except Exception as error:
        # Whatever the damage led it to.
        reason = "" if "weights_only" in str(error) else f" ({_in_short(error)})"  # torch's advice is to run the file
        raise LabError(f"cannot load {path}, which is damaged or no checkpoint{reason}: name another") from error
    if not whole:
        raise LabError(f"{path} is damaged, its SHA-256 is not that in {atomic.checksum_path(path).name}: name another")
    if not isinstance(content, dict):
        raise LabError(f"{path} holds no weights by name but a {type(content).__name__}: name another checkpoint")
    if "state_dict" not in content:
        return _weights(content, path), {}, {}
    network, loss = (_under(prefix, _weights(content["state_dict"], path)) for prefix in ("network.", "loss."))
    numbers = content.get("loss_numbers", {})
    if not isinstance(numbers, dict):
        raise LabError(
            f"{path} holds no numbers of the loss by name but a {type(numbers).__name__}: name another checkpoint"
        )
    return network, loss, numbers


def _weights(state: Any, path: Path) -> dict[str, Tensor]:
    """A state_dict of real numbers; anything else is refused."""
    if not isinstance(state, dict):
        raise LabError(f"{path} holds no weights by name but a {type(state).__name__}: name another checkpoint")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor) or value.is_complex():
            what = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise LabError(f"{path} holds {what} under {name!r} where weights should be: name another checkpoint")
    return state


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _load_loss(loss: Loss, learnt: dict[str, Tensor], path: Path, *, start: bool) -> None:
    parameters = dict(loss.named_parameters())
    if start:
        # No buffers: those of a loss, such as class weights, are configuration, and this run has its own.
        fitting = {name: own for name, own in parameters.items() if name in learnt and learnt[name].shape == own.shape}
        loss.load_state_dict({name: learnt[name] for name in fitting}, strict=False)
    elif learnt:
        loss.load_state_dict(learnt)
    elif parameters:
        raise LabError(
            f"{path} holds no weights of the loss, which learns ({', '.join(parameters)}): use best.ckpt or last.ckpt"
        )


@contextmanager
def _of_another(path: Path) -> Iterator[None]:
    try:
        yield
    except LabError:
        raise
    except Exception as error:  # load_state_dict raises a RuntimeError of many lines, or what strange content led it to
        raise LabError(f"cannot load {path} into this network, it is of another: {_in_short(error)}") from error


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]

"""The way of a small network through its weights, to be drawn on its loss surface."""

from pathlib import Path as File
from typing import Any

import numpy as np
import torch
from lightning import Callback, Trainer
from torch import Tensor

from losslab.io import atomic
from losslab.models.learner import Learner
from losslab.runs import RunFolder
from losslab.training.callbacks.disk import Files

_Weights = Tensor | np.ndarray[Any, np.dtype[Any]]
_Place = tuple[int, int, list[_Weights]]


class Path(Callback):
    """Writes path.csv: all weights before the first step and after every epoch, to the last digit.

    Of a network with more weights nothing is kept. An epoch costs one copy of the weights, on their own device; what
    is kept waits in memory for the end of the run. Of a run that is longer than `rows`, every second epoch is
    forgotten, then every fourth and so on; the last epoch is always there.

    Args:
        run_dir: the run folder.
        weights: the most weights that a network may have to be followed.
        rows: the most epochs that are kept.
    """

    def __init__(self, run_dir: str, weights: int = 100, rows: int = 10_000) -> None:
        self.folder = RunFolder(File(run_dir))
        self._files = Files(self.folder)
        self.weights, self.rows = weights, rows
        self._names: list[str] = []
        self._every = 1
        self._kept: list[_Place] = []
        self._newest: _Place | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        count = sum(parameter.numel() for parameter in pl_module.network.parameters())
        self._followed = trainer.is_global_zero and 0 < count <= self.weights
        if self._followed:
            self._now = [_view(parameter.detach()) for parameter in pl_module.network.parameters()]
            self._names = [
                name for key, weight in pl_module.network.named_parameters() for name in numbered(key, weight.shape)
            ]
            if not self._kept:  # else the run is resumed
                self._keep(0, trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        places = [*self._kept, *([self._newest] if self._newest is not None else [])]
        columns = zip(*(weights for _, _, weights in places), strict=True)
        stacked = [torch.stack([torch.as_tensor(weight) for weight in column]) for column in columns]
        return {"every": self._every, "places": [place[:2] for place in places], "weights": stacked}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        rows = zip(*state_dict["weights"], strict=True) if state_dict["weights"] else ()
        kept: list[_Place] = [
            (*place, [_view(weight) for weight in row]) for place, row in zip(state_dict["places"], rows, strict=True)
        ]
        self._every = state_dict["every"]
        self._kept, self._newest = kept[:-1], kept[-1] if kept else None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if self._followed:
            self._keep(trainer.current_epoch + 1, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        self._files.require(self.folder.weight_trajectory, self._write)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        with self._files.beside_an_error(self.folder.weight_trajectory):
            self._write()

    def _keep(self, epoch: int, step: int) -> None:
        self._newest = (epoch, step, [_copy(weight) for weight in self._now])
        if epoch % self._every:
            return
        self._kept.append(self._newest)
        if len(self._kept) > self.rows:
            self._every *= 2
            self._kept = [kept for kept in self._kept if kept[0] % self._every == 0]

    def _write(self) -> None:
        if self._newest is None:
            return
        if self._kept[-1][0] != self._newest[0]:
            self._kept.append(self._newest)
        # One copy from the device, and the shortest decimals that are the same number when they are read.
        table = np.stack([_row(weights) for _, _, weights in self._kept]).astype(str).tolist()
        lines = [",".join(["epoch", "step", *self._names])]
        lines += [",".join([str(e), str(s), *row]) for (e, s, _), row in zip(self._kept, table, strict=True)]
        atomic.write_bytes(self.folder.weight_trajectory, ("\n".join(lines) + "\n").encode())
        self._newest = None


def numbered(name: str, shape: torch.Size) -> list[str]:
    """A name for each number of a tensor in the order of its memory: weight.0.0, weight.0.1, ..."""
    places = torch.cartesian_prod(*(torch.arange(size) for size in shape)).view(-1, len(shape)).tolist()
    return [".".join([name, *map(str, place)]) for place in places]


def _view(weight: Tensor) -> _Weights:
    """The same memory as an array where there is one: a tenth of the time to copy, of an epoch that takes no longer."""
    return weight.numpy() if weight.device.type == "cpu" and weight.dtype is not torch.bfloat16 else weight


def _copy(weight: _Weights) -> _Weights:
    return weight.clone() if isinstance(weight, Tensor) else weight.copy()


def _row(weights: list[_Weights]) -> "np.ndarray[Any, np.dtype[Any]]":
    """All weights of an epoch in one row, half precision as the same numbers in float32."""
    arrays = [
        w.to(torch.promote_types(w.dtype, torch.float32)).cpu().numpy() if isinstance(w, Tensor) else w for w in weights
    ]
    return np.concatenate([array.ravel() for array in arrays])

"""A criterion on trial: a copy of it, a way to call it, and batches to call it on."""

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from losslab.errors import LabError
from losslab.targets import Kind

Criterion = Callable[[Tensor, Tensor], Any]


@dataclass(frozen=True)
class Call:
    """How a criterion is called with outputs (N, width) and a target of this kind."""

    kind: Kind
    width: int
    flat: bool = False
    """Outputs and target of one column go in as (N,)."""
    integers: bool = False
    """Columns of 0 and 1 go in as int64."""

    def __call__(self, criterion: Criterion, outputs: Tensor, target: Tensor) -> Any:
        """Whatever the criterion returns. Autocast is off: what came in as float32 is scored in float32."""
        if self.flat:
            outputs, target = outputs.squeeze(1), target.squeeze(1)
        with torch.autocast(outputs.device.type, enabled=False):
            return criterion(outputs, target.long() if self.integers else target)


@dataclass
class Probe:
    """A copy of a criterion, the way to call it, and batches to call it on."""

    original: Criterion
    call: Call
    targets: int
    """C classes, K labels or D values."""
    batches: list[tuple[Tensor, Tensor]]
    """Draws of outputs (N, width) of different sizes, the last between 0 and 1, beside one target."""
    bounded: bool = False
    """Whether the outputs of the batches lie between 0 and 1, because the criterion takes no others."""

    def __post_init__(self) -> None:
        self.criterion = copied(self.original)

    def value(self, outputs: Tensor, target: Tensor) -> Tensor:
        """What the criterion itself makes of a batch; the mean of its elements where it does not reduce → ()."""
        value = self.call(self.criterion, outputs, target)
        if not isinstance(value, Tensor):
            raise TypeError(f"it returns {type(value).__name__}, not a tensor")
        if value.numel() != 1 and len(value) != len(outputs):
            raise ValueError(f"it returns {tuple(value.shape)}, neither one number nor one an example")
        return value.mean()

    def gradient(self, outputs: Tensor, target: Tensor) -> Tensor:
        """∂ value / ∂ outputs → (N, width)."""
        outputs = outputs.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.value(outputs, target), outputs)
        return gradient


def named(criterion: Criterion) -> str:
    """What to call a criterion in a message."""
    inner = criterion.func if isinstance(criterion, partial) else criterion
    return str(getattr(inner, "__name__", type(inner).__name__))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave torch's random state as it was, say no warning twice, and make one about broadcasting an error."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", message=r"(?s).*(target size|broadcast)")
        torch.manual_seed(0)
        yield


def copied(criterion: Criterion) -> Criterion:
    """A copy that may be called at will: a criterion may remember what it has seen.

    Raises:
        LabError: it cannot be copied, for instance because it was called before and holds on to a graph.
    """
    try:
        return copy.deepcopy(criterion)
    except Exception as error:
        raise LabError(
            f"loss {named(criterion)} cannot be copied to be tried out: {' '.join(str(error).split())[:160]}"
        ) from error


def class_weight(criterion: Criterion, classes: int) -> Tensor | None:
    """The criterion's weights (C,) of the classes, where it has such."""
    weight = getattr(criterion, "weight", None)
    return weight if isinstance(weight, Tensor) and weight.shape == (classes,) else None


def ignored_index(criterion: Criterion) -> int | None:
    """The class index that does not count, where the criterion names one."""
    index = getattr(criterion, "ignore_index", None)
    return index if isinstance(index, int) else None

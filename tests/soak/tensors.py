"""Any tensors: outputs and targets of whatever shape, type and value are scored, or refused in one line."""

import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from hydra.utils import instantiate
from torch import Tensor

from losslab.errors import LabError
from losslab.losses import Loss, catalog
from losslab.losses.contract.sample_inputs import CLASSES, n_output_columns, sample_target, with_class_counts
from losslab.targets import Kind
from soak.record import Case, Found

_SEED = 0
_EACH = 1000
_SIZES = (0, 1, 2, 3, CLASSES, 2 * CLASSES)
_DTYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.complex64,
    torch.int64, torch.int32, torch.uint8, torch.bool,
)  # fmt: skip
_PRECISE = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_ODD = (float("nan"), float("inf"), float("-inf"), 1e38, -1e38, 1e-45, -0.0, -100.0, -1.0, 7.0, 2.0**62)
_OUT_OF_RANGE = ("out of bounds", "out of range")


@dataclass(frozen=True)
class Drawn:
    """A loss, and what it is given."""

    name: str
    outputs: object
    target: object
    right: bool
    """Whether they are what the loss says it takes: then they must be scored."""

    def __str__(self) -> str:
        return f"{self.name} of outputs {_shown(self.outputs)} beside {_shown(self.target)}"


def cases(count: int) -> list[Case]:
    """A thousand in each."""
    return [Case("tensors", str(start)) for start in range(0, count, _EACH)]


def run(case: Case, _: Path) -> Found:
    """Score them in this process → those of which anything else became."""
    every = [drawn(random.Random(f"{_SEED}/{case.name}/{number}")) for number in range(_EACH)]  # noqa: S311
    return Found(len(every), [f"{each}: {wrong}"[:500] for each in every if (wrong := wrong_with(each))])


def drawn(dice: random.Random) -> Drawn:
    """A loss of the catalogue with what it takes, or with something that is more or less like it."""
    name = dice.choice(catalog.names())
    loss, kind, dtype = _made(name), dice.choice(_made(name).wants), dice.choice(_PRECISE)
    n = dice.choice((0, 1, 2, 6))
    scale = dice.choice((0.0, 1e-3, 1.0, 10.0, *((1e3,) if loss.card is None or loss.card.overflows_at > 1e5 else ())))
    outputs = (scale * torch.randn(n, n_output_columns(loss, CLASSES), generator=_generator(dice))).to(dtype)
    target = sample_target(kind, n, dtype)
    if dice.random() < 0.4:
        return Drawn(name, _laid_out(outputs, dice), _laid_out(target, dice), right=True)
    given = [outputs, target]
    for at in dice.choice(((0,), (1,), (0, 1))):
        given[at] = dice.choice((_reshaped, _recast, _spoiled, _other, _no_tensor))(given[at], dice)
    return Drawn(name, *given, right=False)


def wrong_with(case: Drawn) -> str | None:
    """What is wrong with what a loss makes of it; None if nothing is."""
    loss = _made(case.name)
    try:
        outputs = case.outputs
        if isinstance(outputs, Tensor) and outputs.dtype.is_floating_point:
            outputs = outputs.detach().requires_grad_()
        scores = loss.per_example(outputs, case.target)
        value = loss(outputs, case.target)
    except LabError as error:
        return _line(str(error), right=case.right)
    except (IndexError, RuntimeError) as error:
        labels = isinstance(case.target, Tensor) and case.target.dtype == torch.int64 and not case.right
        if labels and any(words in str(error) for words in _OUT_OF_RANGE):
            return None  # which class a label names is for the data to get right, and only looked at by torch
        return f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is the finding
        return f"{type(error).__name__}: {error}"
    return _amiss(outputs, scores, value, right=case.right)


def _amiss(outputs: Tensor, scores: Tensor, value: Tensor, *, right: bool) -> str | None:
    if scores.shape != outputs.shape[:1] or value.shape != ():
        return f"scores {tuple(scores.shape)}, value {tuple(value.shape)}"
    if scores.dtype not in {torch.float32, torch.float64}:
        return f"scores are {scores.dtype}"
    if right and len(outputs) and not (scores.isfinite().all() and value.isfinite()):
        return f"scores {scores.tolist()}, value {value.item()}"
    if len(outputs):
        value.backward()
        # Numbers of float16 end at 65,504, where the slopes of a likelihood or of a norm do not.
        if right and outputs.dtype is not torch.float16 and not outputs.grad.isfinite().all():
            return f"gradient {outputs.grad.tolist()}"
    return None


def _line(said: str, *, right: bool) -> str | None:
    if right:
        return f"refused: {said}"
    return None if said.strip() and len(said.splitlines()) == 1 and len(said) < 400 else f"says {said!r}"


@cache
def _made(name: str) -> Loss:
    return with_class_counts(instantiate(catalog.config(name)))


def _generator(dice: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(dice.randrange(2**32))


def _laid_out(tensor: Tensor, dice: random.Random) -> Tensor:
    """The same numbers, otherwise in memory."""
    how = dice.randrange(3)
    if how == 0:
        return tensor
    if how == 1:
        return tensor.movedim(0, -1).contiguous().movedim(-1, 0)
    return torch.stack([tensor, tensor], dim=-1)[..., 0]


def _reshaped(tensor: Tensor, dice: random.Random) -> Tensor:
    shape = [dice.choice(_SIZES) for _ in range(dice.randrange(5))]
    if tensor.dtype.is_floating_point:
        return torch.randn(shape, generator=_generator(dice)).to(tensor.dtype)
    return torch.randint(CLASSES, shape, generator=_generator(dice))


def _recast(tensor: Tensor, dice: random.Random) -> Tensor:
    return tensor.to(dice.choice(_DTYPES))


def _spoiled(tensor: Tensor, dice: random.Random) -> Tensor:
    """With numbers that nobody expects in some places."""
    spoilt = tensor.clone()
    for _ in range(dice.randrange(1, 4) if spoilt.numel() else 0):
        odd = dice.choice(_ODD)
        whole = int(odd) if abs(odd) < 2.0**63 else -(2**63)  # of NaN and infinity too: a comparison with them is false
        spoilt.view(-1)[dice.randrange(spoilt.numel())] = odd if spoilt.is_floating_point() else whole
    return spoilt


def _other(tensor: Tensor, dice: random.Random) -> Tensor:
    """A target of another kind, a sparse tensor, one example alone, one example for all."""
    kinds = [sample_target(kind, len(tensor), torch.float32) for kind in Kind]
    return dice.choice([*kinds, tensor.to_sparse(), tensor[:1], tensor.sum(), tensor[None]])


def _no_tensor(tensor: Tensor, dice: random.Random) -> object:
    return dice.choice([tensor.tolist(), None, 1.0, "1", *([] if tensor.dtype is torch.bfloat16 else [tensor.numpy()])])


def _shown(given: object) -> str:
    if not isinstance(given, Tensor):
        return type(given).__name__
    return f"{tuple(given.shape)} {given.dtype} {given.layout}"

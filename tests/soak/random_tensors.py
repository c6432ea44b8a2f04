"""Random outputs and targets of any shape, dtype and value: a loss scores them, or raises a one-line error."""

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
from soak.record import Case, CaseResult

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
class Sample:
    """A loss with outputs and a target."""

    name: str
    outputs: object
    target: object
    valid: bool
    """Whether the loss accepts them according to its documentation: then it must score them."""

    def __str__(self) -> str:
        return f"{self.name} of outputs {_describe(self.outputs)} and target {_describe(self.target)}"


def cases(count: int) -> list[Case]:
    """A thousand samples in each case."""
    return [Case("tensors", str(start)) for start in range(0, count, _EACH)]


def run(case: Case, _: Path) -> CaseResult:
    """Score the samples in this process → those that were neither scored nor refused properly."""
    samples = [draw(random.Random(f"{_SEED}/{case.name}/{number}")) for number in range(_EACH)]  # noqa: S311
    return CaseResult(len(samples), [f"{each}: {wrong}"[:500] for each in samples if (wrong := find_problem(each))])


def draw(dice: random.Random) -> Sample:
    """Draw a loss with valid outputs and target, or with something similar to them."""
    name = dice.choice(catalog.names())
    loss, kind, dtype = _make_loss(name), dice.choice(_make_loss(name).wants), dice.choice(_PRECISE)
    n = dice.choice((0, 1, 2, 6))
    scale = dice.choice((0.0, 1e-3, 1.0, 10.0, *((1e3,) if loss.card is None or loss.card.overflows_at > 1e5 else ())))
    outputs = (scale * torch.randn(n, n_output_columns(loss, CLASSES), generator=_generator(dice))).to(dtype)
    target = sample_target(kind, n, dtype)
    if dice.random() < 0.4:
        return Sample(name, _change_layout(outputs, dice), _change_layout(target, dice), valid=True)
    given = [outputs, target]
    for at in dice.choice(((0,), (1,), (0, 1))):
        given[at] = dice.choice((_reshape, _change_dtype, _insert_odd_values, _other_kind, _not_a_tensor))(
            given[at], dice
        )
    return Sample(name, *given, valid=False)


def find_problem(case: Sample) -> str | None:
    """What is wrong with the result of a loss; None for nothing."""
    loss = _make_loss(case.name)
    try:
        outputs = case.outputs
        if isinstance(outputs, Tensor) and outputs.dtype.is_floating_point:
            outputs = outputs.detach().requires_grad_()
        scores = loss.per_example(outputs, case.target)
        value = loss(outputs, case.target)
    except LabError as error:
        return _check_message(str(error), valid=case.valid)
    except (IndexError, RuntimeError) as error:
        labels = isinstance(case.target, Tensor) and case.target.dtype == torch.int64 and not case.valid
        if labels and any(words in str(error) for words in _OUT_OF_RANGE):
            return None  # the range of class indices is checked by torch only
        return f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 -- any other exception is a problem
        return f"{type(error).__name__}: {error}"
    return _check_result(outputs, scores, value, valid=case.valid)


def _check_result(outputs: Tensor, scores: Tensor, value: Tensor, *, valid: bool) -> str | None:
    if scores.shape != outputs.shape[:1] or value.shape != ():
        return f"scores {tuple(scores.shape)}, value {tuple(value.shape)}"
    if scores.dtype not in {torch.float32, torch.float64}:
        return f"scores are {scores.dtype}"
    if valid and len(outputs) and not (scores.isfinite().all() and value.isfinite()):
        return f"scores {scores.tolist()}, value {value.item()}"
    if len(outputs):
        value.backward()
        # float16 ends at 65,504, and gradients of a likelihood or of a norm may be larger.
        if valid and outputs.dtype is not torch.float16 and not outputs.grad.isfinite().all():
            return f"gradient {outputs.grad.tolist()}"
    return None


def _check_message(message: str, *, valid: bool) -> str | None:
    if valid:
        return f"refused: {message}"
    return None if message.strip() and len(message.splitlines()) == 1 and len(message) < 400 else f"says {message!r}"


@cache
def _make_loss(name: str) -> Loss:
    return with_class_counts(instantiate(catalog.config(name)))


def _generator(dice: random.Random) -> torch.Generator:
    return torch.Generator().manual_seed(dice.randrange(2**32))


def _change_layout(tensor: Tensor, dice: random.Random) -> Tensor:
    """The same values with another memory layout."""
    how = dice.randrange(3)
    if how == 0:
        return tensor
    if how == 1:
        return tensor.movedim(0, -1).contiguous().movedim(-1, 0)
    return torch.stack([tensor, tensor], dim=-1)[..., 0]


def _reshape(tensor: Tensor, dice: random.Random) -> Tensor:
    shape = [dice.choice(_SIZES) for _ in range(dice.randrange(5))]
    if tensor.dtype.is_floating_point:
        return torch.randn(shape, generator=_generator(dice)).to(tensor.dtype)
    return torch.randint(CLASSES, shape, generator=_generator(dice))


def _change_dtype(tensor: Tensor, dice: random.Random) -> Tensor:
    return tensor.to(dice.choice(_DTYPES))


def _insert_odd_values(tensor: Tensor, dice: random.Random) -> Tensor:
    """Replace some values by unusual ones."""
    changed = tensor.clone()
    for _ in range(dice.randrange(1, 4) if changed.numel() else 0):
        odd = dice.choice(_ODD)
        whole = (
            int(odd) if abs(odd) < 2.0**63 else -(2**63)
        )  # also for NaN and infinity, since a comparison with them is false
        changed.view(-1)[dice.randrange(changed.numel())] = odd if changed.is_floating_point() else whole
    return changed


def _other_kind(tensor: Tensor, dice: random.Random) -> Tensor:
    """A target of another kind, a sparse tensor, a single example, or one value for all."""
    kinds = [sample_target(kind, len(tensor), torch.float32) for kind in Kind]
    return dice.choice([*kinds, tensor.to_sparse(), tensor[:1], tensor.sum(), tensor[None]])


def _not_a_tensor(tensor: Tensor, dice: random.Random) -> object:
    return dice.choice([tensor.tolist(), None, 1.0, "1", *([] if tensor.dtype is torch.bfloat16 else [tensor.numpy()])])


def _describe(given: object) -> str:
    if not isinstance(given, Tensor):
        return type(given).__name__
    return f"{tuple(given.shape)} {given.dtype} {given.layout}"

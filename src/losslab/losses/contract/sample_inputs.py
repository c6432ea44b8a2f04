"""Outputs and targets to try a loss on: the same numbers at every call, drawn from generators of their own."""

import copy

import torch
from torch import Tensor

from losslab.losses.base import Loss
from losslab.targets import Kind, encode

CLASSES = 5


def seeded_generator(seed: int) -> torch.Generator:
    """A generator that touches no one else's draws."""
    return torch.Generator().manual_seed(seed)


def sample_outputs(
    loss: Loss, n: int, dtype: torch.dtype = torch.float64, columns: int = CLASSES, seed: int = 2
) -> Tensor:
    """Standard normal outputs (n, as many as the loss scores), between 0 and 1 for a criterion that takes no others."""
    drawn = torch.randn(n, n_output_columns(loss, columns), generator=seeded_generator(seed), dtype=dtype)
    return drawn.sigmoid() if getattr(loss, "bounded", False) else drawn


def n_output_columns(loss: Loss, targets: int = 1) -> int:
    """Columns of outputs that are scored for so many targets."""
    return loss.outputs(targets) * loss.n_views


def sample_target(kind: Kind, n: int, dtype: torch.dtype = torch.float64, columns: int = CLASSES) -> Tensor:
    """Targets of a kind. Values are counts, which a loss of counts takes as well as any other."""
    match kind:
        case Kind.INDEX:
            return torch.randint(columns, (n,), generator=seeded_generator(1))
        case Kind.PROBABILITIES:
            return torch.rand(n, columns, generator=seeded_generator(1), dtype=dtype).softmax(1)
        case Kind.BINARY:
            return torch.randint(2, (n, columns), generator=seeded_generator(1)).to(dtype)
        case Kind.VALUES:
            return torch.randint(6, (n, columns), generator=seeded_generator(1)).to(dtype)


def targets_of_each_class(loss: Loss, classes: int, n: int) -> list[Tensor]:
    """For each class k, n targets that say "k", of the kind the loss prefers."""
    kind = loss.wants[0]
    hard = [torch.full((n,), k) for k in range(classes)]
    return [
        target if kind is Kind.INDEX else encode(target, Kind.INDEX, kind, classes, torch.float64) for target in hard
    ]


def costs_of_each_class(loss: Loss, outputs: Tensor, classes: int) -> Tensor:
    """What each class would cost: outputs (N, ...) → (N, C)."""
    return torch.stack(
        [loss.per_example(outputs, target) for target in targets_of_each_class(loss, classes, len(outputs))], dim=1
    )


def with_class_counts(loss: Loss, classes: int = CLASSES, *, equal: bool = False) -> Loss:
    """A copy that was told class counts: different ones, or all the same."""
    copied = copy.deepcopy(loss)
    copied.set_class_counts(torch.full((classes,), 100) if equal else 100 * torch.arange(1, classes + 1))
    return copied


def is_classification(loss: Loss) -> bool:
    """Whether the loss is one of classes or labels before anything else."""
    return loss.wants[0] is not Kind.VALUES

"""Fixed pseudo-random outputs and targets to check a loss with."""

import copy

import torch
from torch import Tensor

from losslab.losses.base import Loss
from losslab.targets import Kind, encode

CLASSES = 5


def seeded_generator(seed: int) -> torch.Generator:
    """A new random generator, independent of the global random state."""
    return torch.Generator().manual_seed(seed)


def sample_outputs(
    loss: Loss, n: int, dtype: torch.dtype = torch.float64, columns: int = CLASSES, seed: int = 2
) -> Tensor:
    """Standard normal outputs (n, columns that the loss scores); in (0, 1) for a criterion that needs that."""
    outputs = torch.randn(n, n_output_columns(loss, columns), generator=seeded_generator(seed), dtype=dtype)
    return outputs.sigmoid() if getattr(loss, "bounded", False) else outputs


def n_output_columns(loss: Loss, targets: int = 1) -> int:
    """The number of output columns that the loss scores for this many targets."""
    return loss.outputs(targets) * loss.n_views


def sample_target(kind: Kind, n: int, dtype: torch.dtype = torch.float64, columns: int = CLASSES) -> Tensor:
    """Targets of a kind. Values are counts, so that losses of counts accept them too."""
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
    """For each class k, n targets of class k, of the first kind that the loss takes."""
    kind = loss.wants[0]
    indices = [torch.full((n,), k) for k in range(classes)]
    return [encode(target, Kind.INDEX, kind, classes, torch.float64) for target in indices]


def costs_of_each_class(loss: Loss, outputs: Tensor, classes: int) -> Tensor:
    """The loss of each class as the label: outputs (N, ...) → (N, C)."""
    targets = targets_of_each_class(loss, classes, len(outputs))
    return torch.stack([loss.per_example(outputs, target) for target in targets], dim=1)


def with_class_counts(loss: Loss, classes: int = CLASSES, *, equal: bool = False) -> Loss:
    """A copy of the loss with class counts set: different ones, or all equal."""
    copied = copy.deepcopy(loss)
    copied.set_class_counts(torch.full((classes,), 100) if equal else 100 * torch.arange(1, classes + 1))
    return copied


def is_classification(loss: Loss) -> bool:
    """Whether the first kind of target that the loss takes is classes or labels."""
    return loss.wants[0] is not Kind.VALUES

"""Fixed pseudo-random outputs and targets on which a loss is checked."""

import copy

import torch
from torch import Tensor

from losslab.losses.base import Loss
from losslab.targets import Kind, encode

CLASSES = 5


def seeded_generator(seed: int) -> torch.Generator:
    """Return a new random generator, whose use does not change the global random state."""
    return torch.Generator().manual_seed(seed)


def sample_outputs(
    loss: Loss, n: int, dtype: torch.dtype = torch.float64, columns: int = CLASSES, seed: int = 2
) -> Tensor:
    """Return random outputs (n, number of columns that the loss scores): normal, or in (0, 1) if the loss needs it."""
    outputs = torch.randn(n, n_output_columns(loss, columns), generator=seeded_generator(seed), dtype=dtype)
    return outputs.sigmoid() if getattr(loss, "bounded", False) else outputs


def n_output_columns(loss: Loss, targets: int = 1) -> int:
    """Return the number of output columns that the loss scores for `targets` classes, labels or values."""
    return loss.outputs(targets) * loss.n_views


def sample_target(kind: Kind, n: int, dtype: torch.dtype = torch.float64, columns: int = CLASSES) -> Tensor:
    """Return n random targets of a kind. Values are integers, so that losses of counts accept them."""
    if kind is Kind.INDEX:
        return torch.randint(columns, (n,), generator=seeded_generator(1))
    if kind is Kind.PROBABILITIES:
        return torch.rand(n, columns, generator=seeded_generator(1), dtype=dtype).softmax(1)
    return torch.randint(2 if kind is Kind.BINARY else 6, (n, columns), generator=seeded_generator(1)).to(dtype)


def targets_of_each_class(loss: Loss, classes: int, n: int) -> list[Tensor]:
    """Return for each class k a target in which all n examples are of class k, in the first kind that `wants` lists."""
    kind = loss.wants[0]
    indices = [torch.full((n,), k) for k in range(classes)]
    return [encode(target, Kind.INDEX, kind, classes, torch.float64) for target in indices]


def costs_of_each_class(loss: Loss, outputs: Tensor, classes: int) -> Tensor:
    """Return the costs (N, C) of outputs (N, columns): for each class, the loss if it is the label."""
    target = torch.cat(targets_of_each_class(loss, classes, len(outputs)))
    return loss.per_example(outputs.repeat(classes, 1), target).reshape(classes, len(outputs)).T


def with_class_counts(loss: Loss, classes: int = CLASSES, *, equal: bool = False) -> Loss:
    """Return a copy of the loss with class counts, which differ from class to class unless `equal`."""
    copied = copy.deepcopy(loss)
    copied.set_class_counts(torch.full((classes,), 100) if equal else 100 * torch.arange(1, classes + 1))
    return copied


def is_classification(loss: Loss) -> bool:
    """Return whether the loss is for classes or labels, by the first kind of target that it accepts."""
    return loss.wants[0] is not Kind.VALUES

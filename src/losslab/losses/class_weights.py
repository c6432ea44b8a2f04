"""Class weights: given one by one, or computed by a rule from the class counts of the training data."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from losslab.errors import LabError

WeightRule = Callable[[Tensor], Tensor]
"""From class counts, int64 (C,), to weights, float (C,)."""
ClassWeights = Sequence[float] | Tensor | WeightRule | None
"""One weight per class (C,), or a rule that computes them; None for no weights."""


def balanced(counts: Tensor) -> Tensor:
    """Inverse frequencies N / (C n_k), with which all classes have the same total weight → (C,).

    This is scikit-learn's "balanced". A class that does not occur gets 0.
    """
    present = counts.clamp(min=1)
    return torch.where(counts > 0, counts.sum() / (len(counts) * present), 0.0).float()


def effective_number(counts: Tensor, beta: float = 0.9999) -> Tensor:
    """(1 - β) / (1 - β^n_k), scaled to sum to C: from no weights (β = 0) to inverse frequencies (β → 1) → (C,).

    A class that does not occur gets 0. Raises LabError unless β is in [0, 1) and a count is not 0. Cui et al.,
    "Class-balanced loss based on effective number of samples", 2019.
    """
    if not 0 <= beta < 1:
        raise LabError(f"effective_number: beta must be a number in [0, 1), got {beta!r}")
    if not counts.any():
        raise LabError("effective_number: all class counts are 0")
    # 1 - β^n by expm1, which is exact even where β^n rounds to 1. At β = 0 every effective number is 1.
    numbers = counts.double()
    effective = -torch.expm1(numbers * torch.log(torch.tensor(beta, dtype=torch.float64)))
    weights = torch.where(counts > 0, (1 - beta) / torch.where(counts > 0, effective, 1.0), 0.0)
    return (weights * len(counts) / weights.sum()).float()


def class_weight_tensor(weight: Sequence[float] | Tensor | None) -> Tensor | None:
    """Class weights as a tensor (C,). Raises LabError if one is negative or not a number, or all are 0."""
    if weight is None:
        return None
    values = weight.flatten().tolist() if isinstance(weight, Tensor) else weight
    numeric = not isinstance(values, str) and all(isinstance(value, int | float) for value in values)
    if not numeric or not values or not all(value >= 0 for value in values) or not any(values):
        raise LabError(f"weight must hold one number ≥ 0 a class, not all of them 0, got {values}")
    return weight if isinstance(weight, Tensor) else torch.tensor([float(value) for value in values])

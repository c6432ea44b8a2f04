"""Weights of classes: given one by one, or made by a rule from how often each class occurs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from losslab.errors import LabError

WeightRule = Callable[[Tensor], Tensor]
"""From class counts, int64 (C,), to weights, float (C,)."""


def balanced(counts: Tensor) -> Tensor:
    """Inverse frequencies N / (C n_k): every class weighs the same in sum → (C,). scikit-learn's "balanced".

    A class that does not occur gets 0.
    """
    present = counts.clamp(min=1)
    return torch.where(counts > 0, counts.sum() / (len(counts) * present), 0.0).float()


def effective_number(counts: Tensor, beta: float = 0.9999) -> Tensor:
    """(1 - β) / (1 - β^n_k), scaled to sum to C: between no weights (β = 0) and inverse frequencies (β → 1) → (C,).

    Cui et al., "Class-balanced loss based on effective number of samples", 2019. A class that does not occur gets 0.

    Raises:
        LabError: β outside [0, 1).
    """
    if not 0 <= beta < 1:
        raise LabError(f"effective_number: beta must be a number in [0, 1), got {beta!r}")
    if not counts.any():
        raise LabError("effective_number: no class occurs at all")
    # 1 - β^n by expm1, which knows it also where β^n rounds to 1; β = 0 makes every number 1.
    numbers = counts.double()
    kept = -torch.expm1(numbers * torch.log(torch.tensor(beta, dtype=torch.float64)))
    weights = torch.where(counts > 0, (1 - beta) / torch.where(counts > 0, kept, 1.0), 0.0)
    return (weights * len(counts) / weights.sum()).float()


def class_weight_tensor(weight: Sequence[float] | Tensor | None) -> Tensor | None:
    """Weights as a tensor (C,), checked.

    Raises:
        LabError: a weight is negative or not a number, or all are 0.
    """
    if weight is None:
        return None
    values = weight.flatten().tolist() if isinstance(weight, Tensor) else weight
    numbers = not isinstance(values, str) and all(isinstance(w, int | float) for w in values)
    if not numbers or not values or not all(w >= 0 for w in values) or not any(values):
        raise LabError(f"weight must hold one number ≥ 0 a class, not all of them 0, got {values}")
    return weight if isinstance(weight, Tensor) else torch.tensor([float(w) for w in values])

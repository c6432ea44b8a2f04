"""Compares losses and their gradients with results of 160 digits, at extreme logits."""

from collections.abc import Callable, Sequence
from functools import cache

import mpmath as mp
import pytest
import torch

from losslab.losses.base import Loss

Formula = Callable[[list[mp.mpf]], mp.mpf]
"""The loss of class 0 as a function of the logits."""
DIGITS = 160
SMALLEST = {torch.float32: 1e-30, torch.float64: 1e-100}
EXTREMES = [
    [margin * sign for sign in signs]
    for margin in (0.0, 1.0, 7.0, 17.0, 20.0, 90.0, 1e4)
    for signs in ([1, 0, 0], [-1, 0, 0], [1, -1, -1], [-1, 1, -1], [-1, 1, 1])
]


def softmax(logits: Sequence[mp.mpf]) -> list[mp.mpf]:
    powers = [mp.exp(z - max(logits)) for z in logits]
    return [power / mp.fsum(powers) for power in powers]


def check(loss: Loss, formula: Formula, dtype: torch.dtype, rtol: float, noise: float = 0.0) -> None:
    """Check value and gradient of a loss for class 0 against a formula, at all extreme logits.

    The relative error must be at most `rtol`. For a gradient, an absolute error of `noise`, or of `rtol` times its
    largest entry, is also allowed. Numbers that are too small for the dtype may be 0.
    """
    for row in EXTREMES:
        outputs = torch.tensor([row], dtype=dtype, requires_grad=True)
        value = loss(outputs, torch.tensor([0]))
        value.backward()
        exact, slopes = _exact(formula, tuple(row))
        largest = max(abs(slope) for slope in slopes)
        assert value.item() == pytest.approx(exact, rel=rtol, abs=SMALLEST[dtype]), row
        for ours, slope in zip(outputs.grad[0].tolist(), slopes, strict=True):
            assert ours == pytest.approx(slope, rel=rtol, abs=max(SMALLEST[dtype], rtol * largest, noise)), row


@cache
def _exact(formula: Formula, row: tuple[float, ...]) -> tuple[float, list[float]]:
    with mp.workdps(DIGITS):
        value = formula([mp.mpf(z) for z in row])
        return float(value), [float(_slope(formula, row, index)) for index in range(len(row))]


def _slope(formula: Formula, row: tuple[float, ...], index: int) -> mp.mpf:
    step = mp.mpf(10) ** (-DIGITS // 3)
    above, below = ([mp.mpf(z) + sign * step * (k == index) for k, z in enumerate(row)] for sign in (1, -1))
    return (formula(above) - formula(below)) / (2 * step)

"""Numerical searches, on random and extreme outputs in float64, that show whether the facts of a card are true."""

import math
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from losslab.losses.base import Loss
from losslab.losses.contract.sample_inputs import (
    costs_of_each_class,
    is_classification,
    n_output_columns,
    seeded_generator,
    targets_of_each_class,
)
from losslab.targets import Kind

TARGETS = (0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 3.0, 8.0, 20.0)
"""Targets for regression losses, with mean 4 and median 1. They are integers, so that losses of counts accept them."""


def random_outputs(loss: Loss, classes: int, per_scale: int = 200) -> Tensor:
    """Return random outputs (N, classes · columns per class), `per_scale` rows at each of four scales."""
    draw = partial(torch.randn, per_scale, classes * n_output_columns(loss), dtype=torch.float64)
    return torch.cat([scale * draw(generator=seeded_generator(n)) for n, scale in enumerate((0.1, 1.0, 3.0, 10.0))])


def value_at_uniform_logits(loss: Loss, classes: int) -> float:
    """Return the mean over the classes of the loss at outputs of 0."""
    zeros = torch.zeros(1, classes * n_output_columns(loss), dtype=torch.float64)
    return costs_of_each_class(loss, zeros, classes).mean().item()


def range_of_class_sums(loss: Loss, classes: int) -> tuple[float, float]:
    """Return the smallest and the largest Σ_k L(z, k) found."""
    sums = costs_of_each_class(loss, random_outputs(loss, classes), classes).sum(1)
    return sums.min().item(), sums.max().item()


def value_range(loss: Loss, classes: int, limit: float = math.inf, *, near: bool = False) -> tuple[float, float]:
    """Return the smallest and the largest loss found, at outputs up to 1e4 (classes), or 1e12 and `limit` (values).

    If `near`, outputs are at most 300 (classes), or 1e6 and half of `limit` (values).
    """
    if is_classification(loss):
        one = torch.eye(classes)
        # In a row, the output of one class is 1 or -1 and the others are 0, or one is 1 and another -1.
        ends = torch.cat([one, -one, one - one.roll(1, 0)]).double().repeat(1, n_output_columns(loss))
        far = torch.cat([size * ends for size in (*range(1, 10), 15.0, 30.0, 300.0, *(() if near else (1e4,)))])
        values = costs_of_each_class(loss, torch.cat([random_outputs(loss, classes), far]), classes)
    else:
        end = min(1e6, limit / 2) if near else min(1e12, limit)
        sizes = torch.tensor([0.0, *np.geomspace(1e-3, end, 60)], dtype=torch.float64)
        spread = torch.cat([sizes, -sizes])[:, None]
        # The first output is spread around the target and 0. A further output, such as a variance, has five values.
        columns = n_output_columns(loss)
        cases = [(t, other, centre) for t in TARGETS for other in (-30.0, -3.0, 0.0, 6.0, 30.0) for centre in (t, 0.0)]
        scores = [
            loss.per_example(_with_columns(spread + centre, other, columns), torch.full_like(spread, target))
            for target, other, centre in cases
        ]
        values = torch.cat(scores)
    return values.min().item(), values.max().item()


def _with_columns(first: Tensor, other: float, columns: int) -> Tensor:
    """Return outputs (N, columns): the first column is `first` (N, 1), all others have the value `other`."""
    return torch.cat([first, first.new_full((len(first), columns - 1), other)], dim=1)


def convexity_violation(loss: Loss, classes: int = 3) -> float:
    """Return how far the loss is above a chord at most, of all chords tried. A loss that is convex is never above."""
    generator = seeded_generator(7)
    worst = -math.inf
    for centre in random_outputs(loss, classes, 400).split(400):
        for length in (0.1, 1.0, 5.0, 20.0):
            step = length * torch.randn(centre.shape, generator=generator, dtype=torch.float64)
            # Every second step changes only one output.
            step[::2] *= torch.nn.functional.one_hot(torch.arange(len(step[::2])) % step.shape[1], step.shape[1])
            low, middle, high = (_all_values(loss, centre + sign * step, classes) for sign in (-1, 0, 1))
            above = middle - (low + high) / 2
            noise = 1e-12 * (low.abs() + high.abs()) + 1e-13
            worst = max(worst, (above - noise).max().item())
    return worst


def _all_values(loss: Loss, outputs: Tensor, classes: int) -> Tensor:
    """Return the costs (N, C) of outputs for classes, or the losses (N, 1) for target values in turn."""
    if is_classification(loss):
        return costs_of_each_class(loss, outputs, classes)
    targets = torch.tensor(TARGETS, dtype=torch.float64)[torch.arange(len(outputs)) % len(TARGETS)]
    return loss.per_example(outputs, targets[:, None].expand(-1, classes))[:, None]


def shift_sensitivity(loss: Loss, classes: int) -> float:
    """Return the largest change of the loss found when the same number is added to all outputs of an example."""
    outputs = random_outputs(loss, classes)
    shift = 5 * torch.randn(len(outputs), 1, generator=seeded_generator(9), dtype=torch.float64)
    shifted, unshifted = (costs_of_each_class(loss, each, classes) for each in (outputs + shift, outputs))
    return (shifted - unshifted).abs().max().item()


def properness_gap(loss: Loss) -> float:
    """Return the largest distance found between true probabilities and those that minimise the expected loss."""
    binary = loss.wants[0] is Kind.BINARY
    truths = [(0.7,), (0.2,), (0.95,)] if binary else [(0.6, 0.3, 0.1), (0.4, 0.35, 0.25), (0.9, 0.07, 0.03)]
    return max(_distance(loss, torch.tensor(truth, dtype=torch.float64)) for truth in truths)


def _distance(loss: Loss, truth: Tensor) -> float:
    """Return the distance of the probabilities with the lowest expected loss from `truth`, (C,), or (1,) if binary."""
    classes = len(truth)

    def expected(z: Tensor) -> Tensor:
        # Only the network's own outputs vary; those of other views are 0.
        outputs = torch.cat([z, torch.zeros(classes * n_output_columns(loss) - len(z), dtype=z.dtype)])[None]
        if classes > 1:
            return (costs_of_each_class(loss, outputs, classes)[0] * truth).sum()
        yes_and_no = loss.per_example(outputs.repeat(2, 1), torch.tensor([[1.0], [0.0]], dtype=torch.float64))
        return (yes_and_no * torch.cat([truth, 1 - truth])).sum()

    n_outputs = loss.outputs(classes)
    starts = [torch.zeros(n_outputs), torch.randn(n_outputs, generator=seeded_generator(3))]
    best = min((_minimise(expected, start.double()) for start in starts), key=lambda end: end[0])[1]
    probabilities = loss.to_probabilities(best[None])[0]
    if classes > 1:
        probabilities = probabilities / probabilities.sum()
    return (probabilities - truth).abs().max().item()


def _minimise(function: Callable[[Tensor], Tensor], start: Tensor, method: str = "BFGS") -> tuple[float, Tensor]:
    """Return the minimum that `method` finds from `start`, and its place. Only "BFGS" uses gradients."""

    def value_and_gradient(z: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, object]:
        leaf = torch.from_numpy(z.copy()).requires_grad_()
        value = function(leaf)
        (gradient,) = torch.autograd.grad(value, leaf)
        return value.item(), gradient.numpy()

    if method == "BFGS":
        end = minimize(value_and_gradient, start.numpy(), jac=True, method=method, options={"gtol": 1e-9})
    else:
        options = {"xatol": 1e-9, "fatol": 1e-12, "maxiter": 2000}
        end = minimize(lambda z: function(torch.from_numpy(z)).item(), start.numpy(), method=method, options=options)
    return float(end.fun), torch.from_numpy(end.x)


def best_constant(loss: Loss) -> float:
    """Return the constant prediction that minimises the mean loss of `TARGETS`."""
    target = torch.tensor(TARGETS, dtype=torch.float64)[:, None]

    def mean(z: Tensor) -> Tensor:
        return loss.per_example(z[None].expand(len(target), -1), target).mean()

    starts = (torch.full((n_output_columns(loss),), start, dtype=torch.float64) for start in (0.5, 1.2, 3.0, 6.0, 15.0))
    best = min((_minimise(mean, start, "Nelder-Mead") for start in starts), key=lambda end: end[0])[1]
    return loss.to_predictions(best[None])[0, 0].item()


def gradients_near(loss: Loss) -> list[float]:
    """Return sizes of the gradient nearer and nearer to the target: at increasing margins, or decreasing residuals."""
    if is_classification(loss):
        return [_at_margin(loss, margin) for margin in (0.0, 3.0, 10.0, 30.0, 300.0, 1e7)]
    return _at_residuals(loss, (1.0, 1e-3, 1e-6, 1e-12))


def gradients_far(loss: Loss, limit: float = math.inf) -> list[float]:
    """Return sizes of the gradient farther and farther away: at more negative margins, or increasing residuals."""
    if is_classification(loss):
        return [_at_margin(loss, -margin) for margin in (0.0, 3.0, 10.0, 30.0, 300.0, 1e7)]
    return _at_residuals(loss, [size for size in (1.0, 5.0, 10.0, 30.0, 1e6, 1e30, 1e100) if size < limit])


def _at_margin(loss: Loss, margin: float) -> float:
    classes = 1 if loss.wants[0] is Kind.BINARY else 3
    outputs = torch.zeros(1, classes * n_output_columns(loss), dtype=torch.float64)
    # Cosines are multiplied by a large number, so a smaller margin is enough; larger ones round the gradient to 0.
    outputs[0, 0] = margin / 30 if loss.cosine_outputs else margin
    if classes == 1:
        return _gradient(loss, outputs, torch.ones(1, 1, dtype=torch.float64))
    return _gradient(loss, outputs, targets_of_each_class(loss, classes, 1)[0], loss.outputs(classes))


def _at_residuals(loss: Loss, sizes: Iterable[float]) -> list[float]:
    # The first output is the estimate; a further output, such as a raw variance, is 0.
    make = partial(_with_columns, other=0.0, columns=n_output_columns(loss))
    # The target is what outputs of 0 predict: 0, or 1 if the outputs are logarithms.
    target = loss.to_predictions(make(torch.zeros(1, 1, dtype=torch.float64))).clone()
    both = [
        [_gradient(loss, make(torch.full((1, 1), r * sign, dtype=torch.float64)), target, 1) for r in sizes]
        for sign in (1, -1)
    ]
    return [max(pair) for pair in zip(*both, strict=True)]


def _gradient(loss: Loss, outputs: Tensor, target: Tensor, columns: int | None = None) -> float:
    """Return the largest size of the gradient in the first `columns` outputs, or in all outputs if None."""
    leaf = outputs.requires_grad_()
    (gradient,) = torch.autograd.grad(loss.per_example(leaf, target).sum(), leaf)
    # The maximum and not the norm, because the square of a gradient of 1e-260 underflows to 0.
    size: float = gradient[:, :columns].abs().max().item()
    return size

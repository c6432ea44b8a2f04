"""Numerical search for facts of a loss, on random and extreme outputs in float64."""

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
"""Values to estimate, with mean 4 and median 1. They are integers, so that losses of counts accept them."""


def random_outputs(loss: Loss, classes: int, each: int = 200) -> Tensor:
    """Random outputs of several scales → (N, classes · columns per class)."""
    draw = partial(torch.randn, each, classes * n_output_columns(loss), dtype=torch.float64)
    return torch.cat([scale * draw(generator=seeded_generator(n)) for n, scale in enumerate((0.1, 1.0, 3.0, 10.0))])


def value_at_uniform_logits(loss: Loss, classes: int) -> float:
    """The mean over the classes of the loss at outputs of 0."""
    zeros = torch.zeros(1, classes * n_output_columns(loss), dtype=torch.float64)
    return costs_of_each_class(loss, zeros, classes).mean().item()


def range_of_class_sums(loss: Loss, classes: int) -> tuple[float, float]:
    """The smallest and the largest Σ_k L(z, k) found."""
    sums = costs_of_each_class(loss, random_outputs(loss, classes), classes).sum(1)
    return sums.min().item(), sums.max().item()


def value_range(loss: Loss, classes: int, limit: float = math.inf, *, near: bool = False) -> tuple[float, float]:
    """The smallest and the largest value found at outputs up to 1e4 (classes), or up to 1e12 and `limit` (values).

    With `near`, outputs go up to 300 (classes) or 1e6 (values) only.
    """
    if is_classification(loss):
        one = torch.eye(classes)
        ends = torch.cat([one, -one, one - one.roll(1, 0)]).double().repeat(1, n_output_columns(loss))
        far = torch.cat([size * ends for size in (*range(1, 10), 15.0, 30.0, 300.0, *(() if near else (1e4,)))])
        values = costs_of_each_class(loss, torch.cat([random_outputs(loss, classes), far]), classes)
    else:
        end = min(1e6, limit / 2) if near else min(1e12, limit)
        sizes = torch.tensor([0.0, *np.geomspace(1e-3, end, 60)], dtype=torch.float64)
        spread = torch.cat([sizes, -sizes.clamp(max=limit)])[:, None]
        # Outputs are spread around the target and around 0; other outputs for the same target take several values.
        columns = n_output_columns(loss)
        cases = [(t, rest, centre) for t in TARGETS for rest in (-30.0, -3.0, 0.0, 6.0, 30.0) for centre in (t, 0.0)]
        scores = [
            loss.per_example(_side_by_side(spread + centre, rest, columns), torch.full_like(spread, target))
            for target, rest, centre in cases
        ]
        values = torch.cat(scores)
    return values.min().item(), values.max().item()


def _side_by_side(first: Tensor, rest: float, columns: int) -> Tensor:
    return torch.cat([first, first.new_full((len(first), columns - 1), rest)], dim=1)


def convexity_violation(loss: Loss, classes: int = 3) -> float:
    """The largest distance of the loss above a chord; if positive, the loss is not convex in the outputs."""
    generator = seeded_generator(7)
    worst = -math.inf
    for centre in random_outputs(loss, classes, 400).split(400):
        for length in (0.1, 1.0, 5.0, 20.0):
            step = length * torch.randn(centre.shape, generator=generator, dtype=torch.float64)
            step[::2] *= torch.nn.functional.one_hot(torch.arange(len(step[::2])) % step.shape[1], step.shape[1])
            low, middle, high = (_all_values(loss, centre + sign * step, classes) for sign in (-1, 0, 1))
            above = middle - (low + high) / 2
            noise = 1e-12 * (low.abs() + high.abs()) + 1e-13
            worst = max(worst, (above - noise).max().item())
    return worst


def _all_values(loss: Loss, outputs: Tensor, classes: int) -> Tensor:
    if is_classification(loss):
        return costs_of_each_class(loss, outputs, classes)
    targets = torch.tensor(TARGETS, dtype=torch.float64)[torch.arange(len(outputs)) % len(TARGETS)]
    return loss.per_example(outputs, targets[:, None].expand(-1, classes))[:, None]


def shift_sensitivity(loss: Loss, classes: int) -> float:
    """The largest change of the value found when one number is added to all outputs of an example."""
    outputs = random_outputs(loss, classes)
    shift = 5 * torch.randn(len(outputs), 1, generator=seeded_generator(9), dtype=torch.float64)
    shifted, unshifted = (costs_of_each_class(loss, each, classes) for each in (outputs + shift, outputs))
    return (shifted - unshifted).abs().max().item()


def properness_gap(loss: Loss) -> float:
    """The largest distance found between the true probabilities and those that minimise the expected loss."""
    binary = loss.wants[0] is Kind.BINARY
    truths = [(0.7,), (0.2,), (0.95,)] if binary else [(0.6, 0.3, 0.1), (0.4, 0.35, 0.25), (0.9, 0.07, 0.03)]
    return max(_distance(loss, torch.tensor(truth, dtype=torch.float64)) for truth in truths)


def _distance(loss: Loss, truth: Tensor) -> float:
    """The distance between true probabilities (C,), or that of a label 1, and the estimate with the lowest loss."""
    classes = len(truth)

    def expected(z: Tensor) -> Tensor:
        # Only the network's own outputs vary; those of other views are 0.
        outputs = torch.cat([z, torch.zeros(classes * n_output_columns(loss) - len(z), dtype=z.dtype)])[None]
        if classes > 1:
            return (costs_of_each_class(loss, outputs, classes)[0] * truth).sum()
        yes, no = (loss.per_example(outputs, torch.tensor([[label]]).double())[0] for label in (1.0, 0.0))
        return truth[0] * yes + (1 - truth[0]) * no

    own = loss.outputs(classes)
    starts = [torch.zeros(own), torch.randn(own, generator=seeded_generator(3))]
    found = min((_minimise(expected, start.double()) for start in starts), key=lambda end: end[0])[1]
    probabilities = loss.to_probabilities(found[None])[0]
    if classes > 1:
        probabilities = probabilities / probabilities.sum()
    return (probabilities - truth).abs().max().item()


def _minimise(function: Callable[[Tensor], Tensor], start: Tensor, method: str = "BFGS") -> tuple[float, Tensor]:
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
    """The constant prediction that minimises the mean loss of `TARGETS`."""
    target = torch.tensor(TARGETS, dtype=torch.float64)[:, None]

    def mean(z: Tensor) -> Tensor:
        return loss.per_example(z[None].expand(len(target), -1), target).mean()

    starts = (torch.full((n_output_columns(loss),), start, dtype=torch.float64) for start in (0.5, 1.2, 3.0, 6.0, 15.0))
    ends = [_minimise(mean, start, "Nelder-Mead") for start in starts]
    return loss.to_predictions(min(ends, key=lambda end: end[0])[1][None])[0, 0].item()


def gradients_near(loss: Loss) -> list[float]:
    """Sizes of the gradient at increasing margins, or decreasing residuals."""
    if is_classification(loss):
        return [_at_margin(loss, margin) for margin in (0.0, 3.0, 10.0, 30.0, 300.0, 1e7)]
    return _at_residuals(loss, (1.0, 1e-3, 1e-6, 1e-12))


def gradients_far(loss: Loss, limit: float = math.inf) -> list[float]:
    """Sizes of the gradient at decreasing (negative) margins, or increasing residuals."""
    if is_classification(loss):
        return [_at_margin(loss, -margin) for margin in (0.0, 3.0, 10.0, 30.0, 300.0, 1e7)]
    return _at_residuals(loss, [size for size in (1.0, 5.0, 10.0, 30.0, 1e6, 1e30, 1e100) if size < limit])


def _at_margin(loss: Loss, margin: float) -> float:
    classes = 1 if loss.wants[0] is Kind.BINARY else 3
    outputs = torch.zeros(1, classes * n_output_columns(loss), dtype=torch.float64)
    # For cosines a smaller margin is already large: at a larger one the gradient rounds to 0 in float64.
    outputs[0, 0] = margin / 30 if loss.cosine_outputs else margin
    if classes == 1:
        return _gradient(loss, outputs, torch.ones(1, 1, dtype=torch.float64))
    return _gradient(loss, outputs, targets_of_each_class(loss, classes, 1)[0], loss.outputs(classes))


def _at_residuals(loss: Loss, sizes: Iterable[float]) -> list[float]:
    # Only the first of the outputs for a value is an estimate of it.
    make = partial(_side_by_side, rest=0.0, columns=n_output_columns(loss))
    # The target that outputs of 0 predict: 0, or a rate of 1 if the outputs are logarithms.
    target = loss.to_predictions(make(torch.zeros(1, 1, dtype=torch.float64))).clone()
    both = [
        [_gradient(loss, make(torch.full((1, 1), r * sign, dtype=torch.float64)), target, 1) for r in sizes]
        for sign in (1, -1)
    ]
    return [max(pair) for pair in zip(*both, strict=True)]


def _gradient(loss: Loss, outputs: Tensor, target: Tensor, columns: int | None = None) -> float:
    leaf = outputs.requires_grad_()
    (gradient,) = torch.autograd.grad(loss.per_example(leaf, target).sum(), leaf)
    # The maximum and not the norm, because the square of a gradient of 1e-260 underflows to 0.
    size: float = gradient[:, :columns].abs().max().item()
    return size

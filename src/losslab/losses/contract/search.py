"""What a loss does, found out by trying: on random outputs and far out, always in float64."""

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

_SCALES = (0.1, 1.0, 3.0, 10.0)
_COUNTS = (0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 3.0, 8.0, 20.0)
"""Values to estimate: mean 4, median 1, and counts, so that losses of counts can be asked too."""


def random_outputs(loss: Loss, classes: int, each: int = 200) -> Tensor:
    """Outputs of several sizes → (N, classes · width)."""
    drawn = [
        scale
        * torch.randn(each, classes * n_output_columns(loss), generator=seeded_generator(number), dtype=torch.float64)
        for number, scale in enumerate(_SCALES)
    ]
    return torch.cat(drawn)


def value_at_uniform_logits(loss: Loss, classes: int) -> float:
    """The mean over the classes of the loss where all outputs are 0."""
    zeros = torch.zeros(1, classes * n_output_columns(loss), dtype=torch.float64)
    return costs_of_each_class(loss, zeros, classes).mean().item()


def range_of_class_sums(loss: Loss, classes: int) -> tuple[float, float]:
    """The least and the greatest Σ_k L(z, k) found."""
    sums = costs_of_each_class(loss, random_outputs(loss, classes), classes).sum(1)
    return sums.min().item(), sums.max().item()


def value_range(loss: Loss, classes: int, limit: float = math.inf, *, near: bool = False) -> tuple[float, float]:
    """The least and the greatest value found, at outputs up to 1e4 (classes) or 1e12 (values); near, 300 or 1e6."""
    if is_classification(loss):
        one = torch.eye(classes)
        ends = torch.cat([one, -one, one - one.roll(1, 0)]).double().repeat(1, n_output_columns(loss))
        far = torch.cat([size * ends for size in (*range(1, 10), 15.0, 30.0, 300.0, *(() if near else (1e4,)))])
        values = costs_of_each_class(loss, torch.cat([random_outputs(loss, classes), far]), classes)
    else:
        end = min(1e6, limit / 2) if near else min(1e12, limit)
        sizes = torch.tensor([0.0, *np.geomspace(1e-3, end, 60)], dtype=torch.float64)
        spread = torch.cat([sizes, -sizes.clamp(max=limit)])[:, None]
        targets = torch.tensor(_COUNTS, dtype=torch.float64)[:, None]
        # An output that is the target, one that is far from it, and for further outputs of each target several values.
        further = torch.tensor([-30.0, -3.0, 0.0, 6.0, 30.0], dtype=torch.float64)[:, None]
        values = torch.cat(
            [
                loss.per_example(
                    _side_by_side(spread + (target if spread_from_target else 0), rest, n_output_columns(loss)), target
                )
                for target in targets.unsqueeze(1).expand(-1, len(spread), -1)
                for rest in further
                for spread_from_target in (True, False)
            ]
        )
    return values.min().item(), values.max().item()


def _side_by_side(first: Tensor, rest: Tensor, columns: int) -> Tensor:
    return torch.cat([first, *[rest.expand_as(first)] * (columns - 1)], dim=1)


def convexity_violation(loss: Loss, classes: int = 3) -> float:
    """By how much the loss lies above a chord at worst: above 0, it is not convex in the outputs."""
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
    targets = torch.tensor(_COUNTS, dtype=torch.float64)[torch.arange(len(outputs)) % len(_COUNTS)]
    return loss.per_example(outputs, targets[:, None].expand(-1, classes))[:, None]


def shift_sensitivity(loss: Loss, classes: int) -> float:
    """The most that adding one number to all outputs of an example changed the value."""
    outputs = random_outputs(loss, classes)
    shift = 5 * torch.randn(len(outputs), 1, generator=seeded_generator(9), dtype=torch.float64)
    return (
        (costs_of_each_class(loss, outputs + shift, classes) - costs_of_each_class(loss, outputs, classes))
        .abs()
        .max()
        .item()
    )


def properness_gap(loss: Loss) -> float:
    """How far the probabilities that minimise the expected loss lie from the true ones at worst."""
    binary = loss.wants[0] is Kind.BINARY
    truths = [(0.7,), (0.2,), (0.95,)] if binary else [(0.6, 0.3, 0.1), (0.4, 0.35, 0.25), (0.9, 0.07, 0.03)]
    return max(_distance(loss, torch.tensor(truth, dtype=torch.float64)) for truth in truths)


def _distance(loss: Loss, truth: Tensor) -> float:
    classes = len(truth)

    def expected(z: Tensor) -> Tensor:
        # What is scored beside the network's own outputs is none of its doing.
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
    """The prediction that minimises the mean loss of 0, 0, 1, 1, 1, 2, 3, 8 and 20."""
    target = torch.tensor(_COUNTS, dtype=torch.float64)[:, None]

    def mean(z: Tensor) -> Tensor:
        return loss.per_example(z[None].expand(len(target), -1), target).mean()

    starts: Iterable[float] = (0.5, 1.2, 3.0, 6.0, 15.0)
    ends = [
        _minimise(mean, torch.full((n_output_columns(loss),), start, dtype=torch.float64), "Nelder-Mead")
        for start in starts
    ]
    return loss.to_predictions(min(ends, key=lambda end: end[0])[1][None])[0, 0].item()


def gradients_near(loss: Loss) -> list[float]:
    """The size of the gradient on the way to where the outputs are right."""
    if is_classification(loss):
        return [_at_margin(loss, margin) for margin in (0.0, 3.0, 10.0, 30.0, 300.0, 1e7)]
    return _at_residuals(loss, (1.0, 1e-3, 1e-6, 1e-12))


def gradients_far(loss: Loss, limit: float = math.inf) -> list[float]:
    """The size of the gradient on the way to where they are as wrong as can be."""
    if is_classification(loss):
        return [_at_margin(loss, -margin) for margin in (0.0, 3.0, 10.0, 30.0, 300.0, 1e7)]
    return _at_residuals(loss, [size for size in (1.0, 5.0, 10.0, 30.0, 1e6, 1e30, 1e100) if size < limit])


def _at_margin(loss: Loss, margin: float) -> float:
    classes = 1 if loss.wants[0] is Kind.BINARY else 3
    outputs = torch.zeros(1, classes * n_output_columns(loss), dtype=torch.float64)
    # Cosines end where the margin of other outputs is large: further out float64 cannot tell faint from flat.
    outputs[0, 0] = margin / 30 if loss.cosine_outputs else margin
    if classes == 1:
        return _gradient(loss, outputs, torch.ones(1, 1, dtype=torch.float64))
    return _gradient(loss, outputs, targets_of_each_class(loss, classes, 1)[0], loss.outputs(classes))


def _at_residuals(loss: Loss, sizes: Iterable[float]) -> list[float]:
    if n_output_columns(loss) > 1:
        # Of the outputs that belong to a value only the first estimates it.
        make = partial(_side_by_side, rest=torch.zeros(1, 1, dtype=torch.float64), columns=n_output_columns(loss))
    else:
        make = partial(torch.Tensor.clone)
    # What outputs of 0 stand for: 0, or a rate of 1 where they are logarithms.
    target = loss.to_predictions(make(torch.zeros(1, 1, dtype=torch.float64))).clone()
    both = [
        [_gradient(loss, make(torch.full((1, 1), r * sign, dtype=torch.float64)), target, 1) for r in sizes]
        for sign in (1, -1)
    ]
    return [max(pair) for pair in zip(*both, strict=True)]


def _gradient(loss: Loss, outputs: Tensor, target: Tensor, columns: int | None = None) -> float:
    leaf = outputs.requires_grad_()
    (gradient,) = torch.autograd.grad(loss.per_example(leaf, target).sum(), leaf)
    # Not the norm: the squares of a gradient of 1e-260 are 0, and it is not.
    size: float = gradient[:, :columns].abs().max().item()
    return size

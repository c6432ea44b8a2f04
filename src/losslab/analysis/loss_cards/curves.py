"""Value and gradient of a loss along one line, at several values of its first hyperparameter."""

from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor

from losslab.errors import LabError
from losslab.losses.base import Loss
from losslab.losses.bce import BCE
from losslab.losses.contract.sample_inputs import (
    is_classification,
    n_output_columns,
    sample_outputs,
    targets_of_each_class,
    with_class_counts,
)
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.mse import MSE
from losslab.targets import Kind

POINTS = 61
CLASSES = 10


@dataclass(frozen=True)
class Curve:
    """One loss along the line."""

    label: str
    value: list[float]
    gradient: list[float]


@dataclass(frozen=True)
class Curves:
    """What a figure shows."""

    axis: str
    """What the line is, for the axis' label."""
    x: list[float]
    curves: list[Curve]
    """The loss as it is configured is the first."""
    reference: Curve
    """Cross-entropy or the squared error, on the same line."""


def curves(name: str, config: dict[str, Any], losses: dict[str, Loss] | None = None) -> Curves:
    """The curves of a loss.

    A loss of classes is shown over the margin m of ten classes, z = (m, 0, ..., 0) with the first class right, a loss
    of labels over the one logit of a yes, and a loss of values over the residual. The reference is the squared error,
    or the cross-entropy that fits.

    Args:
        name: of the loss, for the label of a loss without hyperparameters.
        config: of the loss, as composed.
        losses: by label, in place of the loss at the tried values of its first hyperparameter.
    """
    losses = losses or _varied(name, config)
    first = next(iter(losses.values()))
    axis, x, reference = _line(first)
    spread = _sees_directions_only(first)
    if spread:
        axis = f"output of the right class among {CLASSES}, others at ±1"
    shown = [_curve(label, loss, x, spread=spread) for label, loss in losses.items()]
    return Curves(axis, x.tolist(), shown, _curve(*reference, x, spread=spread))


def _varied(name: str, config: dict[str, Any]) -> dict[str, Loss]:
    loss: Loss = instantiate(config)
    if not loss.hyperparameters:
        return {name: loss}
    parameter, declared = next(iter(loss.hyperparameters.items()))
    configured = float(getattr(loss, parameter))
    others = [value for value in declared.tried if value != configured]
    return {f"{parameter} = {value:g}": instantiate(config, **{parameter: value}) for value in (configured, *others)}


def _line(loss: Loss) -> tuple[str, Tensor, tuple[str, Loss]]:
    if not is_classification(loss):
        axis = "residual z - t" if _right_at_0(loss) == 0 else "output z, right at 0"
        return axis, _evenly(5), ("mse", MSE())
    if loss.wants[0] is Kind.BINARY:
        return "logit of a yes", _evenly(8), ("bce", BCE())
    reach = 1 if getattr(loss, "cosine_outputs", False) else 8
    return f"margin of the right class among {CLASSES}", _evenly(reach), ("cross_entropy", CrossEntropy())


def _evenly(reach: float) -> Tensor:
    return torch.linspace(-reach, reach, POINTS, dtype=torch.float64)


def _curve(label: str, loss: Loss, x: Tensor, *, spread: bool) -> Curve:
    place = x.clone().requires_grad_()
    value = _along(with_class_counts(loss, CLASSES, equal=True), place, spread=spread)
    (gradient,) = torch.autograd.grad(value.sum(), place)
    return Curve(label, value.tolist(), gradient.tolist())


def _along(loss: Loss, place: Tensor, *, spread: bool) -> Tensor:
    """The loss (P,) at the places (P,) of its line; all other outputs of the network are 0, or spread to ±1."""
    if not is_classification(loss):
        target, targets = _right_at_0(loss).expand(len(place), 1), 1
    elif loss.wants[0] is Kind.BINARY:
        target, targets = torch.ones(len(place), 1, dtype=torch.float64), 1
    else:
        target, targets = targets_of_each_class(loss, CLASSES, len(place))[0], CLASSES
    rest = torch.zeros(len(place), loss.outputs(targets) - 1, dtype=torch.float64)
    if spread:
        rest[:, ::2], rest[:, 1::2] = 1, -1
    outputs = torch.cat([place[:, None], rest], dim=1)
    try:
        seen = loss.eval().loss_inputs(outputs, outputs, torch.nn.Identity())
    except LabError:  # there is no teacher here: let it be one that finds all classes alike
        seen = torch.cat([outputs, torch.zeros_like(outputs)], dim=1)
    return loss.per_example(seen, target)


def _sees_directions_only(loss: Loss) -> bool:
    """Whether outputs twice as large cost the same: then there is nothing to see where all others are 0."""
    if not is_classification(loss):
        return False
    outputs, target = sample_outputs(loss, 1, columns=CLASSES), targets_of_each_class(loss, CLASSES, 1)[0]
    ready = with_class_counts(loss, CLASSES, equal=True)
    return torch.allclose(ready.per_example(outputs, target), ready.per_example(2 * outputs, target), rtol=1e-4)


def _right_at_0(loss: Loss) -> Tensor:
    """The value that an output of 0 predicts → ()."""
    return loss.to_predictions(torch.zeros(1, n_output_columns(loss), dtype=torch.float64))[0, 0]

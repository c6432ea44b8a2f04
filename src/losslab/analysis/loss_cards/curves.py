"""Value and gradient of a loss along a line of outputs, for several values of its first hyperparameter."""

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

CLASSES = 10


@dataclass(frozen=True)
class Curve:
    """The value and gradient of one loss at the points of the line."""

    label: str
    value: list[float]
    gradient: list[float]


@dataclass(frozen=True)
class Curves:
    """The curves in a figure."""

    axis: str
    """The label of the x axis."""
    x: list[float]
    curves: list[Curve]
    """The curve of the configured loss, then those for other values of its first hyperparameter."""
    reference: Curve
    """The curve of the (binary) cross-entropy or squared error, for comparison."""


def curves(name: str, config: dict[str, Any], losses: dict[str, Loss] | None = None) -> Curves:
    """Compute the curves of a loss.

    For class targets, the x axis is the margin m in z = (m, 0, ..., 0), where the target is the first of ten classes.
    For 0/1 labels it is the logit z of one label 1, for values the residual z - t.

    The curves are those of `losses` by label, by default the configured loss and its variants with the other values of
    its first hyperparameter that it declares to be worth trying; without hyperparameters, its label is `name`.
    """
    losses = losses or _variants(name, config)
    first = next(iter(losses.values()))
    axis, largest, reference_name, reference = _line(first)
    x = torch.linspace(-largest, largest, 61, dtype=torch.float64)
    spread = _depends_on_direction_only(first)
    if spread:
        axis = f"output of the right class among {CLASSES}, others at ±1"
    shown = [_curve(label, loss, x, spread=spread) for label, loss in losses.items()]
    return Curves(axis, x.tolist(), shown, _curve(reference_name, reference, x, spread=spread))


def _variants(name: str, config: dict[str, Any]) -> dict[str, Loss]:
    loss: Loss = instantiate(config)
    if not loss.hyperparameters:
        return {name: loss}
    parameter, declared = next(iter(loss.hyperparameters.items()))
    configured = float(getattr(loss, parameter))
    others = [value for value in declared.tried if value != configured]
    return {f"{parameter} = {value:g}": instantiate(config, **{parameter: value}) for value in (configured, *others)}


def _line(loss: Loss) -> tuple[str, float, str, Loss]:
    """Return the label of the x axis, the end of the line, and the name and the loss of the reference."""
    if not is_classification(loss):
        return "residual z - t" if _prediction_at_0(loss) == 0 else "output z, right at 0", 5, "mse", MSE()
    if loss.wants[0] is Kind.BINARY:
        return "logit of a yes", 8, "bce", BCE()
    largest = 1 if getattr(loss, "cosine_outputs", False) else 8
    return f"margin of the right class among {CLASSES}", largest, "cross_entropy", CrossEntropy()


def _curve(label: str, loss: Loss, x: Tensor, *, spread: bool) -> Curve:
    """Evaluate a loss at points x (P,) of the first output. The others are 0, or with `spread` alternately 1 and -1."""
    x, loss = x.clone().requires_grad_(), with_class_counts(loss, CLASSES, equal=True)
    if not is_classification(loss):
        target, targets = _prediction_at_0(loss).expand(len(x), 1), 1
    elif loss.wants[0] is Kind.BINARY:
        target, targets = torch.ones(len(x), 1, dtype=torch.float64), 1
    else:
        target, targets = targets_of_each_class(loss, CLASSES, len(x))[0], CLASSES
    rest = torch.zeros(len(x), loss.outputs(targets) - 1, dtype=torch.float64)
    if spread:
        rest[:, ::2], rest[:, 1::2] = 1, -1
    outputs = torch.cat([x[:, None], rest], dim=1)
    try:
        inputs = loss.eval().loss_inputs(outputs, outputs, torch.nn.Identity())
    except LabError:  # no teacher is configured: use a teacher with equal probabilities of all classes
        inputs = torch.cat([outputs, torch.zeros_like(outputs)], dim=1)
    value = loss.per_example(inputs, target)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return Curve(label, value.tolist(), gradient.tolist())


def _depends_on_direction_only(loss: Loss) -> bool:
    """Return whether the loss does not change if the outputs are scaled; its curve with all other outputs 0 is flat."""
    if not is_classification(loss):
        return False
    outputs, target = sample_outputs(loss, 1, columns=CLASSES), targets_of_each_class(loss, CLASSES, 1)[0]
    loss = with_class_counts(loss, CLASSES, equal=True)
    return torch.allclose(loss.per_example(outputs, target), loss.per_example(2 * outputs, target), rtol=1e-4)


def _prediction_at_0(loss: Loss) -> Tensor:
    """Return the prediction () for an output of 0."""
    return loss.to_predictions(torch.zeros(1, n_output_columns(loss), dtype=torch.float64))[0, 0]

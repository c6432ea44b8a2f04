"""Value and gradient of a loss as one output changes, for several values of its first hyperparameter."""

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
    """The value of one loss, and its derivative with respect to x, at each x of a figure."""

    label: str
    value: list[float]
    gradient: list[float]


@dataclass(frozen=True)
class Curves:
    """The curves in the figure of a loss."""

    loss: str
    """The name of the loss."""
    axis: str
    """The label of the x axis."""
    x: list[float]
    curves: list[Curve]
    """The curve of the configured loss, then those for other values of its first hyperparameter."""
    reference: Curve
    """The curve of the cross-entropy, the binary cross-entropy or the squared error, for comparison."""


def curves(name: str, config: dict[str, Any], losses: dict[str, Loss] | None = None) -> Curves:
    """Compute the curves in the figure of a loss.

    For class targets, x is the margin m in the outputs z = (m, 0, ..., 0), where the target is the first of ten
    classes. For 0/1 labels, x is the logit z of one label that is 1. For values, x is the residual z - t.

    There is one curve for each of `losses`, whose keys are the labels. By default, these are the configured loss and
    copies of it with the values that its first hyperparameter declares as worth trying (`tried`). A loss without
    hyperparameters has one curve with the label `name`.
    """
    losses = losses or _variants(name, config)
    first = next(iter(losses.values()))
    axis, largest, reference_name, reference = _line(first)
    x = torch.linspace(-largest, largest, 61, dtype=torch.float64)
    spread = _ignores_scale(first)
    if spread:
        axis = f"output of the target class of {CLASSES}, others at ±1"
    shown = [_curve(label, loss, x, spread=spread) for label, loss in losses.items()]
    return Curves(name, axis, x.tolist(), shown, _curve(reference_name, reference, x, spread=spread))


def _variants(name: str, config: dict[str, Any]) -> dict[str, Loss]:
    loss: Loss = instantiate(config)
    if not loss.hyperparameters:
        return {name: loss}
    parameter, declared = next(iter(loss.hyperparameters.items()))
    configured = float(getattr(loss, parameter))
    others = [value for value in declared.tried if value != configured]
    return {f"{parameter} = {value:g}": instantiate(config, **{parameter: value}) for value in (configured, *others)}


def _line(loss: Loss) -> tuple[str, float, str, Loss]:
    """Return the label of the x axis, its largest x, and the name and loss of the reference curve."""
    if not is_classification(loss):
        axis = "residual z - t" if _prediction_at_0(loss) == 0 else "output z (z = 0 predicts the target)"
        return axis, 5, "mse", MSE()
    if loss.wants[0] is Kind.BINARY:
        return "logit of a label that is 1", 8, "bce", BCE()
    largest = 1 if getattr(loss, "cosine_outputs", False) else 8
    return f"margin of the target class (of {CLASSES} classes)", largest, "cross_entropy", CrossEntropy()


def _curve(label: str, loss: Loss, x: Tensor, *, spread: bool) -> Curve:
    """Evaluate a loss where the first output is x (P,). The others are 0, or with `spread` alternately 1 and -1."""
    x, loss = x.clone().requires_grad_(), with_class_counts(loss, CLASSES, equal=True)
    if not is_classification(loss):
        target, targets = _prediction_at_0(loss).expand(len(x), 1), 1
    elif loss.wants[0] is Kind.BINARY:
        target, targets = torch.ones(len(x), 1, dtype=torch.float64), 1
    else:
        target, targets = targets_of_each_class(loss, CLASSES, len(x))[0], CLASSES
    others = torch.zeros(len(x), loss.outputs(targets) - 1, dtype=torch.float64)
    if spread:
        others[:, ::2], others[:, 1::2] = 1, -1
    outputs = torch.cat([x[:, None], others], dim=1)
    try:
        inputs = loss.eval().loss_inputs(outputs, outputs, torch.nn.Identity())
    except LabError:  # the loss has no teacher: use one that gives all classes the same probability
        inputs = torch.cat([outputs, torch.zeros_like(outputs)], dim=1)
    value = loss.per_example(inputs, target)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return Curve(label, value.tolist(), gradient.tolist())


def _ignores_scale(loss: Loss) -> bool:
    """Return whether scaling all outputs does not change the loss. Its curve is flat if all other outputs are 0."""
    if not is_classification(loss):
        return False
    outputs, target = sample_outputs(loss, 1, columns=CLASSES), targets_of_each_class(loss, CLASSES, 1)[0]
    loss = with_class_counts(loss, CLASSES, equal=True)
    return torch.allclose(loss.per_example(outputs, target), loss.per_example(2 * outputs, target), rtol=1e-4)


def _prediction_at_0(loss: Loss) -> Tensor:
    """Return the value that the loss predicts (a scalar) where all outputs are 0."""
    return loss.to_predictions(torch.zeros(1, n_output_columns(loss), dtype=torch.float64))[0, 0]

"""Gradients in a snapshot: one number per layer, and the loss's own gradient along a line of margins."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from losslab.analysis.dynamics.record import Numbers
from losslab.models.learner import Learner
from losslab.targets import Kind, Task, encode

LINE: Numbers = np.sinh(np.linspace(-math.asinh(1000), math.asinh(1000), 241))
"""Margins or residuals from -1000 to 1000, denser around 0 (P,)."""
_MAX_CLASSES = 10


def layer_names(network: nn.Module) -> list[str]:
    """The layers with parameters of their own, in the order of the network."""
    return list(dict.fromkeys(_layer_of(network, name) for name, _ in network.named_parameters()))


def layer_titles(network: nn.Module) -> list[str]:
    """Name and class of each layer, such as "0 Conv2d"."""
    classes = {name: type(layer).__name__ for name, layer in network.named_modules()}
    return [f"{name} {classes[name]}" if name in classes else name for name in layer_names(network)]


def rms_by_layer(network: nn.Module, gradients: dict[str, Tensor]) -> Numbers:
    """Root mean square of each layer's gradient → (G,), NaN for layers without trainable parameters."""
    by_layer: dict[str, list[Tensor]] = {name: [] for name in layer_names(network)}
    for name, gradient in gradients.items():
        by_layer[_layer_of(network, name)].append(gradient.flatten().float())
    nan = torch.full((), torch.nan, device=next(iter(gradients.values())).device)
    squares = [torch.cat(parts).square().mean() if parts else nan for parts in by_layer.values()]
    rms: Numbers = torch.stack(squares).sqrt().cpu().numpy()
    return rms


def _layer_of(network: nn.Module, parameter: str) -> str:
    return parameter.rpartition(".")[0] or type(network).__name__.lower()


def loss_slope(learner: Learner) -> Numbers:
    """‖∂ℓ/∂z‖₂ along `LINE` → (P,), all NaN for a loss that needs more than the outputs.

    The outputs at margin m depend on the task. Multiclass: z = (m, 0, ..., 0) with the first class right, as in
    docs/losses.md, averaged over which of the first ten classes is right. Binary and multilabel: z = ±m in all columns,
    averaged over both labels. Regression: residual m in all columns.
    """
    loss, spec = learner.loss, learner.spec
    nothing: Numbers = np.full(len(LINE), np.nan)
    if loss.n_views > 1 or (spec.task is not Task.REGRESSION and loss.outputs_per_target > 1):
        return nothing
    device = learner.device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    line = torch.as_tensor(LINE, device=device, dtype=dtype)
    batches = _values_along(learner, line) if spec.task is Task.REGRESSION else _classes_along(learner, line)
    norms = [_gradient_norm(learner, outputs, target) for outputs, target in batches]
    return torch.stack(norms).mean(0).cpu().double().numpy() if norms else nothing


def _classes_along(learner: Learner, line: Tensor) -> list[tuple[Tensor, Tensor]]:
    columns = learner.spec.targets
    if learner.spec.task is not Task.MULTICLASS:
        margin = line[:, None].expand(-1, columns)
        threshold = decision_threshold(learner)
        return [(threshold + sign * margin, torch.full_like(margin, float(sign > 0))) for sign in (1, -1)]
    batches = []
    for right in range(min(columns, _MAX_CLASSES)):
        outputs = torch.zeros(len(line), columns).to(line)
        outputs[:, right] = line
        target = torch.full((len(line),), right, device=line.device)
        batches.append((outputs, encode(target, Kind.INDEX, learner.kind, columns, line.dtype)))
    return batches


def _values_along(learner: Learner, line: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Empty unless the (first) outputs of the loss are the predicted values themselves."""
    columns = learner.spec.targets
    outputs = torch.zeros(len(line), learner.loss.outputs(columns)).to(line)
    outputs[:, :columns] = line[:, None]
    target = torch.zeros(len(line), columns).to(line)
    return [(outputs, target)] if torch.equal(learner.predictions(outputs), outputs[:, :columns]) else []


def _gradient_norm(learner: Learner, outputs: Tensor, target: Tensor) -> Tensor:
    """The gradient norm of each example → (P,)."""
    outputs = outputs.clone().requires_grad_()
    with torch.enable_grad():
        total = learner.loss.per_example(outputs, target).sum()
        (gradient,) = torch.autograd.grad(total, outputs)
    norm: Tensor = gradient.norm(dim=1)
    return norm


def decision_threshold(learner: Learner) -> float:
    """The output at which a label has probability 1/2: 0 for logits, 1/2 where outputs are probabilities."""
    candidates = torch.tensor([[0.0], [0.5]], device=learner.device).expand(2, learner.spec.targets)
    probabilities = learner.probabilities(candidates)
    assert probabilities is not None  # noqa: S101 -- for the type checker: never called for a regression
    distance = (probabilities - 0.5).abs()[:, 0]
    return 0.5 if bool(distance[1] < distance[0]) else 0.0

"""The gradient of each layer, as one number.

The loss's own gradient along a line: what it would weigh an example by, knowing nothing but its margin.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from losslab.analysis.dynamics.record import Numbers
from losslab.models.learner import Learner
from losslab.targets import Kind, Task, encode


def layers(network: nn.Module) -> list[str]:
    """The layers that have parameters of their own, in the order of the network."""
    return list(dict.fromkeys(_layer(network, name) for name, _ in network.named_parameters()))


def titles(network: nn.Module) -> list[str]:
    """The layers with their kinds, such as "0 Conv2d"."""
    kinds = {name: type(layer).__name__ for name, layer in network.named_modules()}
    return [f"{name} {kinds[name]}" if name in kinds else name for name in layers(network)]


def by_layer(network: nn.Module, gradients: dict[str, Tensor]) -> Numbers:
    """The root mean square of each layer's gradient → (G,), NaN where a layer does not learn."""
    held: dict[str, list[Tensor]] = {name: [] for name in layers(network)}
    for name, gradient in gradients.items():
        held[_layer(network, name)].append(gradient.flatten().float())
    nothing = torch.full((), torch.nan, device=next(iter(gradients.values())).device)
    squares = [torch.cat(parts).square().mean() if parts else nothing for parts in held.values()]
    found: Numbers = torch.stack(squares).sqrt().cpu().numpy()
    return found


def _layer(network: nn.Module, parameter: str) -> str:
    return parameter.rpartition(".")[0] or type(network).__name__.lower()


LINE: Numbers = np.sinh(np.linspace(-math.asinh(1000), math.asinh(1000), 241))
"""Margins, or residuals, from -1000 to 1000 and closer together around 0 (P,)."""
_CLASSES = 10


def slope(learner: Learner) -> Numbers:
    """‖∂ℓ/∂z‖₂ along `LINE` → (P,), all NaN where the loss does not see outputs alone.

    Of C classes with margin m it is at z = (m, 0, ..., 0) with the first class right, as the figures in docs/losses.md
    have it, averaged over which of the first ten classes is the right one; of labels at z = ±m in all columns, with
    the labels that are right by m; of values at the residual m in all columns.
    """
    loss, facts = learner.loss, learner.facts
    nothing: Numbers = np.full(len(LINE), np.nan)
    if loss.n_views > 1 or (facts.task is not Task.REGRESSION and loss.outputs_per_target > 1):
        return nothing
    device = learner.device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    line = torch.as_tensor(LINE, device=device, dtype=dtype)
    places = _of_values(learner, line) if facts.task is Task.REGRESSION else _of_classes(learner, line)
    norms = [_norm(learner, outputs, target) for outputs, target in places]
    return torch.stack(norms).mean(0).cpu().double().numpy() if norms else nothing


def _of_classes(learner: Learner, line: Tensor) -> list[tuple[Tensor, Tensor]]:
    columns = learner.facts.targets
    if learner.facts.task is not Task.MULTICLASS:
        spread = line[:, None].expand(-1, columns)
        middle = centre(learner)
        return [(middle + sign * spread, torch.full_like(spread, float(sign > 0))) for sign in (1, -1)]
    places = []
    for right in range(min(columns, _CLASSES)):
        outputs = torch.zeros(len(line), columns).to(line)
        outputs[:, right] = line
        target = torch.full((len(line),), right, device=line.device)
        places.append((outputs, encode(target, Kind.INDEX, learner.kind, columns, line.dtype)))
    return places


def _of_values(learner: Learner, line: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Only of losses whose (first) outputs are the values themselves."""
    columns = learner.facts.targets
    outputs = torch.zeros(len(line), learner.loss.outputs(columns)).to(line)
    outputs[:, :columns] = line[:, None]
    target = torch.zeros(len(line), columns).to(line)
    return [(outputs, target)] if torch.equal(learner.predictions(outputs), outputs[:, :columns]) else []


def _norm(learner: Learner, outputs: Tensor, target: Tensor) -> Tensor:
    """Of each example's gradient → (P,)."""
    outputs = outputs.clone().requires_grad_()
    with torch.enable_grad():
        value = learner.loss.per_example(outputs, target).sum()
        (gradient,) = torch.autograd.grad(value, outputs)
    norm: Tensor = gradient.norm(dim=1)
    return norm


def centre(learner: Learner) -> float:
    """The output at which a label is as likely as not: 0 for logits, 1/2 where outputs are the probabilities."""
    tried = torch.tensor([[0.0], [0.5]], device=learner.device).expand(2, learner.facts.targets)
    likely = learner.probabilities(tried)
    assert likely is not None  # noqa: S101 -- for the type checker: not asked of values
    off = (likely - 0.5).abs()[:, 0]
    return 0.5 if bool(off[1] < off[0]) else 0.0

"""The linear model, whose mean squared error is a quadratic with a known Hessian."""

import torch
from torch import Tensor, nn

from losslab.doctor.case import Case


def linear_layer(case: Case) -> nn.Linear | None:
    """The one linear layer that holds all that is learnt and gives the outputs; None for other networks."""
    layers = [m for m in case.network.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear) or not case.tensors or case.outputs.ndim != 2:
        return None
    return layers[0]


def largest_eigenvalue(case: Case, layer: nn.Linear) -> float:
    """λmax of the Hessian of the mean squared error over the whole batch: 2 σ²/(N D), σ of [features, 1].

    0 where the layer's outputs are not those of the network.
    """
    given: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _, inputs, output: given.append((inputs[0], output)))
    try:
        with torch.no_grad():
            outputs = case.network(case.everything)
    finally:
        hook.remove()
    if len(given) != 1 or not torch.equal(given[0][1].view_as(outputs), outputs):
        return 0.0
    features = given[0][0].detach().double()
    if layer.bias is not None and layer.bias.requires_grad:
        features = torch.cat([features, features.new_ones(len(features), 1)], 1)
    elements = 1 if getattr(case.loss, "reduction", "mean") == "sum" else outputs.numel()
    decay = case.optimizer.param_groups[0]["weight_decay"] if case.optimizer is not None else 0.0
    return float(2 * torch.linalg.matrix_norm(features, 2).square() / elements + decay)

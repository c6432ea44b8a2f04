"""Checks the settings of loss and optimizer, the loss before the first step, and the mode of the network."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from losslab.doctor.checks_loss import lower_when_wrong
from losslab.doctor.finding import Finding, error, warning
from losslab.doctor.training_setup import Setup
from losslab.losses import MSE
from losslab.losses.adapter.output_kind import OutputKind
from losslab.losses.adapter.probe import setting

_LARGE_DECAY = 0.1
"""Limit for lr · weight_decay, the fraction of a weight that a step removes, above which it dominates the loss."""


def weights_with_smoothing(setup: Setup) -> Iterator[Finding]:
    """Find class weights combined with label smoothing, which then favours classes with a large weight."""
    weight, smoothing = setting(setup.loss, "weight"), float(setting(setup.loss, "label_smoothing", default=0.0))
    if setup.output_kind is not OutputKind.LOGITS or not isinstance(weight, Tensor) or not smoothing:
        return
    if weight.max() == weight.min():
        return
    light, heavy = int(weight.argmin()), int(weight.argmax())
    best = optimal_probabilities(weight.double().cpu(), smoothing, light)
    problem = (
        f"class weights from {float(weight.min()):g} to {float(weight.max()):g} with label_smoothing={smoothing:g}: "
        f"on an example of class {light} the loss is lowest at p = {best[light]:.3f} for class {light} and "
        f"{best[heavy]:.3f} for class {heavy} (without weights {1 - smoothing * (1 - 1 / len(weight)):.3f})"
    )
    why = "smoothing adds a loss for every class, weighted by the weight of that class, which favours large weights"
    fix = "use only one of the two, or weight the smoothed loss of an example by the weight of its class"
    make = error if int(best.argmax()) != light else warning
    yield make("weights-with-smoothing", problem, why, fix)


def optimal_probabilities(weight: Tensor, smoothing: float, label: int) -> Tensor:
    """Return the probabilities (C,) at which the loss of an example with this label is lowest.

    The loss is -Σ_k c_k log p_k with c_k = ε w_k / C + (1 - ε) w_y [k = y]; so p = c / Σ c.
    """
    costs = smoothing * weight / len(weight)
    costs[label] += (1 - smoothing) * weight[label]
    return costs / costs.sum()


def kl_element_mean(setup: Setup) -> Iterator[Finding]:
    """Find KLDivLoss(reduction="mean"), which divides by the number of examples and by the outputs per example."""
    if setup.torch_class is nn.KLDivLoss and setting(setup.loss, "reduction", default="mean") == "mean":
        size = setup.outputs[0].numel()
        problem = f'KLDivLoss with reduction="mean" averages over examples and over the {size} outputs of an example'
        why = f"the divergence of an example is a sum over its outputs: loss and gradient are {size} times too small"
        yield warning("kl-element-mean", problem, why, 'use reduction="batchmean"')


def optimizer_without_parameters(setup: Setup) -> Iterator[Finding]:
    """Find an optimizer that has no trainable parameter of the network."""
    if setup.optimizer is not None and setup.trainable and not _groups(setup):
        problem = "the optimizer has no trainable parameter of this network"
        why = "its steps change other tensors, but not the network"
        fix = "create the optimizer from network.parameters(), after creating the network"
        yield error("optimizer-elsewhere", problem, why, fix)


def high_initial_loss(setup: Setup) -> Iterator[Finding]:
    """Find a loss far above the loss of outputs that are 0, that is, of uniform probabilities."""
    if setup.number is None or setup.output_kind not in {OutputKind.LOGITS, OutputKind.BINARY_LOGITS}:
        return
    with torch.no_grad():
        uniform = float(setup.loss(torch.zeros_like(setup.outputs), setup.target))
    if uniform > 0 and setup.number >= 2 * uniform and setup.number >= uniform + 0.5:
        size = float(setup.outputs.detach().abs().max())
        problem = f"the loss is {setup.number:.4g} (of outputs 0: {uniform:.4g}), and outputs are up to {size:.4g}"
        why = "the untrained network makes confident wrong predictions: the first epochs only correct this"
        fix = "normalise the inputs, or initialise the last layer closer to 0 (trained weights: for the same classes?)"
        yield warning("initial-loss", problem, why, fix)


def unstable_learning_rate(setup: Setup) -> Iterator[Finding]:
    """Find a learning rate above the bound, such as 2/λmax, above which SGD on a quadratic loss diverges."""
    bound_of_sgd, layer = _stability_bound(setup), setup.linear_layer
    if bound_of_sgd is None or layer is None or not (setup.torch_class is nn.MSELoss or type(setup.loss) is MSE):
        return
    lr, factor, formula = bound_of_sgd
    largest = _largest_eigenvalue(setup, layer)
    if not largest > 0 or lr <= factor / largest:
        return
    bound = f"{factor / largest:.4g}"
    problem = f"learning rate {lr:g} for a linear model and mean squared error; its Hessian has λmax = {largest:.4g}"
    why = f"above {formula} = {bound}, each step increases the error, and the loss diverges"
    yield warning("learning-rate-too-high", problem, why, f"set the learning rate below {bound}")


def _largest_eigenvalue(setup: Setup, layer: nn.Linear) -> float:
    """Return λmax of the Hessian of the squared error over the whole batch, with the weight decay of the optimizer.

    For the mean squared error, λmax = 2 σ²/(N D) + weight decay, where σ is the largest singular value of
    [features, 1]. Return 0 if the outputs of the layer are not those of the network.
    """
    calls: list[tuple[Tensor, Tensor]] = []
    with layer.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output))), torch.no_grad():
        outputs = setup.network(setup.all_inputs)
    if len(calls) != 1 or not torch.equal(calls[0][1].view_as(outputs), outputs):
        return 0.0
    features = calls[0][0].detach().double()
    if layer.bias is not None and layer.bias.requires_grad:
        features = torch.cat([features, features.new_ones(len(features), 1)], 1)
    divisors = {"sum": 1, "batchmean": len(outputs)}
    elements = divisors.get(getattr(setup.loss, "reduction", "mean"), outputs.numel())
    decay = setup.optimizer.param_groups[0]["weight_decay"] if setup.optimizer is not None else 0.0
    return float(2 * torch.linalg.matrix_norm(features, 2).square() / elements + decay)


def _stability_bound(setup: Setup) -> tuple[float, float, str] | None:
    """Return the learning rate, its upper bound times λmax, and the formula of the bound; None for other than SGD."""
    if setup.optimizer is None:
        return None if setup.lr is None else (setup.lr, 2.0, "2/λmax")
    group: dict[str, Any] = setup.optimizer.param_groups[0]
    if type(setup.optimizer) is not torch.optim.SGD or group["maximize"] or group["weight_decay"] < 0:
        return None
    beta, lr = float(group["momentum"]), float(group["lr"])
    if not beta:
        return lr, 2.0, "2/λmax"
    if group["nesterov"]:
        return lr, 2 * (1 + beta) / (1 + 2 * beta), "2(1+β)/((1+2β)λmax)"
    dampening = float(group["dampening"])
    formula = f"2(1+β)/((1-{dampening:g})λmax)" if dampening else "2(1+β)/λmax"
    return lr, 2 * (1 + beta) / (1 - dampening), formula


def zero_learning_rate(setup: Setup) -> Iterator[Finding]:
    """Find a learning rate of 0, unless a scheduler increases it."""
    groups = _groups(setup)
    rates = [float(group.get("initial_lr", group["lr"])) for group in groups if group.get("lr") is not None]
    rates = rates if groups or setup.lr is None else [setup.lr]
    if rates and not any(rates):
        fix = "set a learning rate above 0, such as 0.1 (SGD) or 1e-3 (Adam)"
        why = "the steps do not change the weights"
        yield error("learning-rate-zero", "the learning rate is 0", why, fix)


def maximizing_optimizer(setup: Setup) -> Iterator[Finding]:
    """Find an optimizer with maximize=True, although the loss is not lower for wrong outputs than for correct ones."""
    if setup.maximizes and lower_when_wrong(setup) is None:
        why = "each step increases the loss and makes the network worse"
        fix = "remove maximize=True, unless the loss should be maximized"
        yield warning("maximize", "the optimizer has maximize=True", why, fix)


def missed_parameters(setup: Setup) -> Iterator[Finding]:
    """Find trainable parameters that the optimizer lacks, although it has other parameters of the network."""
    if setup.optimizer is None:
        return
    optimized = {id(parameter) for group in setup.optimizer.param_groups for parameter in group["params"]}
    without = [name for name, parameter in setup.trainable.items() if id(parameter) not in optimized]
    if without and len(without) < len(setup.trainable):
        problem = f"the optimizer lacks {len(without)} of {len(setup.trainable)} parameters, the first is {without[0]}"
        fix = "create the optimizer from network.parameters(), or freeze the others with requires_grad_(False)"
        yield warning("optimizer-misses", problem, "they have gradients, but keep their initial values", fix)


def large_weight_decay(setup: Setup) -> Iterator[Finding]:
    """Find a weight decay that keeps the weights close to 0."""
    for group in _groups(setup):
        lr, decay = float(group.get("lr") or 0.0), float(group.get("weight_decay") or 0.0)
        if decay >= 1 and lr * decay >= _LARGE_DECAY:
            problem = f"weight_decay {decay:g} at learning rate {lr:g}"
            why = f"lr · weight_decay is {lr * decay:.3g}: the decay dominates the loss and keeps weights close to 0"
            if isinstance(setup.optimizer, torch.optim.SGD | torch.optim.AdamW):
                why = f"each step removes the fraction lr · weight_decay = {lr * decay:.3g} of every weight"
            yield warning("weight-decay-too-high", problem, why, "use a weight decay of 1e-4 to 1e-1")
            return


def zero_class_weight(setup: Setup) -> Iterator[Finding]:
    """Find classes with weight 0 that are not ignored.

    Weights that losslab computes from class counts are not checked: they may be 0 for classes without examples.
    """
    weight = setting(setup.loss, "weight")
    if not setup.takes_indices or not isinstance(weight, Tensor) or setting(setup.loss, "weight_rule") is not None:
        return
    if weight.ndim != 1 or len(weight) != setup.outputs.shape[1]:
        return
    classes = [k for k in (weight == 0).nonzero().flatten().tolist() if k != setup.ignore_index]
    if classes:
        listed = ", ".join(str(k) for k in classes[:5]) + (" and more" if classes[5:] else "")
        problem = f"the class weight of class {listed} is 0"
        fix = "set a weight above 0, or set ignore_index if the examples of the class should not count"
        yield warning("class-weight-zero", problem, "the gradient of its examples is 0", fix)


def evaluation_mode(setup: Setup) -> Iterator[Finding]:
    """Find a network in evaluation mode with layers that behave differently in training mode."""
    layer = next(filter(_depends_on_mode, setup.network.modules()), None) if setup.was_eval else None
    if layer is not None:
        problem = f"the network is in evaluation mode and has a {type(layer).__name__}"
        why = "dropout drops nothing, and batch norm uses its stored statistics, until train() is called"
        yield warning("evaluation-mode", problem, why, "call network.train() before training")


def _depends_on_mode(module: nn.Module) -> bool:
    if isinstance(module, _BatchNorm):
        return module.running_mean is not None
    return isinstance(module, _DropoutNd) and module.p > 0


def _groups(setup: Setup) -> list[dict[str, Any]]:
    """Return the parameter groups of the optimizer that contain trainable parameters of the network."""
    own = {id(parameter) for parameter in setup.trainable.values()}
    groups = [] if setup.optimizer is None else setup.optimizer.param_groups
    return [group for group in groups if any(id(parameter) in own for parameter in group["params"])]

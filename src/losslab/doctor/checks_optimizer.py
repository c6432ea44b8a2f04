"""Checks of the settings of loss and optimizer, of the first loss, and of the training mode of the network."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from losslab.doctor.case import Case
from losslab.doctor.checks_loss import lower_when_wrong
from losslab.doctor.finding import Finding, error, warning
from losslab.losses import MSE
from losslab.losses.adapter.output_kind import OutputKind, setting

_LARGE_DECAY = 0.1
"""If a step removes at least this fraction of a weight, the decay dominates the loss."""


def weights_with_smoothing(case: Case) -> Iterator[Finding]:
    """Class weights with label smoothing: the smoothed part is weighted by the weights of the other classes."""
    weight, smoothing = setting(case.loss, "weight"), float(setting(case.loss, "label_smoothing", default=0.0))
    if case.output_kind is not OutputKind.LOGITS or not isinstance(weight, Tensor) or not smoothing or len(weight) < 2:
        return
    if weight.max() == weight.min():
        return
    light, heavy = int(weight.argmin()), int(weight.argmax())
    best = optimal_probabilities(weight.double().cpu(), smoothing, light)
    seen = (
        f"class weights from {float(weight.min()):g} to {float(weight.max()):g} with label_smoothing={smoothing:g}: "
        f"on an example of class {light} the loss is lowest at p = {best[light]:.3f} for class {light} and "
        f"{best[heavy]:.3f} for class {heavy} (without weights {1 - smoothing * (1 - 1 / len(weight)):.3f})"
    )
    why = "the smoothed part of a target is weighted class by class, which pulls all examples to the heavy classes"
    fix = "use one of the two, or weight the smoothed loss by the example's own class"
    make = error if int(best.argmax()) != light else warning
    yield make("weights-with-smoothing", seen, why, fix)


def optimal_probabilities(weight: Tensor, smoothing: float, label: int) -> Tensor:
    """Return the probabilities (C,) at which the loss of an example with this label is lowest.

    The loss is -Σ_k c_k log p_k with c_k = ε w_k / C, plus (1 - ε) w_y for the label; so p = c / Σ c.
    """
    costs = smoothing * weight / len(weight)
    costs[label] += (1 - smoothing) * weight[label]
    return costs / costs.sum()


def kl_element_mean(case: Case) -> Iterator[Finding]:
    """KLDivLoss(reduction="mean"), which also divides by the number of classes."""
    if case.torch_class is nn.KLDivLoss and setting(case.loss, "reduction", default="mean") == "mean":
        classes = case.outputs[0].numel()
        seen = f'KLDivLoss with reduction="mean" averages over examples and {classes} classes'
        why = f"the divergence of an example is a sum over classes: loss and gradient are {classes} times too small"
        yield warning("kl-element-mean", seen, why, 'use reduction="batchmean"')


def optimizer_without_parameters(case: Case) -> Iterator[Finding]:
    """An optimizer without parameters of the network."""
    if case.optimizer is not None and case.trainable and not _groups(case):
        seen = "the optimizer has no trainable parameter of this network"
        why = "its steps change other tensors, but not the network"
        yield error(
            "optimizer-elsewhere", seen, why, "create the optimizer from network.parameters(), after the network"
        )


def high_initial_loss(case: Case) -> Iterator[Finding]:
    """A loss far above that of uniform outputs."""
    if case.number is None or case.output_kind not in {OutputKind.LOGITS, OutputKind.BINARY_LOGITS}:
        return
    with torch.no_grad():
        uniform = float(case.loss(torch.zeros_like(case.outputs), case.target))
    if uniform > 0 and case.number >= 2 * uniform and case.number >= uniform + 0.5:
        size = float(case.outputs.detach().abs().max())
        seen = f"the loss starts at {case.number:.4g}, uniform outputs cost {uniform:.4g}; outputs are up to {size:.4g}"
        why = "the untrained network is confident and wrong: the first epochs only correct this"
        yield warning("initial-loss", seen, why, "normalise the inputs, or initialise the last layer smaller")


def unstable_learning_rate(case: Case) -> Iterator[Finding]:
    """A learning rate above the bound, such as 2/λmax, where gradient descent on a quadratic diverges."""
    descent, layer = _descent(case), case.linear_layer
    if descent is None or layer is None or not (case.torch_class is nn.MSELoss or type(case.loss) is MSE):
        return
    lr, factor, formula = descent
    largest = _largest_eigenvalue(case, layer)
    if not largest > 0 or lr <= factor / largest:
        return
    bound = f"{factor / largest:.4g}"
    seen = (
        f"learning rate {lr:g} for a linear model under the mean squared error, whose Hessian on this batch has "
        f"λmax = {largest:.4g}"
    )
    why = f"above {formula} = {bound} each step overshoots by more than it corrects, and the loss diverges"
    yield warning("learning-rate-too-high", seen, why, f"set the learning rate below {bound}")


def _largest_eigenvalue(case: Case, layer: nn.Linear) -> float:
    """Return λmax of the Hessian of the mean squared error over the whole batch.

    λmax = 2 σ²/(N D), with the largest singular value σ of [features, 1]. Returns 0 if the outputs of the layer are not
    those of the network.
    """
    calls: list[tuple[Tensor, Tensor]] = []
    with layer.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output))), torch.no_grad():
        outputs = case.network(case.all_inputs)
    if len(calls) != 1 or not torch.equal(calls[0][1].view_as(outputs), outputs):
        return 0.0
    features = calls[0][0].detach().double()
    if layer.bias is not None and layer.bias.requires_grad:
        features = torch.cat([features, features.new_ones(len(features), 1)], 1)
    elements = 1 if getattr(case.loss, "reduction", "mean") == "sum" else outputs.numel()
    decay = case.optimizer.param_groups[0]["weight_decay"] if case.optimizer is not None else 0.0
    return float(2 * torch.linalg.matrix_norm(features, 2).square() / elements + decay)


def _descent(case: Case) -> tuple[float, float, str] | None:
    """Return the learning rate of SGD, its bound times λmax, and the formula of the bound; None if not known."""
    if case.optimizer is None:
        return None if case.lr is None else (case.lr, 2.0, "2/λmax")
    group: dict[str, Any] = case.optimizer.param_groups[0]
    if type(case.optimizer) is not torch.optim.SGD or group["maximize"] or group["weight_decay"] < 0:
        return None
    beta, lr = float(group["momentum"]), float(group["lr"])
    if not beta:
        return lr, 2.0, "2/λmax"
    if group["nesterov"]:
        return lr, 2 * (1 + beta) / (1 + 2 * beta), "2(1+β)/((1+2β)λmax)"
    return lr, 2 * (1 + beta) / (1 - float(group["dampening"])), "2(1+β)/λmax"


def zero_learning_rate(case: Case) -> Iterator[Finding]:
    """A learning rate of 0, unless a scheduler raises it."""
    groups = _groups(case)
    rates = [float(group.get("initial_lr", group["lr"])) for group in groups if group.get("lr") is not None]
    rates = rates if groups or case.lr is None else [case.lr]
    if rates and not any(rates):
        fix = "set one above 0, such as 0.1 (SGD) or 1e-3 (Adam)"
        yield error(
            "learning-rate-zero", "the learning rate is 0", "no step changes the weights: nothing is learnt", fix
        )


def maximizing_optimizer(case: Case) -> Iterator[Finding]:
    """An optimizer that maximizes a loss that should be minimized."""
    if case.maximizes and lower_when_wrong(case) is None:
        why = "each step increases the loss, and makes the network worse"
        fix = "leave maximize out, unless the loss should be maximized"
        yield warning("maximize", "the optimizer has maximize=True", why, fix)


def missed_parameters(case: Case) -> Iterator[Finding]:
    """Trainable parameters that the optimizer lacks, although it has others."""
    if case.optimizer is None:
        return
    optimized = {id(parameter) for group in case.optimizer.param_groups for parameter in group["params"]}
    without = [name for name, parameter in case.trainable.items() if id(parameter) not in optimized]
    if without and len(without) < len(case.trainable):
        seen = (
            f"the optimizer misses {len(without)} of {len(case.trainable)} parameters, the first of them {without[0]}"
        )
        fix = "create the optimizer from network.parameters(), or freeze the others with requires_grad_(False)"
        yield warning("optimizer-misses", seen, "they get gradients, but keep their initial values", fix)


def large_weight_decay(case: Case) -> Iterator[Finding]:
    """A weight decay that shrinks the weights almost to 0."""
    for group in _groups(case):
        lr, decay = float(group.get("lr") or 0.0), float(group.get("weight_decay") or 0.0)
        if decay >= 1 and lr * decay >= _LARGE_DECAY:
            seen = f"weight_decay {decay:g} at learning rate {lr:g}"
            why = f"each step removes the fraction lr · weight_decay = {lr * decay:.3g} of every weight"
            yield warning("weight-decay-too-high", seen, why, "use a weight decay of 1e-4 to 1e-1")
            return


def zero_class_weight(case: Case) -> Iterator[Finding]:
    """Classes with weight 0 that are not ignored. Weights computed by a rule may be 0 for classes without examples."""
    weight = setting(case.loss, "weight")
    if not case.takes_indices or not isinstance(weight, Tensor) or setting(case.loss, "weight_rule") is not None:
        return
    if weight.ndim != 1 or len(weight) != case.outputs.shape[1]:
        return
    classes = [k for k in (weight == 0).nonzero().flatten().tolist() if k != case.ignore_index]
    if classes:
        listed = ", ".join(str(k) for k in classes[:5]) + (" and more" if classes[5:] else "")
        fix = "give it a weight above 0, or set ignore_index if its examples should not count"
        yield warning(
            "class-weight-zero", f"the class weight of class {listed} is 0", "its examples have zero gradient", fix
        )


def evaluation_mode(case: Case) -> Iterator[Finding]:
    """A network in evaluation mode with layers that behave differently in training mode."""
    layer = next(filter(_depends_on_mode, case.network.modules()), None) if case.was_eval else None
    if layer is not None:
        seen = f"the network is in evaluation mode and has a {type(layer).__name__}"
        why = "dropout drops nothing and batch norm keeps its stored statistics until train() is called"
        yield warning("evaluation-mode", seen, why, "call network.train() before training")


def _depends_on_mode(module: nn.Module) -> bool:
    if isinstance(module, _BatchNorm):
        return module.running_mean is not None
    return isinstance(module, _DropoutNd) and module.p > 0


def _groups(case: Case) -> list[dict[str, Any]]:
    """Return the parameter groups of the optimizer with trainable parameters of the network."""
    own = {id(parameter) for parameter in case.trainable.values()}
    groups = [] if case.optimizer is None else case.optimizer.param_groups
    return [group for group in groups if any(id(parameter) in own for parameter in group["params"])]

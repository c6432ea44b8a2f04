"""Settings of the loss and the optimizer that do not do what they seem to.

Where training starts and how far a step may go.

Steps that go nowhere, the wrong way, or too far towards 0; and a network that is not in training mode.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from losslab.doctor.case import Case, largest_eigenvalue, linear_layer
from losslab.doctor.checks_data import ignored, takes_classes
from losslab.doctor.checks_loss import maximised, upside_down
from losslab.doctor.finding import Finding, error, warning
from losslab.doctor.probe import Reads, is_a, setting
from losslab.losses import MSE


def weights_and_smoothing(case: Case) -> Iterator[Finding]:
    """Class weights beside label smoothing: the smoothed part is weighted by the other classes' weights."""
    weight, smoothing = setting(case.loss, "weight"), setting(case.loss, "label_smoothing", default=0.0)
    if case.reads is not Reads.LOGITS or not isinstance(weight, Tensor) or not float(smoothing) or len(weight) < 2:
        return
    if weight.max() == weight.min():
        return
    light, heavy = int(weight.argmin()), int(weight.argmax())
    best = optimum(weight.double().cpu(), float(smoothing), light)
    plain = 1 - float(smoothing) * (1 - 1 / len(weight))
    seen = (
        f"class weights from {float(weight.min()):g} to {float(weight.max()):g} beside "
        f"label_smoothing={float(smoothing):g}: "
        f"on an example of class {light} the loss is lowest at p = {best[light]:.3f} for class {light} and "
        f"{best[heavy]:.3f} for class {heavy} (without weights {plain:.3f})"
    )
    why = "the smoothed part of a target is weighted class by class, which pulls all examples to the heavy classes"
    fix = "use one of the two, or weight the smoothed loss by the example's own class"
    tell = error if int(best.argmax()) != light else warning
    yield tell("weights-with-smoothing", seen, why, fix)


def optimum(weight: Tensor, smoothing: float, label: int) -> Tensor:
    """The probabilities (C,) at which the loss of an example with this label is lowest.

    The loss is -Σ_k c_k log p_k with c_k = ε w_k / C, and (1 - ε) w_y more for the label; so p = c / Σ c.
    """
    costs = smoothing * weight / len(weight)
    costs[label] += (1 - smoothing) * weight[label]
    return costs / costs.sum()


def element_mean(case: Case) -> Iterator[Finding]:
    """KLDivLoss(reduction="mean") divides by the number of classes too."""
    if is_a(case.loss, nn.KLDivLoss) and setting(case.loss, "reduction", default="mean") == "mean" and case.tensors:
        classes = case.outputs[0].numel()
        seen = f'KLDivLoss with reduction="mean" averages over examples and {classes} classes'
        why = f"the divergence of an example is a sum over classes: loss and gradient are {classes} times too small"
        yield warning("kl-element-mean", seen, why, 'use reduction="batchmean"')


def elsewhere(case: Case) -> Iterator[Finding]:
    """An optimizer that holds none of the network's parameters."""
    if case.optimizer is None or not case.trained:
        return
    held = {id(parameter) for group in case.optimizer.param_groups for parameter in group["params"]}
    if not held & {id(parameter) for parameter in case.trained.values()}:
        seen = "the optimizer holds no parameter of this network that is to be learnt"
        why = "its steps change something else, and the network stays as it is"
        yield error("optimizer-elsewhere", seen, why, "make the optimizer of network.parameters(), after the network")


def initial_loss(case: Case) -> Iterator[Finding]:
    """A loss far above that of a network that knows nothing."""
    if case.number is None or case.reads not in {Reads.LOGITS, Reads.BINARY_LOGITS}:
        return
    uniform = uniform_loss(case)
    if not uniform > 0 or case.number < 2 * uniform or case.number < uniform + 0.5:
        return
    size = float(case.outputs.detach().abs().max())
    seen = f"the loss starts at {case.number:.4g}, uniform outputs cost {uniform:.4g}; outputs are up to {size:.4g}"
    why = "before it learns anything, the network is sure and wrong: the first epochs go into undoing that"
    fix = "normalise the inputs, or initialise the last layer smaller"
    yield warning("initial-loss", seen, why, fix)


def uniform_loss(case: Case) -> float:
    """The loss of these targets at uniform outputs: what a card says, by measuring it, for any loss."""
    with torch.no_grad():
        return float(case.loss(torch.zeros_like(case.outputs), case.target))


def stable_rate(case: Case) -> Iterator[Finding]:
    """A learning rate above 2/λmax, where gradient descent on a quadratic diverges."""
    rate = _descent(case)
    linear = linear_layer(case)
    if rate is None or linear is None or not (is_a(case.loss, nn.MSELoss) or type(case.loss) is MSE):
        return
    lr, factor, formula = rate
    largest = largest_eigenvalue(case, linear)
    if not largest > 0 or lr <= factor / largest:
        return
    seen = (
        f"learning rate {lr:g} for a linear model under the mean squared error, whose Hessian on this batch has "
        f"λmax = {largest:.4g}"
    )
    why = (
        f"above {formula} = {factor / largest:.4g} each step overshoots by more than it corrects, and the loss diverges"
    )
    yield warning("learning-rate-too-high", seen, why, f"set the learning rate below {factor / largest:.4g}")


def _descent(case: Case) -> tuple[float, float, str] | None:
    """Learning rate, bound times λmax, and the bound in words, where plain or heavy-ball descent is what is done."""
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


_SHRINKS = 0.1
"""Of a weight in one step, which leaves it to the decay and not to the loss."""


def still(case: Case) -> Iterator[Finding]:
    """A learning rate of 0, unless a scheduler is about to raise it."""
    groups = _groups(case)
    rates = [float(group.get("initial_lr", group["lr"])) for group in groups if group.get("lr") is not None]
    rates = rates if groups or case.lr is None else [case.lr]
    if rates and not any(rates):
        why = "every step is 0 long: nothing is learnt"
        yield error("learning-rate-zero", "the learning rate is 0", why, "set one above 0, such as 0.1 (SGD) or 1e-3")


def uphill(case: Case) -> Iterator[Finding]:
    """An optimizer that makes the loss larger."""
    if maximised(case) and not upside_down(case):
        why = "each step makes the loss larger, and the network worse"
        fix = "leave maximize out, unless the loss is one that is to be made large"
        yield warning("maximize", "the optimizer has maximize=True", why, fix)


def missed(case: Case) -> Iterator[Finding]:
    """Parameters that want a gradient, and that the optimizer does not hold beside those it does."""
    if case.optimizer is None:
        return
    held = {id(parameter) for group in case.optimizer.param_groups for parameter in group["params"]}
    without = [name for name, parameter in case.trained.items() if id(parameter) not in held]
    if without and len(without) < len(case.trained):
        seen = f"the optimizer misses {len(without)} of {len(case.trained)} parameters, the first of them {without[0]}"
        why = "they get gradients and keep their initial values"
        fix = "make the optimizer of network.parameters(), or set requires_grad_(False) on those that are to stay"
        yield warning("optimizer-misses", seen, why, fix)


def decay(case: Case) -> Iterator[Finding]:
    """A weight decay that leaves nothing of the weights."""
    for group in _groups(case):
        rate, strength = float(group.get("lr") or 0.0), float(group.get("weight_decay") or 0.0)
        if strength >= 1 and rate * strength >= _SHRINKS:
            seen = f"weight_decay {strength:g} at learning rate {rate:g}"
            why = f"each step takes lr · weight_decay = {rate * strength:.3g} of every weight away"
            yield warning("weight-decay-too-high", seen, why, "use a weight decay of 1e-4 to 1e-1")
            return


def unweighted(case: Case) -> Iterator[Finding]:
    """Classes of weight 0, unless a rule gave it to those that never occur, or the class is the one ignored."""
    weight = setting(case.loss, "weight")
    if not takes_classes(case) or not isinstance(weight, Tensor) or setting(case.loss, "rule") is not None:
        return
    if weight.ndim != 1 or len(weight) != case.outputs.shape[1]:
        return
    classes = [k for k in (weight == 0).nonzero().flatten().tolist() if k != ignored(case)]
    if classes:
        named = ", ".join(str(k) for k in classes[:5]) + (" and more" if classes[5:] else "")
        seen = f"the class weight of class {named} is 0"
        fix = "give it a weight above 0, or say ignore_index where its examples are not to count"
        yield warning("class-weight-zero", seen, "its examples teach nothing", fix)


def awake(case: Case) -> Iterator[Finding]:
    """A network in evaluation mode that holds layers which do something else while it is trained."""
    layers = (module for module in case.network.modules() if _differs(module))
    layer = next(layers, None) if case.asleep else None
    if layer is not None:
        seen = f"the network is in evaluation mode and holds {type(layer).__name__}"
        why = "dropout drops nothing and batch norm keeps its stored statistics until train() is called"
        yield warning("evaluation-mode", seen, why, "call network.train() before training")


def _differs(module: nn.Module) -> bool:
    if isinstance(module, _BatchNorm):
        return module.running_mean is not None
    return isinstance(module, _DropoutNd) and module.p > 0


def _groups(case: Case) -> list[dict[str, Any]]:
    """The optimizer's groups that hold parameters of the network."""
    own = {id(parameter) for parameter in case.trained.values()}
    groups = [] if case.optimizer is None else case.optimizer.param_groups
    return [group for group in groups if any(id(parameter) in own for parameter in group["params"])]

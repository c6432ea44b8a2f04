"""Steps that go nowhere, the wrong way, or too far towards 0; and a network that is not in training mode."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from losslab.doctor.case import Case
from losslab.doctor.direction import maximised, upside_down
from losslab.doctor.finding import Finding, error, warning
from losslab.doctor.reads import setting
from losslab.doctor.targets import ignored, takes_classes

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

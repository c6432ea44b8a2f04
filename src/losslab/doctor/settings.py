"""Settings of the loss and the optimizer that do not do what they seem to."""

from collections.abc import Iterator

from torch import Tensor, nn

from losslab.doctor.case import Case
from losslab.doctor.finding import Finding, error, warning
from losslab.doctor.reads import is_a, setting
from losslab.doctor.trial import Reads


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

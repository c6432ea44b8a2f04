"""Checks of the loss: it is a finite number, its gradient reaches the network, and it is lowest at correct outputs."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from losslab.doctor.case import Case
from losslab.doctor.checks_outputs import are_log_probabilities, within
from losslab.doctor.finding import Finding, error, warning
from losslab.losses.adapter.output_kind import OutputKind
from losslab.losses.adapter.probe import finite_value
from losslab.losses.base import Loss

_LOGIT = 5.0
_LARGE_LOGITS = (50.0, 500.0)
_FAR_BELOW_0 = -20.0
_CERTAIN = 0.9
"""Targets with a class probability above this are treated as that class."""


def single_finite_loss(case: Case) -> Iterator[Finding]:
    """A loss that is not a single finite number."""
    value = case.value
    if not isinstance(value, Tensor):
        seen, why = f"the loss returned a {type(value).__name__}", "without a tensor there is no gradient"
        yield error("loss-no-tensor", seen, why, "return the tensor, without .item()")
    elif value.numel() != 1:
        seen = f"the loss returned {value.numel()} numbers, {tuple(value.shape)}"
        fix = 'use reduction="mean", or .mean()'
        yield error("loss-not-one-number", seen, "only a single number has a gradient", fix)
    elif not value.isfinite().all():
        seen = f"the loss is {case.number} though the outputs are finite"
        why = "its gradient makes all weights NaN with the first step"
        yield error("loss-not-finite", seen, why, "look for log(0), 0/0 or a sqrt of a negative number in the loss")


def unreached_parameters(case: Case) -> Iterator[Finding]:
    """Parameters that are frozen, or detached from the loss."""
    if not case.trainable:
        if list(case.network.parameters()):
            fix = "set requires_grad_(True) on the parameters to train"
            yield error("frozen", "no parameter of the network requires a gradient", "nothing would be learnt", fix)
        return
    if case.number is None:
        return
    if not case.value.requires_grad:
        part = "loss" if getattr(case.outputs, "requires_grad", False) else "network"
        seen = f"the {part} cuts the gradient off: its result does not require one"
        fix = f"search the {part} for .detach(), .item(), .data, argmax, numpy or torch.no_grad()"
        yield error("detached", seen, "nothing would be learnt", fix)
        return
    without = [name for name, gradient in case.gradients.items() if gradient is None]
    if len(without) == len(case.gradients):
        seen = "the loss does not depend on any parameter of the network"
        yield error("detached", seen, "nothing would be learnt", "search the network for .detach() or .data")
    elif without:
        seen = f"the loss does not depend on {len(without)} of {len(case.gradients)} parameters: {_listed(without)}"
        fix = "use them in forward, search for .detach(), or set requires_grad_(False) if this is intended"
        yield warning("unused-parameters", seen, "they would keep their initial values", fix)


def nonfinite_gradient(case: Case) -> Iterator[Finding]:
    """A finite loss with a gradient that is not finite."""
    if not _is_differentiable(case) or not case.value.isfinite().all():
        return
    bad = [name for name, gradient in case.gradients.items() if gradient is not None and not gradient.isfinite().all()]
    if bad:
        seen = f"the loss is {case.number:.4g}, but its gradient is NaN or infinite in {_listed(bad)}"
        why = "the first step makes these weights NaN"
        fix = "look for sqrt, norm or a power below 1 at 0, and for a NaN in the branch that torch.where does not take"
        yield error("gradient-not-finite", seen, why, fix)


def zero_gradient(case: Case) -> Iterator[Finding]:
    """Outputs that are the same for all inputs and cannot change, or a gradient of 0."""
    if not _is_differentiable(case) or not isinstance(case.inputs, Tensor) or not case.has_tensors or not case.number:
        return
    gradients = {name: gradient for name, gradient in case.gradients.items() if gradient is not None}
    if any(gradient.any() for name, gradient in gradients.items() if case.trainable[name].ndim > 1):
        return
    outputs = case.eval_outputs[0]
    if len(outputs) > 1 and not _are_equal(case.inputs[: len(outputs)]) and _are_equal(outputs):
        layer = case.layers.last(case.outputs)
        last = f" ({layer})" if layer else ""
        seen = f"all {len(outputs)} outputs are the same, and no weight has a gradient{last}"
        why = "the network ignores its inputs and can only learn a constant"
        fix = "look for units that are all 0 (a large negative bias, weights of 0), or a softmax over a single number"
        yield error("dead-network", seen, why, fix)
    elif not any(gradient.any() for gradient in gradients.values()):
        seen = f"the loss is {case.number:.4g}, and its gradient is 0 in every parameter"
        why = "no step changes the weights"
        fix = "look for rounding, argmax or a clamp between weights and loss, or outputs so large that they saturate"
        yield error("gradient-zero", seen, why, fix)


def upside_down(case: Case) -> Iterator[Finding]:
    """A loss that is lower for wrong outputs than for correct outputs, as with a reversed sign."""
    values = None if case.maximizes else lower_when_wrong(case)
    # A non-negative loss may be intended: distances, ranks, complementary labels.
    if values is None or (values[1] >= 0 and one_hot_target(case) is not None and not isinstance(case.loss, Loss)):
        return
    seen = f"the loss is {values[0]:.4g} where the outputs are correct, and {values[1]:.4g} where they are wrong"
    why = "minimising it favours wrong outputs"
    fix = "change the sign of the loss, or use an optimizer with maximize=True"
    yield error("loss-upside-down", seen, why, fix)


def unbounded(case: Case) -> Iterator[Finding]:
    """A loss that is unbounded below as the logits of the correct classes grow, unless the network bounds them."""
    hot = one_hot_target(case)
    if hot is None or case.maximizes or case.output_kind is OutputKind.LOG_PROBABILITIES or case.torch_class:
        return
    values = [finite_value(case.loss, size * hot, case.target) for size in _LARGE_LOGITS]
    near, far = (None if value is None else float(value) for value in values)
    if near is None or far is None or far > _FAR_BELOW_0 or far > 5 * min(near, 0.0) or _bounds_outputs(case):
        return
    seen = (
        f"the loss is {near:.4g} where the outputs of the correct classes are {_LARGE_LOGITS[0]:g}, "
        f"and {far:.4g} where they are {_LARGE_LOGITS[1]:g}"
    )
    why = "it has no minimum: it decreases forever as outputs grow, like a loss of log-probabilities applied to logits"
    fix = "take torch.log_softmax(outputs, dim=1) first, or use a loss on logits (cross-entropy)"
    yield error("loss-unbounded", seen, why, fix)


def one_hot_target(case: Case) -> Tensor | None:
    """Return the targets as one-hot rows in the shape of the outputs (N, C, ...); None if they are not classes."""
    if not case.has_tensors or case.outputs.ndim < 2 or case.outputs.shape[1] < 2:
        return None
    if case.output_kind in {OutputKind.VALUES, OutputKind.LOG_VALUES}:
        return None
    target, outputs = case.target, case.outputs.detach()
    if target.is_floating_point():
        certain = target.shape == outputs.shape and bool((target >= 0).all() and (target.amax(1) > _CERTAIN).all())
        target = target.argmax(1) if certain and bool(((target.sum(1) - 1).abs() < 1e-2).all()) else target
    if target.is_floating_point() or target.shape != outputs.shape[:1] + outputs.shape[2:]:
        return None
    indices = target.long().clamp(0, outputs.shape[1] - 1).unsqueeze(1)
    return torch.zeros_like(outputs).scatter_(1, indices, 1.0)


def lower_when_wrong(case: Case) -> tuple[float, float] | None:
    """Return the loss of correct and of wrong outputs if the latter is lower, otherwise None."""
    values = [finite_value(case.loss, outputs, case.target) for outputs in _correct_and_wrong(case)]
    if not values or any(value is None for value in values):
        return None
    correct, *wrong = (float(value) for value in values if value is not None)
    margin = 1e-3 * (abs(correct) + 1e-3)
    return (correct, max(wrong)) if max(wrong) < correct - margin else None


def _correct_and_wrong(case: Case) -> list[Tensor]:
    """Return correct outputs, then wrong outputs; for values, one on each side: no convex loss is lower at both."""
    if case.torch_class:
        return []
    hot = one_hot_target(case)
    if hot is not None:
        return [_LOGIT * hot, -_LOGIT * hot]
    target, outputs = case.target, case.outputs.detach()
    if not case.has_tensors or target.shape != outputs.shape or not target.is_floating_point():
        return []
    if isinstance(case.loss, Loss) and not torch.equal(case.loss.to_predictions(outputs), outputs):
        return []  # correct outputs are not the target itself
    distance = 5 * target.std(correction=0).clamp(min=0.1)
    return [(target + side * distance).to(outputs.dtype) for side in (0, 1, -1)]


def _bounds_outputs(case: Case) -> bool:
    """Return whether the network keeps its outputs in a range where such a loss has a minimum."""
    upper_bounds = [partial(within, -torch.inf, high) for high in (0.0, 1.0)]
    return are_log_probabilities(case.outputs.detach()) or any(map(case.holds_for_any_weights, upper_bounds))


def _is_differentiable(case: Case) -> bool:
    return case.number is not None and bool(case.trainable) and case.value.requires_grad


def _are_equal(rows: Tensor) -> bool:
    return bool(rows.isclose(rows[:1], rtol=1e-5, atol=0).all())


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

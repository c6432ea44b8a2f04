"""Checks whether the loss falls towards correct outputs, and stops falling there, on outputs that are set by hand."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from losslab.doctor.case import Case
from losslab.doctor.checks_outputs import are_log_probabilities, within
from losslab.doctor.finding import Finding, error
from losslab.losses.adapter.output_kind import OutputKind
from losslab.losses.adapter.probe import finite_value
from losslab.losses.base import Loss

_LOGIT = 5.0
_LARGE_LOGITS = (50.0, 500.0)
_FAR_BELOW_0 = -20.0
_CERTAIN = 0.9
"""A probability from which on binary losses are lowest where the output is large."""


def upside_down(case: Case) -> Iterator[Finding]:
    """A loss that is lower for wrong outputs than for correct ones, as with its sign reversed."""
    values = None if case.maximizes else lower_when_wrong(case)
    # What is not negative may be intended: outputs that are distances, ranks, or labels of what an example is not.
    if values is None or (values[1] >= 0 and one_hot_target(case) is not None and not isinstance(case.loss, Loss)):
        return
    seen = f"the loss is {values[0]:.4g} where the outputs are correct, and {values[1]:.4g} where they are wrong"
    why = "training lowers it, and would make the network wrong"
    fix = "change the sign of the loss (an optimizer with maximize=True climbs instead)"
    yield error("loss-upside-down", seen, why, fix)


def unbounded(case: Case) -> Iterator[Finding]:
    """A loss that falls without end as the logits of the correct classes grow, unless the network bounds them."""
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
    why = "it has no minimum: it falls for ever as outputs grow, like a loss of log-probabilities that is given logits"
    fix = "take torch.log_softmax(outputs, dim=1) first, or use a loss on logits (cross-entropy)"
    yield error("loss-unbounded", seen, why, fix)


def one_hot_target(case: Case) -> Tensor | None:
    """The targets as one-hot rows in the shape of the outputs (N, C, ...); None if they are not classes."""
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
    """The loss where the outputs are correct and where they are wrong, if the second is lower."""
    values = [finite_value(case.loss, outputs, case.target) for outputs in _correct_and_wrong(case)]
    if not values or any(value is None for value in values):
        return None
    correct, *wrong = (float(value) for value in values if value is not None)
    margin = 1e-3 * (abs(correct) + 1e-3)
    return (correct, max(wrong)) if max(wrong) < correct - margin else None


def _correct_and_wrong(case: Case) -> list[Tensor]:
    """Correct outputs, then wrong ones: for values one on either side, where no convex loss is lower at both."""
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
    """Whether the network keeps its outputs in a range where such a loss has a minimum."""
    upper_bounds = [partial(within, -torch.inf, high) for high in (0.0, 1.0)]
    return are_log_probabilities(case.outputs.detach()) or any(map(case.holds_for_any_weights, upper_bounds))

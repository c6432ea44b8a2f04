"""Whether the loss falls towards the right answers, and stops falling there: asked of outputs that are set by hand."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from losslab.doctor.case import Case
from losslab.doctor.checks_outputs import are_log_probabilities, within
from losslab.doctor.finding import Finding, error
from losslab.doctor.probe import Reads, is_known, tried
from losslab.losses.base import Loss

_SURE = 5.0
_FAR = (50.0, 500.0)
_BOTTOM = -20.0
_CERTAIN = 0.9
"""Of a probability: with less of it, yes-and-no losses are least where no output is large."""


def downhill(case: Case) -> Iterator[Finding]:
    """A loss that is less for wrong answers than for right ones, as one with its sign turned round is."""
    pair = None if maximised(case) else _lower_when_wrong(case)
    # What is not negative may be meant: outputs that are distances, ranks or labels that name a class it is not.
    if pair is None or (pair[1] >= 0 and spelt(case) is not None and not isinstance(case.loss, Loss)):
        return
    right, low = pair
    seen = f"the loss is {right:.4g} where the outputs are right, and {low:.4g} where they are wrong"
    why = "training makes it small, and would make the network wrong"
    fix = "change the sign of the loss (an optimizer with maximize=True climbs instead)"
    yield error("loss-upside-down", seen, why, fix)


def bounded(case: Case) -> Iterator[Finding]:
    """A loss that falls without end as the logits of the right classes grow, which nothing in the network stops."""
    hot = spelt(case)
    if hot is None or maximised(case) or case.reads is Reads.LOG_PROBABILITIES or _of_torch(case):
        return
    values = [tried(case.loss, size * hot, case.target) for size in _FAR]
    near, far = (None if value is None else float(value) for value in values)
    if near is None or far is None or far > _BOTTOM or far > 5 * min(near, 0.0) or _bounded(case):
        return
    seen = f"the loss is {near:.4g} where right outputs are {_FAR[0]:g}, and {far:.4g} where they are {_FAR[1]:g}"
    why = "it has no minimum: it falls for ever as outputs grow, as one of log-probabilities does that is given logits"
    fix = "take torch.log_softmax(outputs, dim=1) first, or use a loss on logits (cross-entropy)"
    yield error("loss-unbounded", seen, why, fix)


def maximised(case: Case) -> bool:
    """Whether the optimizer climbs."""
    return case.optimizer is not None and any(group.get("maximize") for group in case.optimizer.param_groups)


def upside_down(case: Case) -> bool:
    """Whether the loss is less for wrong answers than for right ones."""
    return _lower_when_wrong(case) is not None


def spelt(case: Case) -> Tensor | None:
    """The targets as ones among zeros, in the outputs' own shape (N, C, ...); None where they are not classes."""
    if not case.tensors or case.outputs.ndim < 2 or case.outputs.shape[1] < 2 or case.reads is Reads.VALUES:
        return None
    target, outputs = case.target, case.outputs.detach()
    if target.is_floating_point():
        sure = target.shape == outputs.shape and bool((target >= 0).all() and (target.amax(1) > _CERTAIN).all())
        target = target.argmax(1) if sure and bool(((target.sum(1) - 1).abs() < 1e-2).all()) else target
    if target.is_floating_point() or target.shape != outputs.shape[:1] + outputs.shape[2:]:
        return None
    indices = target.long().clamp(0, outputs.shape[1] - 1).unsqueeze(1)
    return torch.zeros_like(outputs).scatter_(1, indices, 1.0)


def _lower_when_wrong(case: Case) -> tuple[float, float] | None:
    """The loss where the outputs are right and where they are wrong, if that is less."""
    probes = _right_and_wrong(case)
    values = [tried(case.loss, probe, case.target) for probe in probes]
    if not probes or any(value is None for value in values):
        return None
    right, *wrong = (float(value) for value in values if value is not None)
    margin = 1e-3 * (abs(right) + 1e-3)
    return (right, max(wrong)) if max(wrong) < right - margin else None


def _right_and_wrong(case: Case) -> list[Tensor]:
    """Outputs that are right, then some that are wrong; values on either side, where no convex loss is less."""
    if _of_torch(case):
        return []
    hot = spelt(case)
    if hot is not None:
        return [_SURE * hot, -_SURE * hot]
    target = case.target
    if not case.tensors or target.shape != case.outputs.shape or not target.is_floating_point() or _transforms(case):
        return []
    away = 5 * target.std(correction=0).clamp(min=0.1)
    return [(target + way * away).to(case.outputs.dtype) for way in (0, 1, -1)]


def _transforms(case: Case) -> bool:
    """Whether a right output is known to be something else than the target itself."""
    probe = case.outputs.detach()
    return isinstance(case.loss, Loss) and not torch.equal(case.loss.to_predictions(probe), probe)


def _of_torch(case: Case) -> bool:
    return is_known(case.loss) and not isinstance(case.loss, Loss)


def _bounded(case: Case) -> bool:
    """Whether the network itself keeps its outputs where such a loss has a minimum."""
    below = [partial(within, -torch.inf, high) for high in (0.0, 1.0)]
    return are_log_probabilities(case.outputs.detach()) or any(map(case.whatever_the_weights, below))

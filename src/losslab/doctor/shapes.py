"""Outputs and targets that do not lie over each other."""

from collections.abc import Iterator

import torch
from torch import Tensor

from losslab.doctor.case import Case
from losslab.doctor.finding import Finding, error
from losslab.doctor.reads import is_known
from losslab.doctor.trial import Reads
from losslab.losses.base import Loss

_BY_ELEMENT = {Reads.VALUES, Reads.BINARY_LOGITS, Reads.PROBABILITIES, Reads.SIGNED}


def aligned(case: Case) -> Iterator[Finding]:
    """Predictions (N, 1) against targets (N,) and their like, which broadcast to (N, N)."""
    if not case.tensors or case.target.shape == case.outputs.shape:
        return
    if case.reads is Reads.BINARY_LOGITS and not case.target.is_floating_point() and case.target.ndim == 1:
        return  # class indices for a loss that spells them out
    if not (_by_element(case) or _broadcasts(case)):
        return
    outputs, target = tuple(case.outputs.shape), tuple(case.target.shape)
    seen = f"the outputs are {outputs} and the targets {target}"
    try:
        common = tuple(torch.broadcast_shapes(outputs, target))
    except RuntimeError:
        why = "the loss compares each output with a target of its own, and these do not match"
        fix = f"give the network {target[1] if len(target) > 1 else 1} output(s) an example, or reshape the target"
    else:
        why = f"they broadcast to {common}: every output is compared with every target, which trains towards their mean"
        fix = "reshape the target: target.view_as(outputs)" if _one_each(case) else f"make the target {outputs}"
    yield error("shapes-broadcast", seen, why, fix)


def _by_element(case: Case) -> bool:
    per_target = case.loss.outputs_per_target if isinstance(case.loss, Loss) else 1
    return is_known(case.loss) and case.reads in _BY_ELEMENT and per_target == 1


def _one_each(case: Case) -> bool:
    numbers: bool = case.outputs.numel() == case.target.numel()
    return numbers


def _broadcasts(case: Case) -> bool:
    """Whether an unknown loss does not care which target belongs to which output."""
    target = case.target
    if is_known(case.loss) or not _one_each(case) or not target.is_floating_point():
        return False
    random = torch.Generator().manual_seed(0)
    outputs = torch.randn(case.outputs.shape, generator=random).to(case.outputs) * target.std() + target.mean()
    order = torch.randperm(len(target), generator=random)
    with torch.no_grad():
        try:
            given, shuffled = (case.loss(outputs, t) for t in (target, target[order]))
        except Exception:  # noqa: BLE001 -- a stranger's code, which is only asked what it does
            return False
    changed = not torch.equal(target, target[order])
    return changed and isinstance(given, Tensor) and torch.allclose(given.mean(), shuffled.mean(), rtol=1e-5)

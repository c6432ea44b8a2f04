"""Outputs and targets that do not lie over each other."""

from collections.abc import Iterator

import torch
from torch import Tensor

from losslab.doctor.case import Case
from losslab.doctor.finding import Finding, error
from losslab.doctor.reads import Reads
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
    return case.reads in _BY_ELEMENT and per_target == 1


def _one_each(case: Case) -> bool:
    numbers: bool = case.outputs.numel() == case.target.numel()
    return numbers


def _broadcasts(case: Case) -> bool:
    """Whether an unknown loss has another value when the same targets are given the outputs' shape."""
    if case.reads is not Reads.UNKNOWN or not _one_each(case) or not case.target.is_floating_point():
        return False
    outputs = torch.arange(case.outputs.numel(), dtype=torch.float32).view(case.outputs.shape).to(case.outputs) / 7
    with torch.no_grad():
        try:
            given, reshaped = (case.loss(outputs, target) for target in (case.target, case.target.view_as(outputs)))
        except Exception:  # noqa: BLE001 -- it may well take only the shape that it was given
            return False
    return isinstance(given, Tensor) and not torch.allclose(given.mean(), reshaped.mean(), rtol=1e-3)

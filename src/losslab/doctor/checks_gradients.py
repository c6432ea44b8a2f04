"""Whether the network can learn: does the loss depend on its weights, and do its outputs depend on the inputs?"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from losslab.doctor.case import Case
from losslab.doctor.finding import Finding, error, warning


def single(case: Case) -> Iterator[Finding]:
    """A loss that is no single finite number."""
    if not isinstance(case.value, Tensor):
        seen = f"the loss returned a {type(case.value).__name__}"
        yield error(
            "loss-no-tensor", seen, "without a tensor there is no gradient", "return the tensor, without .item()"
        )
    elif case.value.numel() != 1:
        seen = f"the loss returned {case.value.numel()} numbers, {tuple(case.value.shape)}"
        yield error(
            "loss-not-one-number", seen, "a gradient is taken of one number", 'use reduction="mean", or .mean()'
        )
    elif not case.value.isfinite().all():
        seen = f"the loss is {float(case.value.detach())} though the outputs are finite"
        why = "its gradient makes all weights NaN with the first step"
        yield error("loss-not-finite", seen, why, "look for log(0), 0/0 or a sqrt of a negative number in the loss")


def flowing(case: Case) -> Iterator[Finding]:
    """Parameters that are frozen or cut off."""
    if not case.trained:
        if any(True for _ in case.network.parameters()):
            fix = "set requires_grad_(True) on what is to be learnt"
            yield error("frozen", "no parameter of the network requires a gradient", "nothing would be learnt", fix)
        return
    if not isinstance(case.value, Tensor) or case.value.numel() != 1:
        return
    if not case.value.requires_grad:
        where = "loss" if getattr(case.outputs, "requires_grad", False) else "network"
        seen = f"the {where} cuts the gradient off: its result does not require one"
        fix = "look there for .detach(), .item(), .data, argmax, numpy or torch.no_grad()"
        yield error("detached", seen, "nothing would be learnt", fix)
        return
    without = [name for name, gradient in case.gradients.items() if gradient is None]
    if len(without) == len(case.gradients):
        seen = "no parameter of the network takes part in the loss"
        yield error("detached", seen, "nothing would be learnt", "look for .detach() or .data in the network")
    elif without:
        seen = f"{len(without)} of {len(case.gradients)} parameters take no part in the loss: {_named(without)}"
        fix = "use them in forward, look for a .detach(), or set requires_grad_(False) if it is meant"
        yield warning("unused-parameters", seen, "they would keep their initial values", fix)


def finite(case: Case) -> Iterator[Finding]:
    """A finite loss with a gradient that is not."""
    if not _differentiable(case):
        return
    bad = [name for name, gradient in case.gradients.items() if gradient is not None and not gradient.isfinite().all()]
    if bad and case.value.isfinite().all():
        seen = f"the loss is {float(case.value.detach()):.4g}, but its gradient is NaN or infinite in {_named(bad)}"
        why = "the first step makes these weights NaN"
        fix = "look for sqrt, norm or a power below 1 at 0, and for a NaN in the branch that torch.where does not take"
        yield error("gradient-not-finite", seen, why, fix)


def alive(case: Case) -> Iterator[Finding]:
    """Outputs that are the same for all inputs and stay so."""
    if not _differentiable(case) or not isinstance(case.inputs, Tensor) or not case.tensors:
        return
    known = {name: gradient for name, gradient in case.gradients.items() if gradient is not None}
    still = not any(gradient.any() for name, gradient in known.items() if case.trained[name].ndim > 1)
    if not still or not float(case.value.detach()):
        return
    outputs = case.evaluated[0]
    if len(outputs) > 1 and not _alike(case.inputs[: len(outputs)]) and _alike(outputs):
        layer = case.layers.last(case.outputs)
        seen = f"all {len(outputs)} outputs are the same, and no weight has a gradient" + (
            f" ({layer})" if layer else ""
        )
        why = "the network does not see its inputs and can only learn a constant"
        fix = "look for units that are all 0 (a large negative bias, weights of 0), or a softmax over a single number"
        yield error("dead-network", seen, why, fix)
    elif not any(gradient.any() for gradient in known.values()):
        seen = f"the loss is {float(case.value.detach()):.4g}, and its gradient is 0 in every parameter"
        why = "the first step changes nothing, and so does every other"
        fix = "look for rounding, argmax or a clamp between weights and loss, or outputs so large that they saturate"
        yield error("gradient-zero", seen, why, fix)


def separate(case: Case) -> Iterator[Finding]:
    """Outputs of an example that depend on which others are in the batch, in evaluation mode too."""
    if not isinstance(case.inputs, Tensor) or not case.tensors or len(case.inputs) < 4 or _by_batch(case.network):
        return
    together, alone = case.evaluated
    if not isinstance(alone, Tensor) or together.shape[1:] != alone.shape[1:] or len(together) != len(case.inputs[:16]):
        return
    difference = (together[: len(alone)] - alone).abs().max()
    if difference > 1e-2 * together.std() + 1e-6:
        seen = f"outputs change by up to {difference:.4g} when other examples leave the batch, in evaluation mode"
        why = "an example's prediction must not depend on what else is in its batch"
        fix = "look for a view, reshape, mean or softmax along dimension 0 of the batch"
        yield warning("examples-mixed", seen, why, fix)


def _by_batch(network: nn.Module) -> bool:
    """Whether a layer takes statistics of the batch even when it evaluates."""
    return any(getattr(module, "track_running_stats", None) is False for module in network.modules())


def _differentiable(case: Case) -> bool:
    one = isinstance(case.value, Tensor) and case.value.numel() == 1
    return one and bool(case.trained) and case.value.requires_grad


def _alike(rows: Tensor) -> bool:
    return bool(torch.isclose(rows, rows[:1], rtol=1e-5, atol=0).all())


def _named(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

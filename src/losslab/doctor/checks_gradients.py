"""Checks whether the network can learn: the loss depends on its weights, and its outputs depend on its inputs."""

from collections.abc import Iterator

from torch import Tensor

from losslab.doctor.case import Case
from losslab.doctor.finding import Finding, error, warning


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
        fix = "look there for .detach(), .item(), .data, argmax, numpy or torch.no_grad()"
        yield error("detached", seen, "nothing would be learnt", fix)
        return
    without = [name for name, gradient in case.gradients.items() if gradient is None]
    if len(without) == len(case.gradients):
        seen = "the loss does not depend on any parameter of the network"
        yield error("detached", seen, "nothing would be learnt", "look for .detach() or .data in the network")
    elif without:
        seen = f"the loss does not depend on {len(without)} of {len(case.gradients)} parameters: {_listed(without)}"
        fix = "use them in forward, look for a .detach(), or set requires_grad_(False) if this is intended"
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
    """Outputs that are the same for all inputs and stay so, or a gradient of 0."""
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
        why = "the first step changes nothing, and neither does any other"
        fix = "look for rounding, argmax or a clamp between weights and loss, or outputs so large that they saturate"
        yield error("gradient-zero", seen, why, fix)


def mixed_examples(case: Case) -> Iterator[Finding]:
    """Outputs that depend on the other examples of the batch in evaluation mode too."""
    if not isinstance(case.inputs, Tensor) or len(case.inputs) < 4:
        return
    if any(getattr(module, "track_running_stats", None) is False for module in case.network.modules()):
        return  # such a layer uses the statistics of the batch in evaluation mode too
    together, half = case.eval_outputs
    if not isinstance(half, Tensor) or together.shape[1:] != half.shape[1:] or len(together) != len(case.inputs[:16]):
        return
    difference = (together[: len(half)] - half).abs().max()
    if difference > 1e-2 * together.std() + 1e-6:
        seen = f"outputs change by up to {difference:.4g} when other examples leave the batch, in evaluation mode"
        why = "the prediction for an example must not depend on the rest of its batch"
        fix = "look for a view, reshape, mean or softmax along dimension 0 of the batch"
        yield warning("examples-mixed", seen, why, fix)


def _is_differentiable(case: Case) -> bool:
    return case.number is not None and bool(case.trainable) and case.value.requires_grad


def _are_equal(rows: Tensor) -> bool:
    return bool(rows.isclose(rows[:1], rtol=1e-5, atol=0).all())


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

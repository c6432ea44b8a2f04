"""Checks whether the loss is a finite number, is lowest at correct outputs, and has a gradient for all parameters."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from losslab.doctor.checks_outputs import are_log_probabilities, within
from losslab.doctor.finding import Finding, error, warning
from losslab.doctor.training_setup import Setup
from losslab.losses.adapter.output_kind import OutputKind
from losslab.losses.adapter.probe import finite_value
from losslab.losses.base import Loss

_LOGIT = 5.0
"""Size of the logits in the outputs of `_correct_and_wrong`."""
_LARGE_LOGITS = (50.0, 500.0)
"""Logits of the correct classes between which a loss without a lower bound decreases far below 0."""
_FAR_BELOW_0 = -20.0


def invalid_loss(setup: Setup) -> Iterator[Finding]:
    """Find a loss that is not a single finite number."""
    value = setup.value
    if not isinstance(value, Tensor):
        problem, why = f"the loss returned a {type(value).__name__}", "only a tensor has a gradient"
        yield error("loss-no-tensor", problem, why, "return a tensor, without .item()")
    elif value.numel() != 1:
        problem = f"the loss returned {value.numel()} numbers, {tuple(value.shape)}"
        fix = 'use reduction="mean", or .mean()'
        yield error("loss-not-one-number", problem, "only a single number has a gradient", fix)
    elif not value.isfinite().all():
        problem = f"the loss is {setup.number}, though the outputs are finite"
        why = "with the first step, its gradient makes all weights NaN"
        yield error("loss-not-finite", problem, why, _fix_of_not_finite(setup))


def _fix_of_not_finite(setup: Setup) -> str:
    """Return how to make the loss finite, after trials with outputs and targets above 0."""
    target, outputs = setup.target, setup.outputs
    if not setup.has_tensors or setup.one_hot_target is not None:
        return "look for log(0), 0/0 or a sqrt of a negative number in the loss"
    outputs = outputs.detach()
    above_0 = outputs.abs().clamp(min=0.1), target.abs().clamp(min=0.1) if target.is_floating_point() else target
    if target.is_floating_point() and finite_value(setup.loss, outputs, above_0[1]) is not None:
        low = float(target.min())
        return f"the targets go down to {low:.4g}, and the loss is finite if they are above 0: give it such targets"
    if finite_value(setup.loss, above_0[0], target) is not None:
        low = float(outputs.min())
        return f"the outputs go down to {low:.4g}, and the loss is finite if they are above 0: end in Softplus or exp"
    if finite_value(setup.loss, *above_0) is not None:
        return "the loss is finite only if outputs and targets are above 0: end in Softplus or exp, use such targets"
    return "look for log(0), 0/0 or a sqrt of a negative number in the loss"


def unreached_parameters(setup: Setup) -> Iterator[Finding]:
    """Find a network in which all parameters are frozen, and parameters on which the loss does not depend."""
    if not setup.trainable:
        if list(setup.network.parameters()):
            fix = "set requires_grad_(True) on the parameters to train"
            yield error("frozen", "no parameter of the network requires a gradient", "nothing would be learnt", fix)
        return
    if setup.number is None:
        return
    if not _depends_on_outputs(setup):
        part = "loss" if getattr(setup.outputs, "requires_grad", False) else "network"
        inputs = "outputs of the network" if part == "loss" else "parameters of the network"
        problem = f"the {part} interrupts the gradient: its result does not depend on the {inputs} differentiably"
        fix = f"search the {part} for .detach(), .item(), .data, argmax, numpy, torch.tensor(...) or torch.no_grad()"
        yield error("detached", problem, "nothing would be learnt", fix)
        return
    without = [name for name, gradient in setup.gradients.items() if gradient is None]
    if len(without) == len(setup.gradients):
        problem = "the loss does not depend on any parameter of the network"
        yield error("detached", problem, "nothing would be learnt", "search the network for .detach() or .data")
    elif without:
        problem = f"the loss does not depend on {len(without)} of {len(setup.gradients)} parameters: {_listed(without)}"
        fix = "use them in forward, search for .detach(), or set requires_grad_(False) if this is intended"
        yield warning("unused-parameters", problem, "they would keep their initial values", fix)


def unregistered_parameters(setup: Setup) -> Iterator[Finding]:
    """Find tensors that require a gradient and enter the outputs, but are no parameters of the network."""
    if not setup.trainable:
        return  # the network is a function, whose parameters are not known
    groups = setup.optimizer.param_groups if setup.optimizer is not None else []
    known = {id(each) for each in (*setup.network.parameters(), *(p for group in groups for p in group["params"]))}
    found, functions, seen = [], [setup.outputs.grad_fn], set()
    while functions:
        function = functions.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        leaf = getattr(function, "variable", None)  # only nodes that accumulate a gradient have it
        if isinstance(leaf, Tensor) and id(leaf) not in known:
            found.append(str(tuple(leaf.shape)))
        functions += [each for each, _ in function.next_functions]
    if found:
        problem = f"{len(found)} tensors with a gradient are no parameters of the network, of shape {_listed(found)}"
        why = "the optimizer and the checkpoints lack them: they keep their initial values, and are lost afterwards"
        fix = "keep layers in nn.ModuleList instead of a list, and tensors in nn.Parameter, created in __init__"
        yield warning("unregistered-parameters", problem, why, fix)


def nonfinite_gradient(setup: Setup) -> Iterator[Finding]:
    """Find a gradient that is not finite, although the loss is finite."""
    if not _is_differentiable(setup) or not setup.value.isfinite().all():
        return
    bad = [name for name, gradient in setup.gradients.items() if gradient is not None and not gradient.isfinite().all()]
    if bad:
        problem = f"the loss is {setup.number:.4g}, but its gradient is NaN or infinite in {_listed(bad)}"
        why = "the first step makes these weights NaN"
        fix = "look for sqrt, norm or a power below 1 at 0, and for a NaN in the branch that torch.where does not take"
        yield error("gradient-not-finite", problem, why, fix)


def zero_gradient(setup: Setup) -> Iterator[Finding]:
    """Find outputs that ignore the inputs while all weights have gradient 0, or a gradient of 0 in all parameters."""
    has_loss = isinstance(setup.inputs, Tensor) and setup.has_tensors and bool(setup.number)
    if not has_loss or not _is_differentiable(setup):
        return
    gradients = {name: gradient for name, gradient in setup.gradients.items() if gradient is not None}
    if not gradients or any(grad.any() for name, grad in gradients.items() if setup.trainable[name].ndim > 1):
        return
    outputs = setup.eval_outputs[0]
    if len(outputs) > 1 and not _are_equal(setup.inputs[: len(outputs)]) and _are_equal(outputs):
        problem = f"the outputs of all {len(outputs)} examples are the same, and the gradient of all weights is 0"
        problem += setup.ending
        why = "the network ignores its inputs and can only learn a constant"
        fix = "look for units that are all 0 (a large negative bias, weights of 0), or a softmax over a single number"
        yield error("dead-network", problem, why, fix)
    elif not any(gradient.any() for gradient in gradients.values()):
        problem = f"the loss is {setup.number:.4g}, and its gradient is 0 in every parameter"
        why = "the steps do not change the weights"
        fix = "look for rounding, argmax or a clamp between weights and loss, or outputs so large that they saturate"
        yield error("gradient-zero", problem, why, fix)


def inverted_loss(setup: Setup) -> Iterator[Finding]:
    """Find a loss that is lower for wrong outputs than for correct outputs, as with the wrong sign."""
    values = None if setup.maximizes else lower_when_wrong(setup)
    # A loss of classes that is ≥ 0 may be lower for wrong outputs on purpose, as for distances or complementary labels.
    if values is None or (values[1] >= 0 and setup.one_hot_target is not None and not isinstance(setup.loss, Loss)):
        return
    problem = f"the loss is {values[0]:.4g} where the outputs are correct, and {values[1]:.4g} where they are wrong"
    why = "minimising the loss makes the outputs wrong"
    fix = "change the sign of the loss or the order of its arguments, or use an optimizer with maximize=True"
    yield error("loss-upside-down", problem, why, fix)


def unbounded_loss(setup: Setup) -> Iterator[Finding]:
    """Find a loss without a lower bound as the logits of the correct classes grow, unless the network bounds them."""
    hot = setup.one_hot_target
    if hot is None or setup.maximizes or setup.output_kind is OutputKind.LOG_PROBABILITIES or setup.torch_class:
        return
    values = [finite_value(setup.loss, size * hot, setup.target) for size in _LARGE_LOGITS]
    near, far = (None if value is None else float(value) for value in values)
    if near is None or far is None or far > _FAR_BELOW_0 or far > 5 * min(near, 0.0) or _bounds_outputs(setup):
        return
    problem = (
        f"the loss is {near:.4g} where the outputs of the correct classes are {_LARGE_LOGITS[0]:g}, "
        f"and {far:.4g} where they are {_LARGE_LOGITS[1]:g}"
    )
    why = "it decreases without limit as the outputs grow, like a loss of log-probabilities that is applied to logits"
    fix = "apply torch.log_softmax(outputs, dim=1) first, or use a loss on logits (cross-entropy)"
    yield error("loss-unbounded", problem, why, fix)


def lower_when_wrong(setup: Setup) -> tuple[float, float] | None:
    """Return the losses of correct and of wrong outputs if those of wrong outputs are lower; otherwise None."""
    values = [finite_value(setup.loss, outputs, setup.target) for outputs in _correct_and_wrong(setup)]
    if not values or any(value is None for value in values):
        return None
    correct, *wrong = (float(value) for value in values if value is not None)
    margin = 1e-3 * (abs(correct) + 1e-3)
    return (correct, max(wrong)) if max(wrong) < correct - margin else None


def _correct_and_wrong(setup: Setup) -> list[Tensor]:
    """Return correct outputs, then one or two wrong outputs; an empty list if the correct outputs are not known.

    For values, the wrong outputs are above and below the target, because no convex loss is lower at both.
    """
    if setup.torch_class:
        return []
    hot = setup.one_hot_target
    if hot is not None:
        return [_LOGIT * hot, -_LOGIT * hot]
    target, outputs = setup.target, setup.outputs.detach()
    if not setup.has_tensors or target.shape != outputs.shape or not target.is_floating_point():
        return []
    if isinstance(setup.loss, Loss) and not torch.equal(setup.loss.to_predictions(outputs), outputs):
        return []  # the correct outputs are not equal to the target
    distance = 5 * target.std(correction=0).clamp(min=0.1)
    return [(target + side * distance).to(outputs.dtype) for side in (0, 1, -1)]


def _bounds_outputs(setup: Setup) -> bool:
    """Return whether the network bounds its outputs from above, so that even an unbounded loss has a minimum."""
    upper_bounds = [partial(within, -torch.inf, high) for high in (0.0, 1.0)]
    return are_log_probabilities(setup.outputs.detach()) or any(map(setup.holds_for_any_weights, upper_bounds))


def _depends_on_outputs(setup: Setup) -> bool:
    """Return whether the loss has a gradient with respect to the outputs, or has one at all if these are no tensor."""
    outputs = setup.outputs
    if not setup.value.requires_grad or not getattr(outputs, "requires_grad", True):
        return False
    if not isinstance(outputs, Tensor):
        return True
    return torch.autograd.grad(setup.value, outputs, allow_unused=True, retain_graph=True)[0] is not None


def _is_differentiable(setup: Setup) -> bool:
    return setup.number is not None and bool(setup.trainable) and setup.value.requires_grad


def _are_equal(rows: Tensor) -> bool:
    return bool(rows.isclose(rows[:1], rtol=1e-5, atol=0).all())


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

"""Checks whether the outputs are of the kind that the loss takes, or an activation is missing or superfluous."""

from collections.abc import Iterator
from functools import partial
from math import inf

import torch
from torch import Tensor, nn

from losslab.doctor.finding import Finding, error, warning
from losslab.doctor.training_setup import Setup
from losslab.losses.adapter.output_kind import OutputKind
from losslab.losses.adapter.probe import finite_value
from losslab.losses.base import Loss

_TOLERANCE = 2e-2
"""Tolerance for the sum of probabilities, which allows for half precision."""


def squashed_logits(setup: Setup) -> Iterator[Finding]:
    """Find a softmax, log-softmax, sigmoid or rectifier at the end of the network, for a loss that takes logits."""
    margin = setup.output_kind is OutputKind.SCORES or setup.torch_class is nn.SoftMarginLoss
    if not margin and setup.output_kind not in {OutputKind.LOGITS, OutputKind.BINARY_LOGITS}:
        return
    rows = setup.outputs.ndim > 1 and setup.outputs.shape[1] > 1
    if rows and setup.holds_for_any_weights(are_probabilities):
        yield _activation_in_network(setup, "softmax", "≥ 0, and those of each example sum to 1")
    elif rows and setup.holds_for_any_weights(are_log_probabilities):
        yield _log_softmax_in_network(setup)
    elif setup.holds_for_any_weights(partial(within, 0.0, 1.0)):
        yield _activation_in_network(setup, "sigmoid", "between 0 and 1")
    elif not margin and setup.holds_for_any_weights(partial(within, 0.0, inf)):
        yield _rectified_logits(setup)


def _activation_in_network(setup: Setup, activation: str, range_of_outputs: str) -> Finding:
    best, is_certain = setup.one_hot_target, bool(((setup.target == 0) | (setup.target == 1)).all())
    if best is None and setup.target.shape == setup.outputs.shape and is_certain:
        best = setup.target  # soft targets are not the outputs with the lowest loss
    lowest = None if best is None else finite_value(setup.loss, best.to(setup.outputs.dtype), setup.target)
    limit = "" if lowest is None else f", so that on this batch it cannot fall below {float(lowest):.4f}"
    own = "sigmoid" if setup.output_kind is OutputKind.BINARY_LOGITS else "softmax"
    why = f"the loss takes logits and applies {own} itself{limit}"
    if setup.output_kind not in {OutputKind.LOGITS, OutputKind.BINARY_LOGITS}:
        why = f"the loss takes unbounded scores, and the {activation} limits them"
    return error(
        f"{activation}-in-network",
        f"the outputs are {range_of_outputs}, whatever the weights are{setup.ending}",
        f"{why}; gradients of confident outputs vanish",
        f"remove the {activation} from the network, and apply it only to get probabilities",
    )


def _log_softmax_in_network(setup: Setup) -> Finding:
    problem = f"the outputs are log-probabilities, whatever the weights are{setup.ending}"
    fix = "remove the log-softmax from the network"
    if setup.output_kind is OutputKind.LOGITS:
        why = "the loss applies log-softmax itself; a second one changes nothing, but the outputs are not logits"
        return warning("log-softmax-in-network", problem, why, f"{fix}, or use NLLLoss, which takes log-probabilities")
    return error("log-softmax-in-network", problem, "the loss takes unbounded outputs, but none can be above 0", fix)


def _rectified_logits(setup: Setup) -> Finding:
    problem = f"no output is below 0, whatever the weights are{setup.ending}"
    fix = "remove the rectifier after the last layer"
    if setup.output_kind is OutputKind.BINARY_LOGITS:
        why = "a logit ≥ 0 is a probability ≥ 0.5: the network can never predict class 0"
        return error("rectified-logits", problem, why, fix)
    why = "the logits of wrong classes cannot fall below 0, where their gradient becomes 0"
    return warning("rectified-logits", problem, why, fix)


def missing_activation(setup: Setup) -> Iterator[Finding]:
    """Find outputs that are not log-probabilities or probabilities, for a loss that takes these."""
    outputs, kind = setup.outputs.detach(), setup.output_kind
    if not outputs.isfinite().all():
        return
    if kind is OutputKind.LOG_PROBABILITIES and outputs.ndim > 1 and not are_log_probabilities(outputs):
        if are_probabilities(outputs):
            problem, fix = "the outputs are probabilities", "end the network in log_softmax instead of softmax"
        else:
            sums = outputs.double().exp().sum(1)
            problem = f"exp(outputs) sums to {sums.min():.4g} to {sums.max():.4g}: they are not log-probabilities"
            fix = "apply torch.log_softmax(outputs, dim=1) first, or use a loss on logits (cross-entropy)"
        why = "the loss reads the outputs as logarithms of probabilities: for other outputs it has no minimum"
        yield error("no-log-probabilities", problem, why, fix)
    elif kind is OutputKind.PROBABILITIES and not setup.holds_for_any_weights(partial(within, 0.0, 1.0)):
        problem = f"outputs from {outputs.min():.4g} to {outputs.max():.4g}, not restricted to 0 to 1"
        why = "the loss takes the logarithm of probabilities, which is not defined below 0"
        fix = "use the same loss on logits (BCEWithLogitsLoss), or end the network in a sigmoid"
        yield error("no-probabilities", problem, why, fix)


def unreachable_targets(setup: Setup) -> Iterator[Finding]:
    """Find targets outside of the range of the last activation of the network (ReLU, sigmoid, tanh)."""
    target = setup.all_targets
    if setup.output_kind is not OutputKind.VALUES or target.shape[1:] != setup.outputs.shape[1:]:
        return
    to_predictions = setup.loss.to_predictions if isinstance(setup.loss, Loss) else Tensor.detach
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (0.0, inf)):
        outside = (target < low) | (target > high)
        if outside.any() and setup.holds_for_any_weights(lambda z: within(low, high, to_predictions(z))):  # noqa: B023
            problem = f"{outside.sum()} of {target.numel()} targets are outside of the output range {low:g} to {high:g}"
            if setup.holds_for_any_weights(partial(within, low, high)):
                problem += setup.ending or ", whatever the weights are"
                fix = "end the network in a linear layer if the loss accepts any outputs, or rescale the targets"
            else:
                problem += ", to which the loss converts all outputs of the network"
                fix = "use targets in this range (counts or amounts, not standardised), or a loss for values (MSE, L1)"
            yield error("targets-out-of-reach", problem, "no weights can reach them", fix)
            return


def mixed_examples(setup: Setup) -> Iterator[Finding]:
    """Find outputs that depend on the other examples of the batch even in evaluation mode."""
    if not isinstance(setup.inputs, Tensor) or len(setup.inputs) < 4:
        return
    if any(getattr(module, "track_running_stats", None) is False for module in setup.network.modules()):
        return  # such a layer uses the statistics of the batch even in evaluation mode
    together, half = setup.eval_outputs
    if not isinstance(half, Tensor) or together.shape[1:] != half.shape[1:] or len(together) != len(setup.inputs[:16]):
        return
    difference = (together[: len(half)] - half).abs().max()
    if difference > 1e-2 * together.std() + 1e-6:
        if not torch.equal(setup.evaluate(setup.inputs[:16]), setup.evaluate(setup.inputs[:16])):
            problem = "the outputs in evaluation mode are random: two calls with the same inputs differ"
            why = "validation, test and predictions would differ from call to call"
            fix = "write F.dropout(x, p, training=self.training), and create layers and random numbers in __init__"
            yield warning("outputs-random", problem, why, fix)
            return
        problem = f"outputs in evaluation mode change by up to {difference:.4g} if the rest of the batch is left out"
        why = "the prediction for an example must not depend on the rest of its batch"
        fix = "look for a view, reshape, mean or softmax along dimension 0, that of the examples"
        yield warning("examples-mixed", problem, why, fix)


def changed_inputs(setup: Setup) -> Iterator[Finding]:
    """Find a network that changes its inputs in place."""
    if setup.changes_inputs:
        why = "what reads the same tensor later, such as a second call or a loss of inputs, gets other numbers"
        fix = "write x = x * 2 instead of x *= 2, and relu(x) instead of relu_(x), for the inputs"
        yield warning("inputs-changed", "the network changes its inputs in place", why, fix)


def lost_example_dimension(setup: Setup) -> Iterator[Finding]:
    """Find a network that returns no dimension of examples for a batch of one example, such as after squeeze()."""
    if not isinstance(setup.inputs, Tensor) or len(setup.inputs) < 2 or setup.outputs.ndim < 2:
        return
    try:
        shape, others = setup.evaluate(setup.inputs[:1]).shape, setup.outputs.shape[1:]
    except Exception:  # noqa: BLE001 -- it may need several examples
        return
    if shape == others:
        problem = f"for a single example, the outputs are {tuple(shape)} instead of {(1, *others)}"
        why = "a last batch of one example, or the prediction for one example, would fail or be wrong"
        yield warning("squeezed-example", problem, why, "write squeeze(dim) with the dimension, or flatten(1)")


def are_probabilities(outputs: Tensor) -> bool:
    """Return whether outputs (N, C, ...) are probabilities of C classes."""
    return bool((outputs >= 0).all() and ((outputs.float().sum(1) - 1).abs() < _TOLERANCE).all())


def are_log_probabilities(outputs: Tensor) -> bool:
    """Return whether outputs (N, C, ...) are log-probabilities along dimension 1 or the last dimension."""
    dimensions = {1, outputs.ndim - 1}
    return any(bool((outputs.float().logsumexp(d).abs() < _TOLERANCE).all()) for d in dimensions)


def within(low: float, high: float, outputs: Tensor) -> bool:
    """Return whether all outputs are in the range from `low` to `high`."""
    return bool(((outputs >= low) & (outputs <= high)).all())

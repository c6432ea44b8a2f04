"""Checks whether the outputs match the interpretation of the loss, such as for a softmax too many or too few."""

from collections.abc import Iterator
from functools import partial
from math import inf

from torch import Tensor, nn

from losslab.doctor.case import Case
from losslab.doctor.finding import Finding, error, warning
from losslab.losses.adapter.output_kind import OutputKind
from losslab.losses.base import Loss

_TOLERANCE = 2e-2
"""The tolerance for sums of probabilities in half precision."""


def squashed_logits(case: Case) -> Iterator[Finding]:
    """A softmax, log-softmax, sigmoid or rectifier at the end of the network, for a loss that takes logits."""
    margin = case.output_kind is OutputKind.SCORES or case.torch_class is nn.SoftMarginLoss
    if not margin and case.output_kind not in {OutputKind.LOGITS, OutputKind.BINARY_LOGITS}:
        return
    rows = case.outputs.ndim > 1 and case.outputs.shape[1] > 1
    if rows and case.holds_for_any_weights(sum_to_one):
        yield _activation_in_network(case, "softmax", "all ≥ 0, and each example's sum to 1")
    elif rows and case.holds_for_any_weights(are_log_probabilities):
        yield _log_softmax_in_network(case)
    elif case.holds_for_any_weights(partial(within, 0.0, 1.0)):
        yield _activation_in_network(case, "sigmoid", "all between 0 and 1")
    elif not margin and case.holds_for_any_weights(partial(within, 0.0, inf)):
        yield _rectified_logits(case)


def _activation_in_network(case: Case, activation: str, seen: str) -> Finding:
    lowest = _lowest_loss(case)
    limit = "" if lowest is None else f", so that on this batch it cannot fall below {lowest:.4f}"
    own = "sigmoid" if case.output_kind is OutputKind.BINARY_LOGITS else "softmax"
    return error(
        f"{activation}-in-network",
        f"the outputs are {seen}, whatever the weights{case.ending}",
        f"the loss takes logits and applies {own} by itself{limit}; gradients of confident outputs vanish",
        f"take the {activation} out of the network, and apply it only where probabilities are wanted",
    )


def _log_softmax_in_network(case: Case) -> Finding:
    seen = f"the outputs are log-probabilities, whatever the weights{case.ending}"
    fix = "take the log-softmax out of the network"
    if case.output_kind is OutputKind.LOGITS:
        why = "the loss takes the log-softmax by itself; a second one changes nothing, but the outputs are not logits"
        return warning("log-softmax-in-network", seen, why, f"{fix}, or use NLLLoss, which is made for it")
    return error("log-softmax-in-network", seen, "the loss takes logits, and none of these can be above 0", fix)


def _rectified_logits(case: Case) -> Finding:
    seen = f"no output is ever below 0, whatever the weights{case.ending}"
    fix = "remove the rectifier after the last layer"
    if case.output_kind is OutputKind.BINARY_LOGITS:
        why = "a logit ≥ 0 is a probability ≥ 0.5: the network can never predict no"
        return error("rectified-logits", seen, why, fix)
    why = "the logits of wrong classes can only fall to 0, where they have no gradient any more"
    return warning("rectified-logits", seen, why, fix)


def missing_activation(case: Case) -> Iterator[Finding]:
    """Logits or probabilities for a loss of log-probabilities, or unbounded outputs for a loss of probabilities."""
    outputs, kind = case.outputs.detach(), case.output_kind
    if not outputs.isfinite().all():
        return
    if kind is OutputKind.LOG_PROBABILITIES and outputs.ndim > 1 and not are_log_probabilities(outputs):
        if sum_to_one(outputs):
            seen, fix = "the outputs are probabilities", "end the network in log_softmax instead of softmax"
        else:
            sums = outputs.double().exp().sum(1)
            seen = f"the outputs are not log-probabilities: exp(outputs) sums to {sums.min():.4g} to {sums.max():.4g}"
            fix = "take torch.log_softmax(outputs, dim=1) first, or a loss on logits (cross-entropy)"
        why = "the loss interprets its inputs as logarithms of probabilities: for other inputs it has no minimum"
        yield error("no-log-probabilities", seen, why, fix)
    elif kind is OutputKind.PROBABILITIES and not case.holds_for_any_weights(partial(within, 0.0, 1.0)):
        seen = f"outputs from {outputs.min():.4g} to {outputs.max():.4g}, not restricted to 0 to 1"
        why = "the loss takes the logarithm of probabilities, which is not defined below 0"
        fix = "use the same loss on logits (BCEWithLogitsLoss), or end the network in a sigmoid"
        yield error("no-probabilities", seen, why, fix)


def unreachable_targets(case: Case) -> Iterator[Finding]:
    """Targets outside the range of the network's last activation (ReLU, sigmoid, tanh)."""
    target = case.all_targets
    if case.output_kind is not OutputKind.VALUES or target.shape[1:] != case.outputs.shape[1:]:
        return
    to_predictions = case.loss.to_predictions if isinstance(case.loss, Loss) else Tensor.detach
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (0.0, inf)):
        outside = (target < low) | (target > high)
        if outside.any() and case.holds_for_any_weights(lambda z: within(low, high, to_predictions(z))):  # noqa: B023
            seen = (
                f"{outside.sum()} of {target.numel()} targets are outside the range of the outputs, {low:g} to {high:g}"
            )
            seen += case.ending or ", whatever the weights"
            fix = "let the network end in a linear layer, or rescale the targets"
            yield error("targets-out-of-reach", seen, "no weights can reach them", fix)
            return


def mixed_examples(case: Case) -> Iterator[Finding]:
    """Outputs that depend on the other examples of the batch even in evaluation mode."""
    if not isinstance(case.inputs, Tensor) or len(case.inputs) < 4:
        return
    if any(getattr(module, "track_running_stats", None) is False for module in case.network.modules()):
        return  # such a layer uses the statistics of the batch even in evaluation mode
    together, half = case.eval_outputs
    if not isinstance(half, Tensor) or together.shape[1:] != half.shape[1:] or len(together) != len(case.inputs[:16]):
        return
    difference = (together[: len(half)] - half).abs().max()
    if difference > 1e-2 * together.std() + 1e-6:
        seen = f"outputs change by up to {difference:.4g} when other examples leave the batch, in evaluation mode"
        why = "the prediction for an example must not depend on the rest of its batch"
        fix = "search for a view, reshape, mean or softmax along dimension 0 of the batch"
        yield warning("examples-mixed", seen, why, fix)


def sum_to_one(outputs: Tensor) -> bool:
    """Return whether outputs (N, C, ...) are probabilities of C classes."""
    return bool((outputs >= 0).all() and ((outputs.float().sum(1) - 1).abs() < _TOLERANCE).all())


def are_log_probabilities(outputs: Tensor) -> bool:
    """Return whether outputs (N, C, ...) are log-probabilities along dimension 1 or the last dimension."""
    dimensions = {1, outputs.ndim - 1}
    return any(bool((outputs.float().logsumexp(d).abs() < _TOLERANCE).all()) for d in dimensions)


def within(low: float, high: float, outputs: Tensor) -> bool:
    """Return whether all outputs are in a range."""
    return bool(((outputs >= low) & (outputs <= high)).all())


def _lowest_loss(case: Case) -> float | None:
    """Return the loss of the best outputs between 0 and 1; None if it is not known."""
    target, outputs = case.target, case.outputs.detach()
    indices = not target.is_floating_point()
    if indices and (target.ndim != 1 or outputs.ndim != 2 or target.min() < 0):
        return None
    best = nn.functional.one_hot(target, outputs.shape[1]) if indices else target
    value = case.loss(best.to(outputs.dtype), target)
    return float(value) if isinstance(value, Tensor) and value.numel() == 1 else None

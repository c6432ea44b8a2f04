"""Outputs that are not what the loss takes them for: a softmax too many, or one too few."""

from collections.abc import Iterator
from functools import partial
from math import inf

from torch import Tensor, nn

from losslab.doctor.case import Case
from losslab.doctor.finding import Finding, error, warning
from losslab.doctor.probe import Reads, is_a, setting
from losslab.losses.base import Loss

_TOLERANCE = 2e-2
"""Of sums of probabilities: half precision is that coarse."""


def squashed(case: Case) -> Iterator[Finding]:
    """Softmax, log-softmax or sigmoid inside the network, before a loss that takes logits."""
    hinges = case.reads is Reads.SCORES or is_a(case.loss, nn.SoftMarginLoss)
    if not case.tensors or not (hinges or case.reads in {Reads.LOGITS, Reads.BINARY_LOGITS}):
        return
    rows = case.outputs.ndim > 1 and case.outputs.shape[1] > 1
    if rows and case.whatever_the_weights(sum_to_one):
        yield _squashed(case, "softmax", "all ≥ 0, and each example's sum to 1")
    elif rows and case.whatever_the_weights(are_log_probabilities):
        yield _log_softmax(case)
    elif case.whatever_the_weights(from_0_to_1):
        yield _squashed(case, "sigmoid", "all between 0 and 1")
    elif not hinges and case.whatever_the_weights(not_negative):
        yield _rectified(case)


def _squashed(case: Case, what: str, seen: str) -> Finding:
    layer = case.layers.last(case.outputs)
    seen = f"the outputs are {seen}, whatever the weights" + (f": the network ends in {layer}" if layer else "")
    floor = _lowest(case)
    limit = "" if floor is None else f", so that on this batch it cannot fall below {floor:.4f}"
    own = "sigmoid" if case.reads is Reads.BINARY_LOGITS else "softmax"
    why = f"the loss takes logits and applies {own} by itself{limit}; gradients of confident outputs vanish"
    fix = f"take the {what} out of the network, and apply it only where probabilities are wanted"
    return error(f"{what}-in-network", seen, why, fix)


def _log_softmax(case: Case) -> Finding:
    layer = case.layers.last(case.outputs)
    seen = "the outputs are log-probabilities, whatever the weights" + (
        f": the network ends in {layer}" if layer else ""
    )
    if case.reads is Reads.LOGITS:
        why = (
            "the loss takes the log-softmax by itself; a second one changes nothing, but the outputs are no free logits"
        )
        fix = "take the log-softmax out of the network, or use NLLLoss, which is made for it"
        return warning("log-softmax-in-network", seen, why, fix)
    why = "the loss takes free logits, and none of these can ever be above 0"
    return error("log-softmax-in-network", seen, why, "take the log-softmax out of the network")


def _rectified(case: Case) -> Finding:
    layer = case.layers.last(case.outputs)
    seen = "no output is ever below 0, whatever the weights" + (f": the network ends in {layer}" if layer else "")
    fix = "take the rectifier after the last layer out of the network"
    if case.reads is Reads.BINARY_LOGITS:
        return error("rectified-logits", seen, "a logit ≥ 0 is a probability ≥ 0.5: the network can never say no", fix)
    why = "the logits of wrong classes can only go to 0, where they have no gradient any more"
    return warning("rectified-logits", seen, why, fix)


def unsquashed(case: Case) -> Iterator[Finding]:
    """Raw outputs, or probabilities, for a loss that takes log-probabilities or probabilities."""
    if not case.tensors or not case.outputs.isfinite().all():
        return
    outputs = case.outputs.detach()
    if case.reads is Reads.LOG_PROBABILITIES and outputs.ndim > 1 and not are_log_probabilities(outputs):
        if sum_to_one(outputs):
            seen, fix = "the outputs are probabilities", "end the network in log_softmax instead of softmax"
        else:
            sums = outputs.double().exp().sum(1)
            seen = f"the outputs are no log-probabilities: exp(outputs) sums to {sums.min():.4g} to {sums.max():.4g}"
            fix = "take torch.log_softmax(outputs, dim=1) first, or a loss on logits (cross-entropy)"
        why = "the loss adds up what it is given as logarithms of probabilities: of anything else it has no minimum"
        yield error("no-log-probabilities", seen, why, fix)
    elif case.reads is Reads.PROBABILITIES and not case.whatever_the_weights(from_0_to_1):
        seen = f"outputs from {outputs.min():.4g} to {outputs.max():.4g}, which nothing keeps between 0 and 1"
        why = "the loss takes probabilities, and the logarithm of anything else is not defined"
        yield error(
            "no-probabilities", seen, why, "use the same loss on logits (BCEWithLogitsLoss), or end in a sigmoid"
        )


def in_reach(case: Case) -> Iterator[Finding]:
    """Values that the network cannot give, because it ends in a rectifier, a sigmoid or a tanh."""
    target = case.targets
    if not case.tensors or case.reads is not Reads.VALUES or target.shape[1:] != case.outputs.shape[1:]:
        return
    if is_a(case.loss, nn.PoissonNLLLoss) and setting(case.loss, "log_input", default=True):
        return
    meant = case.loss.to_predictions if isinstance(case.loss, Loss) else Tensor.detach
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (0.0, inf)):
        beyond = (target < low) | (target > high)
        if not beyond.any() or not case.whatever_the_weights(lambda z: within(low, high, meant(z))):  # noqa: B023
            continue
        layer = case.layers.last(case.outputs)
        seen = f"{beyond.sum()} of {target.numel()} targets lie outside {low:g} to {high:g}, where all outputs stay"
        seen += f": the network ends in {layer}" if layer else ", whatever the weights"
        why = "no weights can reach them"
        yield error("targets-out-of-reach", seen, why, "let the network end in a linear layer, or rescale the targets")
        return


def sum_to_one(outputs: Tensor) -> bool:
    """Whether outputs (N, C, ...) are probabilities of C classes."""
    return bool((outputs >= 0).all() and ((outputs.float().sum(1) - 1).abs() < _TOLERANCE).all())


def are_log_probabilities(outputs: Tensor) -> bool:
    """Whether outputs (N, C, ...) are logarithms of such probabilities, along dimension 1 or the last."""
    dimensions = {1, outputs.ndim - 1}
    return any(bool((outputs.float().logsumexp(d).abs() < _TOLERANCE).all()) for d in dimensions)


def within(low: float, high: float, outputs: Tensor) -> bool:
    """Whether every output lies in this range."""
    return bool(((outputs >= low) & (outputs <= high)).all())


from_0_to_1 = partial(within, 0.0, 1.0)
not_negative = partial(within, 0.0, inf)


def _lowest(case: Case) -> float | None:
    """The loss where the network is as right as outputs from 0 to 1 can be; None where that is not known."""
    target, outputs = case.target, case.outputs.detach()
    hard = not target.is_floating_point()
    if hard and (target.ndim != 1 or outputs.ndim != 2 or target.min() < 0):
        return None
    best = nn.functional.one_hot(target, outputs.shape[1]) if hard else target
    value = case.loss(best.to(outputs.dtype), target)
    return float(value) if isinstance(value, Tensor) and value.numel() == 1 else None

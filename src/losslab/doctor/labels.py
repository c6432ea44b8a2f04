"""Labels of yes and no, counts and values that the loss reads as something else; and targets that do not count."""

from collections.abc import Iterator

from torch import Tensor, nn

from losslab.doctor.case import Case
from losslab.doctor.finding import Finding, error, warning
from losslab.doctor.linear import linear_layer
from losslab.doctor.reads import is_a, setting
from losslab.doctor.targets import ignored, takes_classes
from losslab.doctor.trial import Reads
from losslab.losses.base import Loss

_OF_YES_AND_NO = {Reads.BINARY_LOGITS, Reads.PROBABILITIES}


def zero_and_one(case: Case) -> Iterator[Finding]:
    """Targets of -1 and 1 where 0 and 1 are wanted."""
    target = case.targets
    if not case.tensors or case.reads not in _OF_YES_AND_NO or not target.isfinite().all():
        return
    low, high = float(target.min()), float(target.max())
    if target.shape[1:] != case.outputs.shape[1:] or (low >= 0 and high <= 1):
        return
    if bool(((target == -1) | (target == 1)).all()):
        why = "binary cross-entropy reads a target as the probability of yes: at -1 it falls without end"
        yield error("plus-minus-one-targets", "the targets are -1 and 1", why, "use (target + 1) / 2, which is 0 and 1")
        return
    seen, why = f"targets from {low:.4g} to {high:.4g}", "binary cross-entropy reads a target as the probability of yes"
    yield error("labels-outside-0-1", seen, why, "use labels of 0 and 1, or a loss for values (MSE, L1, Huber)")


def minus_and_plus_one(case: Case) -> Iterator[Finding]:
    """Targets of 0 and 1 where -1 and 1 are wanted."""
    if case.tensors and case.reads is Reads.SIGNED and not bool(((case.targets == -1) | (case.targets == 1)).all()):
        seen = f"targets from {float(case.targets.min()):.4g} to {float(case.targets.max()):.4g}"
        why = "this loss multiplies output and target, which are to be -1 and 1: examples of target 0 teach nothing"
        yield error("zero-one-targets", seen, why, "use 2 * target - 1, which is -1 and 1")


def counts(case: Case) -> Iterator[Finding]:
    """Negative targets of a Poisson likelihood, and negative rates."""
    if not case.tensors or not is_a(case.loss, nn.PoissonNLLLoss):
        return
    if (case.targets < 0).any():
        seen, why = f"targets as low as {float(case.targets.min()):.4g}", "a count is never negative"
        yield error("counts-negative", seen, why, "give the counts as they are, not standardised, or use another loss")
    if not setting(case.loss, "log_input", default=True) and (case.outputs < 0).any():
        seen = f"outputs as low as {float(case.outputs.min()):.4g} as rates (log_input=False)"
        fix = "use log_input=True, which takes the logarithm of the rate, or end the network in a softplus"
        yield error("rates-negative", seen, "a rate is never negative, and the loss takes its logarithm", fix)


def some_count(case: Case) -> Iterator[Finding]:
    """A batch in which every target is ignored, or of weight 0."""
    if not takes_classes(case) or case.targets.is_floating_point() or not case.targets.numel():
        return
    none = ignored(case)
    if none is not None and bool((case.targets == none).all()):
        fix = f"set ignore_index to a number that is no class (it is {none}), and see where the labels come from"
        why = "the mean over no example is NaN, and so are all weights after a step"
        yield error("all-ignored", f"every target of the batch is {none}, which is ignored", why, fix)
        return
    weight = setting(case.loss, "weight")
    known = isinstance(weight, Tensor) and len(weight) == case.outputs.shape[1]
    target = case.targets if none is None else case.targets[case.targets != none]
    if known and not weight.cpu()[target.cpu()].any():
        why = "the weighted mean divides by the sum of the weights, which is 0 here: the loss is NaN"
        yield error("all-ignored", "all classes in the batch have weight 0", why, "give them a weight above 0")


def classes_seen(case: Case) -> Iterator[Finding]:
    """Far fewer classes than outputs, in more examples than chance allows for."""
    if not takes_classes(case) or case.targets.is_floating_point() or case.targets.ndim != 1:
        return
    none, outputs = ignored(case), case.outputs.shape[1]
    target = case.targets if none is None else case.targets[case.targets != none]
    count, seen = target.numel(), len(target.unique())
    few = outputs > 3 and outputs >= 2 * seen and count >= 64 * seen
    # A class that is missing among 100 C examples is some thirty times rarer than the average one.
    missing = seen < outputs and count >= 100 * outputs
    if seen and (few or missing):
        what = f"{seen} class{'es' * (seen > 1)} in {count} examples, and {outputs} outputs"
        why = "either the network has outputs for classes that are not there, or the data are sorted and not shuffled"
        yield warning("classes-missing", what, why, f"shuffle the training data, or give the network {seen} outputs")


def scale(case: Case) -> Iterator[Finding]:
    """Targets of a size at which squared errors explode."""
    target = case.targets
    if not case.tensors or case.reads is not Reads.VALUES or not target.isfinite().all() or not target.numel():
        return
    values = target.double()
    mean, std = values.mean().item(), values.std(correction=0).item()
    expected = mean**2 + std**2
    # A linear model stays where its learning rate lets it, whatever the targets.
    if expected < _EXPLOSIVE or linear_layer(case) is not None or not _squares(case):
        return
    seen = f"targets of mean {mean:.4g} and standard deviation {std:.4g}, under a squared error"
    why = (
        f"predictions near 0 cost mean² + std² = {expected:.4g}, and gradients grow with the error: usual learning "
        f"rates overshoot until the weights are infinite"
    )
    fix = "standardise the targets: subtract the training set's mean, divide by its standard deviation, undo it later"
    yield warning("targets-not-standardised", seen, why, fix)


_EXPLOSIVE = 1e3
"""From here on perceptrons of two hidden layers of 64 diverge or stand still under SGD of rate 0.01 (seen at 60²)."""


def _squares(case: Case) -> bool:
    """Whether twice as far costs four times as much, here where the targets are."""
    target = case.target.to(case.outputs.dtype)
    if target.shape != case.outputs.shape and not (isinstance(case.loss, Loss) and target.ndim == case.outputs.ndim):
        return False
    near, far = (case.loss(case.outputs.detach() * 0, factor * target) for factor in (1, 2))
    return isinstance(near, Tensor) and bool((far > 3.5 * near).all())

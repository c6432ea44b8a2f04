"""What may be wrong with the inputs.

Class indices and probabilities that the loss would refuse, or silently take for something else.

Labels of yes and no, counts and values that the loss reads as something else; and targets that do not count.

Outputs and targets that do not lie over each other.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from losslab.doctor.case import Case, linear_layer
from losslab.doctor.finding import Finding, error, warning
from losslab.doctor.probe import Reads, is_a, is_known, setting
from losslab.losses.base import Loss

_LARGE = 30.0
"""Root mean square of inputs that were surely not normalised; of bytes it is about 85 (MNIST) to 135 (CIFAR-10)."""


def finite_inputs(case: Case) -> Iterator[Finding]:
    """NaN and infinity, unless the network knows what to do with them."""
    inputs, outputs = case.inputs, case.outputs
    if not isinstance(outputs, Tensor) or outputs.isfinite().all():
        return
    why = "one such number makes the loss, its gradient and with the first step all weights NaN"
    if isinstance(inputs, Tensor) and not inputs.isfinite().all():
        rows = (~inputs.isfinite()).flatten(1).any(1).sum() if inputs.ndim > 1 else (~inputs.isfinite()).sum()
        seen = f"{rows} of {len(inputs)} examples have NaN or infinity among their inputs"
        yield error("inputs-not-finite", seen, why, "remove these examples, or fill in what is missing")
        return
    rows = (~outputs.isfinite()).flatten(1).any(1).sum() if outputs.ndim > 1 else (~outputs.isfinite()).sum()
    seen = f"{rows} of {len(outputs)} outputs are NaN or infinite, though the inputs are finite"
    fix = "look for a division by 0, a log or sqrt of 0, or weights that were not initialised"
    yield error("outputs-not-finite", seen, why, fix)


def normalised(case: Case) -> Iterator[Finding]:
    """Inputs of a size for which no initialisation is made; asked where they meet the first weights."""
    if case.layers.first is None:
        return
    _, layer, given = case.layers.first
    if not given.is_floating_point() or "Norm" in type(layer).__name__ or not given.isfinite().all():
        return
    size = given.float().square().mean().sqrt().item()
    if size <= _LARGE:
        return
    low, high = given.min().item(), given.max().item()
    seen = f"the first layer with weights is given inputs from {low:.4g} to {high:.4g} (root mean square {size:.4g})"
    why = (
        "initialisations and usual learning rates are made for inputs of size 1; the gradient of the first layer grows "
        "with the inputs, so training diverges or crawls"
    )
    bytes_ = given.ndim > 3 and low >= 0 and 100 < high <= 255
    fix = (
        "these look like bytes: divide by 255, subtract each channel's mean and divide by its standard deviation"
        if bytes_
        else "standardise each input: subtract its mean over the training set and divide by its standard deviation"
    )
    yield warning("inputs-not-normalised", seen, why, fix)


_OF_CLASSES = {Reads.LOGITS, Reads.SCORES}


def finite_targets(case: Case) -> Iterator[Finding]:
    """NaN and infinity among the targets, unless the loss knows what to do with them."""
    target = case.targets
    if not isinstance(target, Tensor) or target.isfinite().all() or case.acceptable:
        return
    rows = (~target.isfinite()).flatten(1).any(1).sum() if target.ndim > 1 else (~target.isfinite()).sum()
    seen = f"{rows} of {len(target)} targets are NaN or infinite"
    why = "one of them makes the loss, its gradient and with the first step all weights NaN"
    yield error(
        "targets-not-finite", seen, why, "remove these examples; in the lab, an index outside 0..C-1 becomes NaN"
    )


def indices(case: Case) -> Iterator[Finding]:
    """Class indices of another dtype or shape, or of classes that are not there."""
    target, outputs = case.targets, case.outputs
    if not takes_classes(case) or outputs.shape[1] < 2:
        return
    labels, integers = outputs.shape[:1] + outputs.shape[2:], not target.is_floating_point()
    spelt_out = target.shape[1:] == outputs.shape[1:] and target.ndim > 1
    if spelt_out and (integers or _is_nll(case)):
        seen = f"the targets {tuple(target.shape)} are one-hot rows of {_dtype(target)}"
        why = "integers are read as class indices, one an example, and rows as probabilities only where they are floats"
        yield error("one-hot-integers" if integers else "one-hot-for-indices", seen, why, "use target.argmax(1)")
    elif target.ndim == 2 and target.shape[1] == 1 and len(labels) == 1:
        seen, why = f"class indices in a column: {tuple(target.shape)}", "the loss takes one index an example, as (N,)"
        yield error("index-column", seen, why, "use target.squeeze(1)")
    elif target.shape[1:] == labels[1:] and not integers:
        seen, why = f"class indices of {_dtype(target)}", "the loss takes floats for probabilities, a row an example"
        yield error("index-float", seen, why, "use target.long()")
    elif integers and target.dtype != torch.int64 and not case.acceptable:
        seen, why = f"class indices of {_dtype(target)}", "torch takes class indices as int64 only"
        yield error("index-dtype", seen, why, "use target.long()")
    elif integers:
        yield from _in_range(case)


def one_logit(case: Case) -> Iterator[Finding]:
    """The softmax of one number is 1."""
    if case.tensors and case.reads in _OF_CLASSES and (case.outputs.ndim == 1 or case.outputs.shape[1] == 1):
        seen = f"one logit an example, {tuple(case.outputs.shape)}, under a loss that takes a softmax over classes"
        why = "the softmax of a single number is always 1: the loss is 0 and nothing is learnt"
        fix = "use binary cross-entropy on logits with 0/1 targets of the same shape, or give the network two outputs"
        yield error("one-logit", seen, why, fix)


def probabilities(case: Case) -> Iterator[Finding]:
    """Rows of soft targets that are no probabilities."""
    soft = case.tensors and (case.reads is Reads.LOGITS or is_a(case.loss, nn.KLDivLoss))
    target = case.targets
    if not soft or not target.is_floating_point() or target.ndim < 2 or target.shape[1:] != case.outputs.shape[1:]:
        return
    if not target.isfinite().all() or target.shape[1] < 2:
        return
    of_logarithms = list(_logarithms(case)) if is_a(case.loss, nn.KLDivLoss) else []
    if of_logarithms:
        yield from of_logarithms
        return
    target = target.exp() if setting(case.loss, "log_target", default=False) else target
    fix = "divide each row by its sum; labels that do not exclude each other want binary cross-entropy"
    if (target < 0).any():
        seen, why = f"soft targets as low as {target.min():.4g}", "a probability is never negative"
        yield error("targets-negative", seen, why, fix)
        return
    sums = target.sum(1).flatten()
    off = (sums - 1).abs() > 1e-2
    if off.any():
        tell = error if off.all() else warning
        seen = f"{off.sum()} of {len(sums)} rows of soft targets do not sum to 1: {sums.min():.4g} to {sums.max():.4g}"
        why = "a softmax sums to 1 and cannot reach them; each example's weight becomes its row's sum"
        yield tell("targets-not-probabilities", seen, why, fix)


def takes_classes(case: Case) -> bool:
    """Whether the loss takes class indices."""
    return case.tensors and (case.reads in _OF_CLASSES or _is_nll(case)) and case.outputs.ndim > 1


def ignored(case: Case) -> int | None:
    """The index that does not count."""
    default = None if isinstance(case.loss, Loss | nn.MultiMarginLoss) else -100
    index: int | None = setting(case.loss, "ignore_index", default=default)
    return index


def _is_nll(case: Case) -> bool:
    trial = case.reads is Reads.LOG_PROBABILITIES and not case.target.is_floating_point()
    return is_a(case.loss, nn.NLLLoss) or trial


def _in_range(case: Case) -> Iterator[Finding]:
    target, classes, none = case.targets, case.outputs.shape[1], ignored(case)
    counted = target if none is None else target[target != none]
    if not counted.numel():
        return
    low, high = int(counted.min()), int(counted.max())
    if (low >= 0 and high < classes) or case.acceptable:
        return
    seen = f"class indices from {low} to {high} for {classes} outputs"
    why = f"classes are counted from 0: {classes} outputs stand for 0 to {classes - 1}"
    fix = "subtract 1 from the labels" if (low, high) == (1, classes) else f"give the network {high + 1} outputs"
    if low < 0:
        fix = f"set ignore_index={low} if {low} means 'no label'"
    yield error("index-out-of-range", seen, why, fix)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _logarithms(case: Case) -> Iterator[Finding]:
    """KLDivLoss takes its targets as probabilities, or with log_target=True as their logarithms."""
    target, logs = case.targets, bool(setting(case.loss, "log_target", default=False))
    if not logs and bool((target <= 0).all()) and bool((target.exp().sum(1) - 1).abs().max() < 1e-2):
        seen, fix = "the targets are log-probabilities", "set log_target=True, or give target.exp()"
    elif logs and bool((target >= 0).all()):
        seen, fix = "the targets are not negative, and log_target=True", "set log_target=False, or give target.log()"
    else:
        return
    yield error("kl-targets", seen, "the loss takes the one for the other, and its value means nothing", fix)


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

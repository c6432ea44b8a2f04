"""Checks of inputs and targets: finite, with a dtype, shape, range and scale that the loss accepts."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from losslab.doctor.case import Case, nonfinite_rows
from losslab.doctor.finding import Finding, dtype_name, error, warning
from losslab.losses.adapter.output_kind import OutputKind, is_known, setting
from losslab.losses.base import Loss

_LARGE = 30.0
"""A root mean square that normalised inputs never have; bytes have about 85 (MNIST) to 135 (CIFAR-10)."""


def nonfinite_inputs(case: Case) -> Iterator[Finding]:
    """NaN or infinity in the outputs, possibly caused by the inputs."""
    inputs, outputs = case.inputs, case.outputs
    if not isinstance(outputs, Tensor) or outputs.isfinite().all():
        return
    why = "a single one makes the loss, its gradient and, with the first step, all weights NaN"
    if isinstance(inputs, Tensor) and not inputs.isfinite().all():
        seen = f"{nonfinite_rows(inputs)} of {len(inputs)} examples have NaN or infinity among their inputs"
        yield error("inputs-not-finite", seen, why, "remove these examples, or fill in the missing values")
        return
    seen = f"{nonfinite_rows(outputs)} of {len(outputs)} outputs are NaN or infinite, though the inputs are finite"
    fix = "look for a division by 0, a log or sqrt of 0, or weights that were not initialised"
    yield error("outputs-not-finite", seen, why, fix)


def unnormalised_inputs(case: Case) -> Iterator[Finding]:
    """Inputs that are too large for usual initialisations, measured at the first layer with weights."""
    if case.layers.first is None:
        return
    _, layer, inputs = case.layers.first
    if not inputs.is_floating_point() or "Norm" in type(layer).__name__ or not inputs.isfinite().all():
        return
    size = inputs.float().square().mean().sqrt().item()
    if size <= _LARGE:
        return
    low, high = inputs.min().item(), inputs.max().item()
    seen = f"the inputs of the first layer with weights go from {low:.4g} to {high:.4g} (root mean square {size:.4g})"
    why = (
        "initialisations and usual learning rates are made for inputs of size 1; the gradient of the first layer grows "
        "with the inputs, so training diverges or is very slow"
    )
    fix = "standardise each input: subtract its mean over the training set and divide by its standard deviation"
    if inputs.ndim > 3 and low >= 0 and 100 < high <= 255:
        fix = "these look like bytes: divide by 255, subtract each channel's mean and divide by its standard deviation"
    yield warning("inputs-not-normalised", seen, why, fix)


def nonfinite_targets(case: Case) -> Iterator[Finding]:
    """NaN or infinity among the targets, unless the loss handles them."""
    target = case.all_targets
    if not target.isfinite().all() and not case.accepts_all_targets:
        seen = f"{nonfinite_rows(target)} of {len(target)} targets are NaN or infinite"
        why = "a single one makes the loss, its gradient and, with the first step, all weights NaN"
        fix = "remove these examples (losslab itself turns an index outside 0..C-1 into NaN)"
        yield error("targets-not-finite", seen, why, fix)


def class_indices(case: Case) -> Iterator[Finding]:
    """Class indices of the wrong dtype or shape, or out of range."""
    target, outputs = case.all_targets, case.outputs
    if not case.takes_indices or outputs.shape[1] < 2:
        return
    index_shape, integers = outputs.shape[:1] + outputs.shape[2:], not target.is_floating_point()
    has_columns = target.shape[1:] == outputs.shape[1:] and target.ndim > 1
    if has_columns and (integers or case.takes_only_indices):
        seen = f"the targets {tuple(target.shape)} are one-hot rows of {dtype_name(target.dtype)}"
        why = "integers are read as class indices, one per example; only rows of floats can be read as probabilities"
        yield error("one-hot-integers" if integers else "one-hot-for-indices", seen, why, "use target.argmax(1)")
    elif target.ndim == 2 and target.shape[1] == 1 and len(index_shape) == 1:
        seen, why = f"class indices in a column: {tuple(target.shape)}", "the loss takes one index per example, as (N,)"
        yield error("index-column", seen, why, "use target.squeeze(1)")
    elif target.shape[1:] == index_shape[1:] and not integers:
        why = "the loss reads floats as probabilities, a row per example"
        yield error("index-float", f"class indices of {dtype_name(target.dtype)}", why, "use target.long()")
    elif integers and target.dtype != torch.int64 and not case.accepts_all_targets:
        why = "torch takes class indices as int64 only"
        yield error("index-dtype", f"class indices of {dtype_name(target.dtype)}", why, "use target.long()")
    elif integers and case.counted_targets.numel():
        low, high, classes = int(case.counted_targets.min()), int(case.counted_targets.max()), outputs.shape[1]
        if (low >= 0 and high < classes) or case.accepts_all_targets:
            return
        seen = f"class indices from {low} to {high} for {classes} outputs"
        why = f"classes count from 0: {classes} outputs stand for 0 to {classes - 1}"
        fix = "subtract 1 from the labels" if (low, high) == (1, classes) else f"give the network {high + 1} outputs"
        if low < 0:
            fix = f"set ignore_index={low} if {low} means 'no label'"
        yield error("index-out-of-range", seen, why, fix)


def single_logit(case: Case) -> Iterator[Finding]:
    """One logit per example for a loss that takes a softmax."""
    one = case.outputs.ndim == 1 or case.outputs.shape[1] == 1
    if case.output_kind in {OutputKind.LOGITS, OutputKind.SCORES} and one:
        seen = f"one logit per example, {tuple(case.outputs.shape)}, for a loss that takes a softmax over classes"
        why = "the softmax of a single number is always 1: the loss is 0 and nothing is learnt"
        fix = "use binary cross-entropy on logits with 0/1 targets of the same shape, or give the network two outputs"
        yield error("one-logit", seen, why, fix)


def soft_targets(case: Case) -> Iterator[Finding]:
    """Rows of soft targets that are not probabilities."""
    target, kl_div = case.all_targets, case.torch_class is nn.KLDivLoss
    if case.output_kind is not OutputKind.LOGITS and not kl_div:
        return
    columns = target.is_floating_point() and target.ndim > 1 and target.shape[1:] == case.outputs.shape[1:]
    if not columns or target.shape[1] < 2 or not target.isfinite().all():
        return
    logarithms = kl_div and bool(setting(case.loss, "log_target", default=False))
    swapped = _swapped_logarithms(target, logarithms=logarithms) if kl_div else None
    if swapped is not None:
        yield error("kl-targets", swapped[0], "the loss reads one as the other: its value means nothing", swapped[1])
        return
    target = target.exp() if logarithms else target
    fix = "divide each row by its sum; for labels that do not exclude each other use binary cross-entropy"
    if (target < 0).any():
        seen = f"soft targets as low as {target.min():.4g}"
        yield error("targets-negative", seen, "a probability is never negative", fix)
        return
    sums = target.sum(1).flatten()
    wrong = (sums - 1).abs() > 1e-2
    if wrong.any():
        make = error if wrong.all() else warning
        seen = (
            f"{wrong.sum()} of {len(sums)} rows of soft targets do not sum to 1: {sums.min():.4g} to {sums.max():.4g}"
        )
        why = "a softmax sums to 1 and cannot reach them; each example is weighted by the sum of its row"
        yield make("targets-not-probabilities", seen, why, fix)


def _swapped_logarithms(target: Tensor, *, logarithms: bool) -> tuple[str, str] | None:
    """Return the observation and the fix if log_target of KLDivLoss does not match the targets, otherwise None."""
    if not logarithms and bool((target <= 0).all()) and bool((target.exp().sum(1) - 1).abs().max() < 1e-2):
        return "the targets are log-probabilities", "set log_target=True, or give target.exp()"
    if logarithms and bool((target >= 0).all()):
        return "the targets are not negative, and log_target=True", "set log_target=False, or give target.log()"
    return None


def zero_one_labels(case: Case) -> Iterator[Finding]:
    """Targets outside [0, 1] for binary cross-entropy, such as -1 and 1."""
    target = case.all_targets
    binary = case.output_kind in {OutputKind.BINARY_LOGITS, OutputKind.PROBABILITIES}
    if not binary or not target.isfinite().all():
        return
    low, high = float(target.min()), float(target.max())
    if target.shape[1:] != case.outputs.shape[1:] or (low >= 0 and high <= 1):
        return
    why = "binary cross-entropy reads a target as the probability of yes"
    if _are_signs(target):
        why += ": for a target of -1 it is unbounded below"
        yield error("plus-minus-one-targets", "the targets are -1 and 1", why, "use (target + 1) / 2, which is 0 and 1")
        return
    fix = "use labels of 0 and 1, or a loss for values (MSE, L1, Huber)"
    yield error("labels-outside-0-1", f"targets from {low:.4g} to {high:.4g}", why, fix)


def signed_labels(case: Case) -> Iterator[Finding]:
    """Targets other than -1 and 1 for a loss that takes signs."""
    target = case.all_targets
    if case.output_kind is OutputKind.SIGNED_SCORES and not _are_signs(target):
        seen = f"targets from {float(target.min()):.4g} to {float(target.max()):.4g}"
        why = "this loss multiplies the output by a target of -1 or 1: examples with target 0 have zero gradient"
        yield error("zero-one-targets", seen, why, "use 2 * target - 1, which is -1 and 1")


def _are_signs(target: Tensor) -> bool:
    return bool(((target == -1) | (target == 1)).all())


def counts(case: Case) -> Iterator[Finding]:
    """Negative targets or rates under a Poisson likelihood."""
    if case.torch_class is not nn.PoissonNLLLoss:
        return
    if (case.all_targets < 0).any():
        seen, why = f"targets as low as {float(case.all_targets.min()):.4g}", "a count is never negative"
        yield error("counts-negative", seen, why, "use counts that are not standardised, or another loss")
    if case.output_kind is OutputKind.VALUES and (case.outputs < 0).any():
        seen = f"outputs as low as {float(case.outputs.min()):.4g} as rates (log_input=False)"
        fix = "use log_input=True, so that outputs are logarithms of rates, or end the network in a softplus"
        yield error("rates-negative", seen, "a rate is never negative, and the loss takes its logarithm", fix)


def all_ignored(case: Case) -> Iterator[Finding]:
    """A batch in which every target is ignored, or has a class weight of 0."""
    if not case.takes_indices or case.all_targets.is_floating_point() or not case.all_targets.numel():
        return
    ignored, target = case.ignore_index, case.counted_targets
    if not target.numel():
        fix = f"set ignore_index (now {ignored}) to a number that is not a class, and check the labels"
        why = "the mean over zero examples is NaN, and so are all weights after one step"
        yield error("all-ignored", f"every target of the batch is {ignored}, which is ignored", why, fix)
        return
    weight = setting(case.loss, "weight")
    fits = isinstance(weight, Tensor) and len(weight) == case.outputs.shape[1]
    if fits and not weight.cpu()[target.cpu()].any():
        why = "the weighted mean divides by the sum of the weights, which is 0: the loss is NaN"
        yield error("all-ignored", "all classes in the batch have weight 0", why, "give them a weight above 0")


def missing_classes(case: Case) -> Iterator[Finding]:
    """Far fewer classes than outputs, in a batch that is too large for this to be chance."""
    if not case.takes_indices or case.all_targets.is_floating_point() or case.all_targets.ndim != 1:
        return
    outputs, count, classes = case.outputs.shape[1], case.counted_targets.numel(), len(case.counted_targets.unique())
    few = outputs > 3 and outputs >= 2 * classes and count >= 64 * classes
    # A class that is missing among 100 C examples is about thirty times rarer than the average class.
    missing = classes < outputs and count >= 100 * outputs
    if classes and (few or missing):
        seen = f"{classes} class{'es' * (classes > 1)} in {count} examples, and {outputs} outputs"
        why = "either the network has outputs for classes that do not exist, or the data are sorted, not shuffled"
        yield warning("classes-missing", seen, why, f"shuffle the training data, or give the network {classes} outputs")


_EXPLOSIVE = 1e3
"""Above this, MLPs with two hidden layers of 64 diverge or stall with SGD at rate 0.01 (measured at 60²)."""


def unscaled_values(case: Case) -> Iterator[Finding]:
    """Targets so large that squared errors explode."""
    target = case.all_targets
    if case.output_kind is not OutputKind.VALUES or not target.isfinite().all() or not target.numel():
        return
    mean, std = target.double().mean().item(), target.double().std(correction=0).item()
    expected = mean**2 + std**2
    # For a linear model, the largest stable learning rate does not depend on the targets.
    if expected < _EXPLOSIVE or case.linear_layer is not None or not _is_squared(case):
        return
    seen = f"targets of mean {mean:.4g} and standard deviation {std:.4g}, under a squared error"
    why = (
        f"predictions near 0 cost mean² + std² = {expected:.4g}, and gradients grow with the error: usual learning "
        f"rates overshoot until the weights are infinite"
    )
    fix = "standardise the targets with mean and standard deviation of the training set, and undo it for predictions"
    yield warning("targets-not-standardised", seen, why, fix)


def _is_squared(case: Case) -> bool:
    """Return whether twice the distance costs about four times as much, at the scale of the targets."""
    target = case.target.to(case.outputs.dtype)
    if target.shape != case.outputs.shape and not (isinstance(case.loss, Loss) and target.ndim == case.outputs.ndim):
        return False
    near, far = (case.loss(case.outputs.detach() * 0, factor * target) for factor in (1, 2))
    return isinstance(near, Tensor) and bool((far > 3.5 * near).all())


_ELEMENTWISE = {
    OutputKind.VALUES,
    OutputKind.LOG_VALUES,
    OutputKind.BINARY_LOGITS,
    OutputKind.PROBABILITIES,
    OutputKind.SIGNED_SCORES,
}


def broadcast_shapes(case: Case) -> Iterator[Finding]:
    """Different shapes, such as outputs (N, 1) and targets (N,), for a loss that compares element by element."""
    if case.target.shape == case.outputs.shape:
        return
    if case.output_kind is OutputKind.BINARY_LOGITS and not case.target.is_floating_point() and case.target.ndim == 1:
        return  # class indices for a loss that converts them to columns
    per_target = case.loss.outputs_per_target if isinstance(case.loss, Loss) else 1
    elementwise = is_known(case.loss) and case.output_kind in _ELEMENTWISE and per_target == 1
    if not elementwise and not _broadcasts(case):
        return
    outputs, target = tuple(case.outputs.shape), tuple(case.target.shape)
    try:
        common = tuple(torch.broadcast_shapes(outputs, target))
    except RuntimeError:
        why = "the loss compares each output with its own target, but the shapes do not match"
        fix = f"give the network {target[1] if len(target) > 1 else 1} output(s) per example, or reshape the target"
    else:
        why = f"they broadcast to {common}: every output is compared with every target, which trains towards their mean"
        same_size = case.outputs.numel() == case.target.numel()
        fix = "reshape the target: target.view_as(outputs)" if same_size else f"make the target {outputs}"
    yield error("shapes-broadcast", f"the outputs are {outputs} and the targets {target}", why, fix)


def _broadcasts(case: Case) -> bool:
    """Return whether the value of an unknown loss does not depend on the order of the targets."""
    target = case.target
    if is_known(case.loss) or case.outputs.numel() != target.numel() or not target.is_floating_point():
        return False
    random = torch.Generator().manual_seed(0)
    outputs = torch.randn(case.outputs.shape, generator=random).to(case.outputs) * target.std() + target.mean()
    shuffled = target[torch.randperm(len(target), generator=random)]
    with torch.no_grad():
        try:
            value, other = case.loss(outputs, target), case.loss(outputs, shuffled)
        except Exception:  # noqa: BLE001 -- foreign code may raise anything
            return False
    changed = not torch.equal(target, shuffled)
    return changed and isinstance(value, Tensor) and torch.allclose(value.mean(), other.mean(), rtol=1e-5)

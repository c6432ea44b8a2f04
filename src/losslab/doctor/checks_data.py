"""Checks whether inputs and targets are finite, and have a dtype, shape, range and scale that fit the loss."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from losslab.doctor.finding import Finding, dtype_name, error, warning
from losslab.doctor.training_setup import Setup
from losslab.losses.adapter.output_kind import OutputKind, is_known
from losslab.losses.adapter.probe import setting
from losslab.losses.base import Loss

_LARGE = 30.0
"""A root mean square that normalised inputs do not have; for bytes it is about 85 (MNIST) to 135 (CIFAR-10)."""


def nonfinite_outputs(setup: Setup) -> Iterator[Finding]:
    """Find NaN or infinity in the outputs, and report whether the inputs contain any."""
    inputs, outputs = setup.inputs, setup.outputs
    if not isinstance(outputs, Tensor) or outputs.isfinite().all():
        return
    why = "one such value makes the loss, its gradient and, with the first step, all weights NaN"
    if isinstance(inputs, Tensor) and not inputs.isfinite().all():
        problem = f"{_nonfinite_rows(inputs)} of {len(inputs)} examples have NaN or infinity among their inputs"
        yield error("inputs-not-finite", problem, why, "remove these examples, or fill in the missing values")
        return
    problem = f"the outputs of {_nonfinite_rows(outputs)} of {len(outputs)} examples are NaN or infinite"
    problem += ", though the inputs are finite" if isinstance(inputs, Tensor) else ""
    fix = "look for a division by 0, a log or sqrt of 0, or weights that were not initialised"
    yield error("outputs-not-finite", problem, why, fix)


def _nonfinite_rows(tensor: Tensor) -> int:
    """Return the number of rows that contain NaN or infinity."""
    return int((~tensor.isfinite()).reshape(len(tensor), -1).any(1).sum())


def unnormalised_inputs(setup: Setup) -> Iterator[Finding]:
    """Find inputs that are too large for usual initialisations, where they enter the first layer with weights."""
    if setup.layers.first is None:
        return
    layer, inputs = setup.layers.first
    if not inputs.is_floating_point() or "Norm" in type(layer).__name__ or not inputs.isfinite().all():
        return
    size = inputs.float().square().mean().sqrt().item()
    if size <= _LARGE:
        return
    low, high = inputs.min().item(), inputs.max().item()
    problem = f"the first layer with weights has inputs from {low:.4g} to {high:.4g} (root mean square {size:.4g})"
    why = "initialisations expect a root mean square near 1: larger inputs make training diverge, or slow it down"
    fix = "standardise each input: subtract its mean over the training set and divide by its standard deviation"
    if inputs.ndim > 3 and low >= 0 and 100 < high <= 255:
        fix = "these look like bytes: divide by 255, subtract each channel's mean and divide by its standard deviation"
    yield warning("inputs-not-normalised", problem, why, fix)


def nonfinite_targets(setup: Setup) -> Iterator[Finding]:
    """Find NaN or infinity among the targets, unless the loss is finite for them."""
    target = setup.all_targets
    if not target.isfinite().all() and not setup.accepts_all_targets:
        problem = f"{_nonfinite_rows(target)} of {len(target)} targets are NaN or infinite"
        why = "one such value makes the loss, its gradient and, with the first step, all weights NaN"
        fix = "remove these examples (losslab encodes a class index outside 0..C-1 as NaN)"
        yield error("targets-not-finite", problem, why, fix)


def wrong_class_indices(setup: Setup) -> Iterator[Finding]:
    """Find class indices of the wrong dtype or shape, or out of range."""
    target, outputs = setup.all_targets, setup.outputs
    if not setup.takes_indices or outputs.shape[1] < 2:
        return
    index_shape, integers = outputs.shape[:1] + outputs.shape[2:], not target.is_floating_point()
    has_columns = target.shape[1:] == outputs.shape[1:] and target.ndim > 1
    if has_columns and (integers or setup.takes_only_indices):
        problem = f"the targets {tuple(target.shape)} are one-hot rows of {dtype_name(target.dtype)}"
        name, why = "one-hot-for-indices", "this loss takes class indices of shape (N,), not rows of floats"
        if integers:
            name, why = "one-hot-integers", "integers are read as class indices, one per example, not as rows"
        yield error(name, problem, why, "use target.argmax(1)")
    elif target.ndim == 2 and target.shape[1] == 1 and len(index_shape) == 1:
        problem = f"the class indices are a column, {tuple(target.shape)}"
        yield error("index-column", problem, "the loss takes class indices of shape (N,)", "use target.squeeze(1)")
    elif target.shape[1:] == index_shape[1:] and not integers:
        why = "class indices are integers; floats can only be read as probabilities, one row per example"
        yield error("index-float", f"class indices of {dtype_name(target.dtype)}", why, "use target.long()")
    elif integers and target.dtype != torch.int64 and not setup.accepts_all_targets:
        why = "torch takes class indices only as int64"
        yield error("index-dtype", f"class indices of {dtype_name(target.dtype)}", why, "use target.long()")
    elif integers and setup.counted_targets.numel():
        low, high, classes = int(setup.counted_targets.min()), int(setup.counted_targets.max()), outputs.shape[1]
        if (low >= 0 and high < classes) or setup.accepts_all_targets:
            return
        problem = f"class indices from {low} to {high} for {classes} outputs"
        why = f"the first class is 0: {classes} outputs belong to the classes 0 to {classes - 1}"
        yield error("index-out-of-range", problem, why, _fix_of_indices(low, high, setup))


def _fix_of_indices(low: int, high: int, setup: Setup) -> str:
    """Return how to correct class indices that are from `low` to `high`, of which some are out of range."""
    classes = setup.outputs.shape[1]
    if low < 0:
        return f"set ignore_index={low} if {low} means 'no label'"
    if (low, high) == (1, classes):
        return "subtract 1 from the labels"
    outside = setup.counted_targets[setup.counted_targets >= classes].unique()
    marks = high > classes and len(outside) == 1
    return f"give the network {high + 1} outputs" + f", or set ignore_index={high} if it means 'no label'" * marks


def single_output(setup: Setup) -> Iterator[Finding]:
    """Find a single output per example, for a loss that compares the outputs of classes."""
    one = setup.outputs.ndim == 1 or setup.outputs.shape[1] == 1
    if setup.output_kind in {OutputKind.LOGITS, OutputKind.SCORES} and one:
        problem = f"one output per example, {tuple(setup.outputs.shape)}, for a loss that compares outputs of classes"
        why = "a single output has nothing to be compared with (its softmax is 1): the network learns nothing"
        fix = "use binary cross-entropy on logits with 0/1 targets of the same shape, or give the network two outputs"
        yield error("one-logit", problem, why, fix)


def wrong_soft_targets(setup: Setup) -> Iterator[Finding]:
    """Find rows of soft targets that are not probabilities."""
    target, kl_div = setup.all_targets, setup.torch_class is nn.KLDivLoss
    if setup.output_kind is not OutputKind.LOGITS and not kl_div:
        return
    columns = target.is_floating_point() and target.ndim > 1 and target.shape[1:] == setup.outputs.shape[1:]
    if not columns or target.shape[1] < 2 or not target.isfinite().all():
        return
    logarithms = kl_div and bool(setting(setup.loss, "log_target", default=False))
    swapped = _swapped_logarithms(target, logarithms=logarithms) if kl_div else None
    if swapped is not None:
        why = "the loss confuses probabilities and their logarithms: its value is meaningless"
        yield error("kl-targets", swapped[0], why, swapped[1])
        return
    target = target.exp() if logarithms else target
    fix = "divide each row by its sum; for labels that do not exclude each other use binary cross-entropy"
    if (target < 0).any():
        problem = f"soft targets down to {target.min():.4g}"
        fix = "give probabilities (softmax of logits, exp of log-probabilities), or use a loss for values (MSE, L1)"
        yield error("targets-negative", problem, "a probability is never negative", fix)
        return
    sums = target.sum(1).flatten()
    wrong = (sums - 1).abs() > 1e-2
    if wrong.any():
        make = error if wrong.all() else warning
        problem = (
            f"{wrong.sum()} of {len(sums)} rows of soft targets do not sum to 1 ({sums.min():.4g} to {sums.max():.4g})"
        )
        why = "the probabilities of a softmax sum to 1 and cannot reach them; an example is weighted by its row's sum"
        yield make("targets-not-probabilities", problem, why, fix)


def _swapped_logarithms(target: Tensor, *, logarithms: bool) -> tuple[str, str] | None:
    """Return the problem and its fix if log_target of KLDivLoss does not fit the targets, otherwise None."""
    if not logarithms and bool((target <= 0).all()) and bool((target.exp().sum(1) - 1).abs().max() < 1e-2):
        return "the targets are log-probabilities", "set log_target=True, or give target.exp()"
    if logarithms and bool((target >= 0).all()):
        return "log_target=True, but the targets are not negative", "set log_target=False, or give target.log()"
    return None


def labels_outside_0_1(setup: Setup) -> Iterator[Finding]:
    """Find targets outside of [0, 1] for binary cross-entropy, such as -1 and 1."""
    target = setup.all_targets
    binary = setup.output_kind in {OutputKind.BINARY_LOGITS, OutputKind.PROBABILITIES}
    if not binary or not target.isfinite().all():
        return
    low, high = float(target.min()), float(target.max())
    if target.shape[1:] != setup.outputs.shape[1:] or (low >= 0 and high <= 1):
        return
    why = "binary cross-entropy reads a target as the probability of class 1"
    if _are_signs(target):
        why += ": for a target of -1 it has no lower bound"
        yield error("plus-minus-one-targets", "the targets are -1 and 1", why, "use (target + 1) / 2, which is 0 and 1")
        return
    fix = "use labels of 0 and 1 or probabilities (of percentages, a hundredth), or a loss for values (MSE, L1, Huber)"
    yield error("labels-outside-0-1", f"targets from {low:.4g} to {high:.4g}", why, fix)


def unsigned_labels(setup: Setup) -> Iterator[Finding]:
    """Find targets other than -1 and 1, for a loss that takes signs."""
    target = setup.all_targets
    if setup.output_kind is OutputKind.SIGNED_SCORES and not _are_signs(target):
        problem = f"targets from {float(target.min()):.4g} to {float(target.max()):.4g}"
        why = "this loss multiplies the output by a target of -1 or 1: examples with target 0 have zero gradient"
        yield error("zero-one-targets", problem, why, "use 2 * target - 1, which is -1 and 1")


def _are_signs(target: Tensor) -> bool:
    return bool(((target == -1) | (target == 1)).all())


def negative_counts(setup: Setup) -> Iterator[Finding]:
    """Find negative targets or rates, for the Poisson likelihood."""
    if setup.torch_class is not nn.PoissonNLLLoss:
        return
    if (setup.all_targets < 0).any():
        problem = f"targets down to {float(setup.all_targets.min()):.4g}"
        fix = "use counts that are not standardised, or another loss"
        yield error("counts-negative", problem, "a count is never negative", fix)
    if setup.output_kind is OutputKind.VALUES and (setup.outputs < 0).any():
        problem = f"outputs down to {float(setup.outputs.min()):.4g}, read as rates (log_input=False)"
        fix = "use log_input=True, so that outputs are logarithms of rates, or end the network in Softplus"
        yield error("rates-negative", problem, "a rate is never negative, and the loss takes its logarithm", fix)


def all_ignored(setup: Setup) -> Iterator[Finding]:
    """Find a batch in which every target is ignored, or in which every class has weight 0."""
    if not setup.takes_indices or setup.all_targets.is_floating_point() or not setup.all_targets.numel():
        return
    ignored, target = setup.ignore_index, setup.counted_targets
    if not target.numel():
        fix = f"set ignore_index (now {ignored}) to a number that is not a class, or correct the labels"
        why = "the mean over zero examples is NaN, and so are all weights after one step"
        yield error("all-ignored", f"every target of the batch is {ignored}, which is ignored", why, fix)
        return
    weight = setting(setup.loss, "weight")
    fits = isinstance(weight, Tensor) and len(weight) == setup.outputs.shape[1]
    if fits and not weight.cpu()[target.cpu()].any():
        why = "the weighted mean divides by the sum of the weights, which is 0: the loss is NaN"
        yield error("all-ignored", "all classes in the batch have weight 0", why, "give them a weight above 0")


def missing_classes(setup: Setup) -> Iterator[Finding]:
    """Find far fewer classes than outputs, in a batch that is too large for this to be chance."""
    if not setup.takes_indices or setup.all_targets.is_floating_point() or setup.all_targets.ndim != 1:
        return
    outputs, count, classes = setup.outputs.shape[1], setup.counted_targets.numel(), len(setup.counted_targets.unique())
    few = outputs > 3 and outputs >= 2 * classes and count >= 64 * classes
    # Among 100 C examples, the average class has 100. Only a class that is 30 times rarer can be missing by chance.
    missing = classes < outputs and count >= 100 * outputs
    if classes and (few or missing):
        problem = f"{classes} class{'es' * (classes > 1)} in {count} examples, and {outputs} outputs"
        why = "either the network has outputs for classes that do not exist, or the data are sorted, not shuffled"
        fix = f"shuffle the training data, or give the network {classes} outputs"
        yield warning("classes-missing", problem, why, fix)


_EXPLOSIVE = 1e3
"""A mean square of targets. Well above it (at 60²), small MLPs were seen to diverge or stall with SGD at rate 0.01."""


def unscaled_values(setup: Setup) -> Iterator[Finding]:
    """Find targets so large that the gradients of a squared error explode."""
    target = setup.all_targets
    if setup.output_kind is not OutputKind.VALUES or not target.isfinite().all() or not target.numel():
        return
    mean, std = target.double().mean().item(), target.double().std(correction=0).item()
    expected = mean**2 + std**2
    # For a linear model, the largest stable learning rate does not depend on the targets.
    if expected < _EXPLOSIVE or setup.linear_layer is not None or not _is_squared(setup):
        return
    problem = f"targets of mean {mean:.4g} and standard deviation {std:.4g}, for a squared error"
    why = (
        f"the loss of predictions near 0 is mean² + std² = {expected:.4g}, and gradients grow with the error: usual "
        "learning rates overshoot until the weights are infinite"
    )
    fix = "subtract the mean of the training targets and divide by their standard deviation; undo this in predictions"
    yield warning("targets-not-standardised", problem, why, fix)


def _is_squared(setup: Setup) -> bool:
    """Return whether the loss of outputs 0 is about four times as large for doubled targets, like a squared error."""
    target = setup.target.to(setup.outputs.dtype)
    if target.shape != setup.outputs.shape and not (isinstance(setup.loss, Loss) and target.ndim == setup.outputs.ndim):
        return False
    near, far = (setup.loss(setup.outputs.detach() * 0, factor * target) for factor in (1, 2))
    return isinstance(near, Tensor) and bool((far > 3.5 * near).all())


_ELEMENTWISE = {
    OutputKind.VALUES, OutputKind.LOG_VALUES, OutputKind.BINARY_LOGITS, OutputKind.PROBABILITIES,
    OutputKind.SIGNED_SCORES,
}  # fmt: skip


def mismatched_shapes(setup: Setup) -> Iterator[Finding]:
    """Find outputs and targets of different shapes, such as (N, 1) and (N,), for a loss that compares elements."""
    kind, target = setup.output_kind, setup.target
    if target.shape == setup.outputs.shape:
        return
    if kind is OutputKind.BINARY_LOGITS and not target.is_floating_point() and target.ndim == 1:
        return  # class indices, for a loss that converts them to columns
    per_target = setup.loss.outputs_per_target if isinstance(setup.loss, Loss) else 1
    elementwise = is_known(setup.loss) and kind in _ELEMENTWISE and per_target == 1
    if not elementwise and not _broadcasts(setup):
        return
    shape = tuple(setup.outputs.shape)
    try:
        common = tuple(torch.broadcast_shapes(shape, target.shape))
    except RuntimeError:
        why = "the loss compares each output with its own target, but the shapes do not match"
        outputs = target.shape[1] if target.ndim > 1 else 1
        fix = f"give the network {outputs} output(s) per example, or reshape the target"
    else:
        all_pairs = torch.Size(common).numel() == setup.outputs.numel() * target.numel()
        compared = "every output is compared with every target, which trains towards their mean"
        compared = compared if all_pairs else "outputs or targets are repeated, and not compared one to one"
        why = f"they broadcast to {common}: {compared}"
        same_size = setup.outputs.numel() == target.numel()
        fix = "reshape the target: target.view_as(outputs)" if same_size else f"give the target the shape {shape}"
    yield error("shapes-broadcast", f"the outputs are {shape} and the targets {tuple(target.shape)}", why, fix)


def _broadcasts(setup: Setup) -> bool:
    """Return whether a loss of unknown kind has the same value for shuffled targets, as if it compared all pairs."""
    target = setup.target
    if is_known(setup.loss) or setup.outputs.numel() != target.numel() or not target.is_floating_point():
        return False
    random = torch.Generator().manual_seed(0)
    outputs = torch.randn(setup.outputs.shape, generator=random).to(setup.outputs) * target.std() + target.mean()
    shuffled = target[torch.randperm(len(target), generator=random)]
    with torch.no_grad():
        try:
            value, other = setup.loss(outputs, target), setup.loss(outputs, shuffled)
        except Exception:  # noqa: BLE001 -- foreign code may raise anything
            return False
    changed = not torch.equal(target, shuffled)
    return changed and isinstance(value, Tensor) and torch.allclose(value.mean(), other.mean(), rtol=1e-5)

"""Class indices and probabilities that the loss would refuse, or silently take for something else."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from losslab.doctor.case import Case
from losslab.doctor.finding import Finding, error, warning
from losslab.doctor.reads import is_a, setting
from losslab.doctor.trial import Reads
from losslab.losses.base import Loss

_OF_CLASSES = {Reads.LOGITS, Reads.SCORES}


def finite(case: Case) -> Iterator[Finding]:
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

"""What the outputs of a network mean under a criterion that does not say: read off its values and gradients."""

from enum import StrEnum

import torch
from torch import Tensor, nn

from losslab.losses.adapter.probe import Criterion, Probe
from losslab.targets import Kind, encode


class OutputKind(StrEnum):
    """What the outputs stand for, so that metrics can read them."""

    LOGITS = "logits"
    """Of exclusive classes: p = softmax(z)."""
    SIGMOIDS = "sigmoids"
    """Logits of labels each by itself: p = σ(z)."""
    LOGARITHMS = "logarithms"
    """Of probabilities, or of the value to regress: p = exp(z)."""
    ESTIMATES = "estimates"
    """The probabilities or values themselves."""
    OTHER = "other"
    """Nothing that can be compared with the target: embeddings, of which only distances matter, for instance."""

    def probabilities(self, outputs: Tensor) -> Tensor:
        """(N, C) → (N, C)."""
        match self:
            case OutputKind.SIGMOIDS:
                return torch.sigmoid(outputs)
            case OutputKind.LOGARITHMS:
                return torch.exp(outputs)
            case OutputKind.ESTIMATES:  # as losslab's own losses of estimates: so that a logarithm can be taken
                return outputs.clamp(torch.finfo(torch.float32).eps, 1.0)
            case _:
                return torch.softmax(outputs, dim=1)


def classifier(criterion: Criterion, width: int, classes: int) -> str | None:
    """The name of the part that turns embeddings (N, width) into class logits (N, C), where a criterion has one.

    `get_logits` of pytorch-metric-learning's losses, or the one torch.nn.Linear inside a criterion.
    """
    if callable(getattr(criterion, "get_logits", None)):
        return "get_logits"
    children = criterion.named_children() if isinstance(criterion, nn.Module) else ()
    heads = [name for name, child in children if _maps(child, width, classes)]
    return heads[0] if len(heads) == 1 else None


def meaning(probe: Probe) -> OutputKind:
    """What the outputs mean, judged by the loss alone.

    A loss that is linear in the outputs wants log-probabilities; one that is least where the outputs are the target
    wants the target; one whose gradient in a column does not depend on the other columns judges each by itself.
    """
    if probe.call.kind is Kind.VALUES:
        return _meaning_of_values(probe)
    if probe.call.width != probe.targets or _only_tells_apart(probe):
        return OutputKind.OTHER
    if _least_at_target(probe):
        return OutputKind.ESTIMATES
    if _linear(probe):
        return OutputKind.LOGARITHMS
    labels = probe.call.kind is Kind.BINARY and not probe.call.integers
    return OutputKind.SIGMOIDS if labels or probe.targets == 1 or _separable(probe) else OutputKind.LOGITS


def _maps(child: nn.Module, width: int, classes: int) -> bool:
    return isinstance(child, nn.Linear) and (child.in_features, child.out_features) == (width, classes)


def _meaning_of_values(probe: Probe) -> OutputKind:
    """Whether the loss is least where the outputs are the target, or its logarithm as under a Poisson log-rate."""
    target = probe.batches[0][1]  # positive
    for meaning_, best in ((OutputKind.ESTIMATES, target), (OutputKind.LOGARITHMS, target.log())):
        if _less(probe, best, [best + shift for shift in (-3.0, -1.0, 1.0, 3.0)], target):
            return meaning_
    return OutputKind.OTHER


def _only_tells_apart(probe: Probe) -> bool:
    """Whether classes are only told apart: the loss is the same when all classes change their names."""
    if probe.call.kind is not Kind.INDEX:
        return False
    renamed = [(outputs, (target + 1) % probe.targets) for outputs, target in probe.batches]
    pairs = zip(probe.batches, renamed, strict=True)
    return all(torch.allclose(probe.value(*one), probe.value(*other)) for one, other in pairs)


def _linear(probe: Probe) -> bool:
    first, *others = [probe.gradient(*batch) for batch in probe.batches]
    return all(torch.equal(first, other) for other in others)


def _least_at_target(probe: Probe) -> bool:
    """Whether no other outputs do as well as the target itself, written as columns."""
    target = probe.batches[0][1]
    columns = (
        encode(target, Kind.INDEX, Kind.PROBABILITIES, probe.targets, torch.float32) if target.ndim == 1 else target
    )
    others = [columns / 2, 2 * columns, 10 * columns - 5, *(outputs for outputs, _ in probe.batches)]
    return _less(probe, columns, others, target)


def _less(probe: Probe, best: Tensor, others: list[Tensor], target: Tensor) -> bool:
    """Whether the loss of one batch of outputs is less than that of each of the others, by more than rounding."""
    least = _value_or_infinity(probe, best, target)
    return all(least + 1e-5 * least.abs() < _value_or_infinity(probe, outputs, target) for outputs in others)


def _separable(probe: Probe) -> bool:
    """Whether the gradient in the other columns stays what it is when the first column changes."""
    outputs, target = probe.batches[0]
    moved = outputs.clone()
    moved[:, 0] = probe.batches[1][0][:, 0]
    return torch.allclose(probe.gradient(outputs, target)[:, 1:], probe.gradient(moved, target)[:, 1:])


def _value_or_infinity(probe: Probe, outputs: Tensor, target: Tensor) -> Tensor:
    """The loss; infinite where the criterion does not take these outputs."""
    try:
        return probe.value(outputs, target).nan_to_num(torch.inf)
    except Exception:  # noqa: BLE001 -- whatever a stranger's code raises is its answer
        return torch.tensor(torch.inf)

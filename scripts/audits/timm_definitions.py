"""timm: misuse that is accepted, and differences from the papers."""

from functools import partial

import timm.loss
import torch

from audits.finding import Evidence, Severity, finding
from audits.measure import margins, say, value_and_gradient


@finding(
    "timm.loss.AsymmetricLossSingleLabel",
    claim="reduction is an argument of the constructor and of the call",
    source="the signature",
    severity=Severity.MISUSE,
    losslab="no reduction argument: per_example returns (N,), and forward returns the mean",
)
def reduction_is_ignored() -> Evidence:
    """The reduction of the call is ignored, and reduction='sum' of the constructor returns unreduced losses."""
    logits, target = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
    per_call = timm.loss.AsymmetricLossSingleLabel()(logits, target, reduction="none")
    summed = timm.loss.AsymmetricLossSingleLabel(reduction="sum")(logits, target)
    seen = f"4 examples: shape {tuple(per_call.shape)} with 'none' in the call, {tuple(summed.shape)} with 'sum'"
    return Evidence(seen, holds=per_call.ndim == 0 or summed.ndim == 1)


@finding(
    "timm.loss.BinaryCrossEntropy",
    claim="index targets are one-hot encoded; targets with the shape of the logits are used as they are",
    source="timm documentation",
    severity=Severity.MISUSE,
    losslab="bce refuses targets of another shape; encode converts indices to columns explicitly",
)
def labels_as_indices() -> Evidence:
    """With logits (N, 1) and labels (N,), label 0 is taken as the index of the only class and trained as positive."""
    loss = timm.loss.BinaryCrossEntropy(smoothing=0.0)
    value, gradient = value_and_gradient(lambda z: loss(z, torch.zeros(2).long()), [[-9.0], [-9.0]])
    seen = f"labels 0, z = -9 (correct): value {say(value)}, gradient {say(gradient)}, towards 1 (label 1 raises)"
    return Evidence(seen, holds=float(value) > 1)


@finding(
    "timm.loss.LabelSmoothingCrossEntropy",
    claim="smoothing is a share of the probability of the target, 0 ≤ smoothing ≤ 1",
    source="Szegedy et al., Rethinking the Inception architecture, 2016",
    severity=Severity.MISUSE,
    losslab="label_smoothing outside [0, 1] is an error, as in torch",
)
def negative_smoothing() -> Evidence:
    """A negative smoothing is accepted silently and makes the loss unbounded below."""
    loss = timm.loss.LabelSmoothingCrossEntropy(smoothing=-0.5)
    value, _ = value_and_gradient(lambda z: loss(z, torch.zeros(1).long()), margins([100.0]))
    return Evidence(f"smoothing -0.5, margin 100: {say(value)}", holds=float(value) < 0)


@finding(
    "timm.loss.JsdCrossEntropy",
    claim="cross-entropy of the clean split + 12 JSD",
    source="Hendrycks et al., AugMix, 2020, and its official imagenet.py: F.cross_entropy without smoothing",
    severity=Severity.DIFFERS,
    losslab="label smoothing is 0 by default",
)
def smoothed_by_default() -> Evidence:
    """By default the labels of the clean split are smoothed by 0.1; the paper and its code do not smooth them."""
    target = torch.zeros(3).long()
    default, plain = (
        value_and_gradient(partial(loss, target=target), margins([8.0] * 3, 10))[0]
        for loss in (timm.loss.JsdCrossEntropy(), timm.loss.JsdCrossEntropy(smoothing=0))
    )
    seen = f"three equal splits, 10 classes, margin 8: {say(default)} by default; {say(plain)} as in the paper"
    return Evidence(seen, holds=abs(float(default - plain)) > 1e-3)


@finding(
    "timm.loss.JsdCrossEntropy",
    claim="12 times a divergence; a divergence is at least 0, and 0 for equal distributions",
    source="Lin, Divergence measures based on the Shannon entropy, 1991 (AugMix's code clamps as well)",
    severity=Severity.WRONG_VALUE,
    losslab="js is at least 0, because its mixture is not clamped",
)
def negative_divergence() -> Evidence:
    """The mixture is clamped at 1e-7, so with many improbable classes the divergence of equal splits is negative."""
    loss = timm.loss.JsdCrossEntropy(num_splits=3, smoothing=0)
    logits = torch.tensor(margins([17.0] * 3, 1000), dtype=torch.float64)
    target = torch.zeros(3).long()
    divergence = loss(logits, target) - torch.nn.functional.cross_entropy(logits[:1], target[:1])
    return Evidence(f"three equal splits, 1,000 classes, margin 17: {say(divergence)}", holds=float(divergence) < -1e-6)


@finding(
    "timm.loss.JsdCrossEntropy",
    claim="calling an nn.Module runs its hooks and its forward",
    source="torch documentation of nn.Module",
    severity=Severity.DIFFERS,
    losslab="every loss defines forward",
)
def hooks_do_not_run() -> Evidence:
    """The class overrides __call__ instead of forward, so hooks are silently not run, and forward is missing."""
    calls: list[int] = []
    loss = timm.loss.JsdCrossEntropy()
    loss.register_forward_hook(lambda *_: calls.append(1))
    loss(torch.zeros(3, 2), torch.zeros(3).long())
    return Evidence(f"one call, {len(calls)} hooks run", holds=not calls)


@finding(
    "timm.loss.BinaryCrossEntropy",
    claim="label smoothing of independent binary targets moves each target towards 0.5",
    source="timm's smooth_dense, PolyBinaryCrossEntropy and AsymmetricLossMultiLabel do this",
    severity=Severity.DIFFERS,
    losslab="bce has no smoothing argument; it accepts smoothed targets",
)
def smoothing_of_indices() -> Evidence:
    """Index targets are smoothed as one distribution over C classes, although each logit has its own binary target."""
    loss = timm.loss.BinaryCrossEntropy(smoothing=0.1, reduction="sum")
    _, gradient = value_and_gradient(lambda z: loss(z, torch.zeros(1).long()), torch.zeros(1, 4))
    seen = f"4 classes, smoothing 0.1: the targets are {say(0.5 - gradient)}, not 0.95, 0.05, 0.05, 0.05"
    return Evidence(seen, holds=abs(float(gradient[0, 1]) - 0.45) > 1e-3)


FINDINGS = (
    labels_as_indices,
    reduction_is_ignored,
    smoothed_by_default,
    negative_divergence,
    negative_smoothing,
    smoothing_of_indices,
    hooks_do_not_run,
)

"""kornia: segmentation losses and robust losses."""

from functools import partial

import torch
import torch.nn.functional as F
from kornia import losses

from audits.finding import Evidence, Severity, finding
from audits.measure import focal, margins, precision, say, value_and_gradient

_FOCAL = "Lin et al., Focal loss for dense object detection, 2017"


@finding(
    "kornia.losses.focal_loss",
    claim="-(1 - p)^γ log p",
    source=_FOCAL,
    severity=Severity.WRONG_VALUE,
    losslab="focal converts half precision to float32, computes log(1 - p) exactly and takes log p from log_softmax",
)
def focal_cancels() -> Evidence:
    """1 - p is a subtraction in the dtype of the input: in bfloat16, the loss at a margin of 6 (p = 0.998) is 0."""
    parts, label = [], torch.tensor([0])
    for dtype, margin, gamma in (
        (torch.bfloat16, 5.0, 2.0),
        (torch.bfloat16, 6.0, 0.5),
        (torch.float32, 15.0, 2.0),
    ):
        value, _ = value_and_gradient(
            partial(losses.focal_loss, target=label, alpha=None, gamma=gamma, reduction="sum"), margins([margin]), dtype
        )
        at = f"{precision(dtype)} margin {margin:g} γ {gamma:g}"
        parts.append((at, float(value), focal(margin, gamma)))
    seen = "; ".join(f"{at}: {say(got)}, exactly {say(exact)}" for at, got, exact in parts)
    return Evidence(seen, holds=any(abs(got / exact - 1) > 0.1 for _, got, exact in parts))


@finding(
    "kornia.losses.focal_loss",
    claim="the mean over the examples; for γ = 0 this is cross-entropy",
    source=f"{_FOCAL}; kornia documents the division by C",
    severity=Severity.DIFFERS,
    losslab="focal(gamma=0) equals cross_entropy",
    documented=True,
)
def mean_over_classes() -> Evidence:
    """reduction='mean' also divides by C, although C - 1 of the terms of an example are 0: it is C times too small."""
    logits, target = torch.zeros(4, 10), torch.arange(4)
    value = losses.focal_loss(logits, target, alpha=None, gamma=0.0, reduction="mean")
    exact = F.cross_entropy(logits, target)
    return Evidence(
        f"γ = 0, 10 classes: {say(value)}; cross-entropy {say(exact)}", holds=float(value) < float(exact) / 2
    )


@finding(
    "kornia.losses.focal_loss",
    claim="α balances foreground and background, in a loss with one sigmoid per class",
    source=f"{_FOCAL}; kornia documents that class 0 is the background",
    severity=Severity.DIFFERS,
    losslab="focal, which has a softmax, has no α; cross_entropy has class weights, and sigmoid_focal has α",
    documented=True,
)
def alpha_of_class_zero() -> Evidence:
    """α is required. It weights class 0 by 1 - α and others by α, so renumbering the classes changes the loss."""
    first, second = (
        losses.focal_loss(torch.zeros(1, 3), torch.tensor([label]), alpha=0.25, gamma=0.0, reduction="sum")
        for label in (0, 1)
    )
    seen = f"α = 0.25, equal logits: {say(first)} for label 0, {say(second)} for label 1"
    return Evidence(seen, holds=abs(float(first - second)) > 1e-3)


@finding(
    "kornia.losses.lovasz_hinge_loss",
    claim="the loss is at least 0; -100 is the label that the other losses of the library ignore",
    source="Berman et al., The Lovász-Softmax loss, 2018; kornia documents that targets are not validated",
    severity=Severity.MISUSE,
    losslab="not in the catalog; the doctor detects binary targets other than 0 and 1",
    documented=True,
)
def ignored_label_counts() -> Evidence:
    """A pixel with label -100 is not ignored: it dominates the loss, or makes it negative."""
    target = torch.tensor([[[1, -100]]])
    large, negative = (losses.lovasz_hinge_loss(torch.tensor([[[[-2.0, logit]]]]), target) for logit in (2.0, -2.0))
    alone = losses.lovasz_hinge_loss(torch.tensor([[[[-2.0]]]]), target[..., :1])
    seen = f"logits (-2, ±2), labels (1, -100): {say(large)} and {say(negative)}; without that pixel {say(alone)}"
    return Evidence(seen, holds=float(large) != float(alone))


@finding(
    "kornia.losses.kl_div_loss_2d",
    claim="a divergence, which is at least 0",
    source="Kullback & Leibler 1951; kornia documents that nothing is normalised",
    severity=Severity.MISUSE,
    losslab="kl_div takes logits, so its p is normalised; the doctor checks the rows of the target",
    documented=True,
)
def heatmaps_of_any_sum() -> Evidence:
    """Heatmaps that do not sum to 1 are accepted silently and give a negative divergence."""
    target = torch.full((1, 1, 2, 2), 0.25)
    value = losses.kl_div_loss_2d(2 * target, target)
    return Evidence(f"a prediction of twice the target: {say(value)}", holds=float(value) < 0)


@finding(
    "kornia.losses.geman_mcclure_loss",
    claim="2 r²/(r² + 4), bounded by 2; the Cauchy loss at r = 1e20 is 91.4",
    source="Barron, A general and adaptive robust loss function, 2019",
    severity=Severity.NOT_FINITE,
    losslab="geman_mcclure, cauchy and charbonnier are finite whenever the exact value is representable",
)
def residual_overflows() -> Evidence:
    """The residual is squared first: from 2e19 on, the bounded loss is NaN and cauchy_loss is infinite."""
    found = {}
    for name in ("geman_mcclure", "cauchy", "charbonnier"):
        loss = getattr(losses, f"{name}_loss")
        found[name] = value_and_gradient(partial(loss, img2=torch.zeros(1)), [1e20])
    values = "; ".join(f"{name} {say(value)}, gradient {say(gradient)}" for name, (value, gradient) in found.items())
    return Evidence(f"r = 1e20: {values}", holds=not bool(found["geman_mcclure"][0].isfinite().all()))


FINDINGS = (
    focal_cancels,
    mean_over_classes,
    alpha_of_class_zero,
    ignored_label_counts,
    heatmaps_of_any_sum,
    residual_overflows,
)

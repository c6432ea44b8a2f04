"""timm: values and gradients that are wrong because of floating-point arithmetic or a clamp."""

from functools import partial

import timm.loss
import torch
from torch import Tensor

from audits.finding import Evidence, Severity, finding
from audits.measure import margins, precision, say, slope, value_and_gradient

_ASL = "Ridnik et al., Asymmetric loss for multi-label classification, 2021"


@finding(
    "timm.loss.AsymmetricLossMultiLabel",
    claim="(1 - p)^γ₊ (-log p) for a positive label; for γ₊ = 0 this is binary cross-entropy, with gradient -1",
    source=f"{_ASL}; timm documents the eps",
    severity=Severity.WRONG_GRADIENT,
    losslab="no loss clamps a probability: bce and sigmoid_focal compute with log σ(z)",
)
def confident_and_wrong() -> Evidence:
    """A clamp at 1e-8: a positive label with a logit below -18.4 has no gradient and is never learned."""
    target = torch.ones(1, 3)
    for_gamma = {}
    for gamma in (1, 0):
        loss = timm.loss.AsymmetricLossMultiLabel(gamma_pos=gamma, gamma_neg=gamma, clip=None, reduction="none")
        for_gamma[gamma] = value_and_gradient(partial(loss, y=target), [[-17.0, -20.0, -30.0]])
    value, gradient = for_gamma[1]
    seen = (
        f"positive label, z = -17, -20, -30: value {say(value)}; gradient {say(gradient)} at γ₊ = 1, the default, "
        f"and {say(for_gamma[0][1])} at γ₊ = 0"
    )
    return Evidence(seen, holds=abs(float(gradient[0, 1])) < 0.5)


@finding(
    "timm.loss.AsymmetricLossMultiLabel",
    claim="p_m^γ₋ (-log(1 - p_m)) with p_m = max(p - 0.05, 0), which is 0 with gradient 0 for p < 0.05",
    source=_ASL,
    severity=Severity.NOT_FINITE,
    losslab="sigmoid_focal is finite for every γ ≥ 0 at every logit",
)
def gradient_below_gamma_one() -> Evidence:
    """For 0 < γ₋ < 1, every easy negative (p < 0.05, so z < -2.94) has a NaN gradient, from the first step on."""
    loss = timm.loss.AsymmetricLossMultiLabel(gamma_neg=0.5, reduction="none")
    value, gradient = value_and_gradient(lambda z: loss(z, torch.zeros(1, 2)), [[-4.0, -1.0]])
    seen = f"γ₋ = 0.5, negative label, z = -4, -1: value {say(value)}; gradient {say(gradient)}"
    return Evidence(seen, holds=bool(gradient.isnan().any()))


@finding(
    "timm.loss.JsdCrossEntropy",
    claim="12 times the Jensen-Shannon divergence of the splits, finite with a finite gradient",
    source="Hendrycks et al., AugMix, 2020 (the authors' code does the same)",
    severity=Severity.NOT_FINITE,
    losslab="js and gjs compute with log-probabilities and are finite for all finite logits",
)
def divergence_of_zero() -> Evidence:
    """If a probability underflows to 0 (logits that differ by 104 in float32, 18 in float16), the gradient is NaN."""
    loss = timm.loss.JsdCrossEntropy(num_splits=3, smoothing=0)
    found = []
    for dtype, margin in ((torch.float32, 90.0), (torch.float32, 110.0), (torch.float16, 18.0)):
        _, gradient = value_and_gradient(lambda z: loss(z, torch.zeros(3).long()), margins([margin] * 3), dtype)
        found.append((f"{margin:g} in {precision(dtype)}", gradient[0]))
    seen = "three equal splits, gradient at a margin of " + "; ".join(f"{at}: {say(it)}" for at, it in found)
    return Evidence(seen, holds=not all(bool(gradient.isfinite().all()) for _, gradient in found))


@finding(
    "timm.loss.PolyBinaryCrossEntropy",
    claim="(1 - p)^γ (-log p) + ε (1 - p)^(γ + 1), whose gradient is 0 at p = 1",
    source="Leng et al., PolyLoss, 2022",
    severity=Severity.NOT_FINITE,
    losslab="poly1 and sigmoid_focal are finite for all finite logits",
)
def poly_below_gamma_one() -> Evidence:
    """For 0 < γ < 1, the gradient of a confident correct example (|z| ≥ 17) is NaN."""
    loss = timm.loss.PolyBinaryCrossEntropy(gamma=0.5, reduction="none")
    value, gradient = value_and_gradient(lambda z: loss(z, torch.ones(1, 2)), [[5.0, 17.0]])
    seen = f"γ = 0.5, positive label, z = 5, 17: value {say(value)}; gradient {say(gradient)}"
    return Evidence(seen, holds=bool(gradient.isnan().any()))


@finding(
    "timm.loss.AsymmetricLossSingleLabel",
    claim="(1 - p)^γ₊ (-log p), whose gradient is 0 at p = 1",
    source=_ASL,
    severity=Severity.NOT_FINITE,
    losslab="focal computes (1 - p)^γ as exp(γ log(1 - p)), which is exact even where p rounds to 1",
)
def single_label_below_gamma_one() -> Evidence:
    """For 0 < γ₊ < 1, the gradient of a confident correct example (margin ≥ 17) is NaN for all classes."""
    loss = timm.loss.AsymmetricLossSingleLabel(gamma_pos=0.5, gamma_neg=0.5, eps=0.0)
    value, gradient = value_and_gradient(lambda z: loss(z, torch.zeros(1).long()), margins([18.0], 3))
    return Evidence(
        f"γ = 0.5, margin 18: value {say(value)}; gradient {say(gradient)}", holds=bool(gradient.isnan().any())
    )


@finding(
    "timm.loss.AsymmetricLossMultiLabel",
    claim="disable_torch_grad_focal_loss: don't backprop through the focusing weights",
    source=f"timm documentation; an option of the authors' code, {_ASL}",
    severity=Severity.WRONG_GRADIENT,
    losslab="no weight is detached: every loss passes gradcheck in float64",
    documented=True,
)
def detached_weights() -> Evidence:
    """With this option, the gradient is not that of the value: training minimises another function than it reports."""
    loss = timm.loss.AsymmetricLossMultiLabel(clip=None, disable_torch_grad_focal_loss=True)

    def positive(logits: Tensor) -> Tensor:
        return torch.as_tensor(loss(logits, torch.ones(1, 1)))

    _, gradient = value_and_gradient(positive, [[-1.0]])
    exact = slope(positive, [[-1.0]], 1e-3)
    seen = f"positive label, z = -1: autograd {say(gradient)}; central differences {say(exact)}"
    return Evidence(seen, holds=bool((gradient - exact).abs().max() > 1e-2))


@finding(
    "timm.loss.PolyCrossEntropy",
    claim="the computation has at least the precision of its input",
    source="torch's own losses, which keep float64",
    severity=Severity.WRONG_VALUE,
    losslab="half precision is converted to float32; float64 is kept",
)
def double_is_lost() -> Evidence:
    """float64 logits are silently converted to float32, so gradcheck through the loss cannot pass."""
    logits = torch.tensor([[0.1, 0.2, 0.7]], dtype=torch.float64)
    value = timm.loss.PolyCrossEntropy(epsilon=0.0)(logits, torch.tensor([0]))
    error = abs(float(value) - float(-logits.log_softmax(1)[0, 0]))
    asymmetric, ones = timm.loss.AsymmetricLossMultiLabel(), torch.ones_like(logits)
    others = (asymmetric, timm.loss.PolyBinaryCrossEntropy(), timm.loss.ZlprLoss(), timm.loss.TwoWayLoss())
    singles = [type(loss).__name__ for loss in others if loss(logits, ones).dtype == torch.float32]
    seen = f"float64 input, {precision(value.dtype)} output, off by {error:.0e}; also {', '.join(singles)}"
    return Evidence(seen, holds=value.dtype != torch.float64)


FINDINGS = (
    confident_and_wrong,
    gradient_below_gamma_one,
    divergence_of_zero,
    poly_below_gamma_one,
    single_label_below_gamma_one,
    detached_weights,
    double_is_lost,
)

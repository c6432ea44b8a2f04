"""torch: wrong or missing gradients, and values that are not finite."""

import torch
import torch.nn.functional as F
from torch import Tensor

from audits.finding import Evidence, Severity, finding
from audits.measure import margins, say, slope, value_and_gradient


@finding(
    "torch.nn.functional.binary_cross_entropy",
    claim="-log(1 - p) with p = σ(z); for z = 17 and target 0 this is 17, with gradient 1",
    source="torch documents that the logarithm is clamped at -100, but not the effect for p = σ(z)",
    severity=Severity.WRONG_GRADIENT,
    losslab="bce takes logits, so its gradient does not vanish",
)
def confident_and_wrong() -> Evidence:
    """For p = σ(z), a confident mistake (z ≥ 17) has a loss of 100 and a gradient of 0, so it is never corrected."""
    value, gradient = value_and_gradient(
        lambda z: F.binary_cross_entropy(z.sigmoid(), torch.zeros_like(z), reduction="none"), [16.0, 17.0, 20.0]
    )
    seen = f"target 0, z = 16, 17, 20 in float32: value {say(value)}; gradient {say(gradient)}"
    return Evidence(seen, holds=bool(value[1] > 99) and float(gradient[1]) == 0)


@finding(
    "torch.nn.functional.soft_margin_loss",
    claim="log(1 + exp(-y z)); for y z = -90 this is 90, with gradient ∓1",
    source="torch documentation",
    severity=Severity.NOT_FINITE,
    losslab="bce on one logit is the same function, computed with a stable log σ",
)
def soft_margin_overflows() -> Evidence:
    """The exponential overflows: a mistake with |z| ≥ 89 (12 in float16) has an infinite loss and a NaN gradient."""
    value, gradient = value_and_gradient(
        lambda z: F.soft_margin_loss(z, torch.ones_like(z), reduction="none"), [-20.0, -90.0]
    )
    half, _ = value_and_gradient(
        lambda z: F.soft_margin_loss(z, torch.ones_like(z), reduction="none"), [-12.0], torch.float16
    )
    seen = f"y = 1, z = -20, -90: value {say(value)}; gradient {say(gradient)}; in float16 at z = -12: {say(half)}"
    return Evidence(seen, holds=not bool(value.isfinite().all() and gradient.isfinite().all()))


@finding(
    "torch.nn.functional.ctc_loss",
    claim="a function of log_probs, differentiable with respect to each input node",
    source="torch documentation (issues 52241, 181534); Graves et al. 2006, equation 16, has the logit gradient",
    severity=Severity.WRONG_GRADIENT,
    losslab="not in the catalog; every loss of the catalog passes gradcheck in float64",
)
def ctc_gradient() -> Evidence:
    """Autograd returns the gradient with respect to the logits before log_softmax, not with respect to log_probs."""
    log_probs = torch.linspace(-1, 1, 12, dtype=torch.float64).sin().view(4, 1, 3).log_softmax(2)

    def loss(given: Tensor) -> Tensor:
        return F.ctc_loss(given, torch.tensor([[1]]), torch.tensor([4]), torch.tensor([1]), reduction="sum")

    _, gradient = value_and_gradient(loss, log_probs, torch.float64)
    exact = slope(loss, log_probs)
    seen = f"float64, first frame: autograd {say(gradient[0])}; central differences {say(exact[0])}"
    return Evidence(seen, holds=bool((gradient - exact).abs().max() > 1e-3))


@finding(
    "torch.nn.functional.kl_div",
    claim="log_target=True only means that the target is given as a logarithm, to avoid numerical issues",
    source="torch documentation; Kullback & Leibler 1951 for 0 log 0 = 0",
    severity=Severity.NOT_FINITE,
    losslab="kl_div takes probabilities and uses 0 log 0 = 0",
)
def log_target_of_zero() -> Evidence:
    """With log_target=True, a target probability of 0 gives NaN; the same target as a probability is finite."""
    target = torch.tensor([[0.5, 0.5, 0.0]])
    log_q = torch.tensor([[0.4, 0.4, 0.2]]).log()
    logs = F.kl_div(log_q, target.log(), log_target=True, reduction="batchmean")
    plain = F.kl_div(log_q, target, reduction="batchmean")
    return Evidence(f"log_target=True: {say(logs)}; as probabilities: {say(plain)}", holds=bool(logs.isnan()))


@finding(
    "torch.nn.functional.cross_entropy",
    claim="a target that equals ignore_index contributes nothing",
    source="torch documentation",
    severity=Severity.NOT_FINITE,
    losslab="also NaN, as a drop-in replacement; the doctor refuses a batch in which every target is ignored",
)
def all_ignored() -> Evidence:
    """If every target of a batch is ignored, the value is NaN (0/0), and so is every mean that includes it."""
    value, gradient = value_and_gradient(lambda z: F.cross_entropy(z, torch.full((2,), -100)), margins([1.0, 2.0]))
    return Evidence(f"value {say(value)}; largest gradient {say(gradient.abs().max())}", holds=bool(value.isnan()))


FINDINGS = (
    confident_and_wrong,
    soft_margin_overflows,
    ctc_gradient,
    log_target_of_zero,
    all_ignored,
)

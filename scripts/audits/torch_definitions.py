"""torch: losses that differ from their name or their paper."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from audits.finding import Evidence, Severity, finding
from audits.measure import say, slope, value_and_gradient


@finding(
    "torch.nn.functional.cross_entropy",
    claim="label_smoothing mixes the target with the uniform distribution; the optimum is this mixture",
    source="Szegedy et al., Rethinking the Inception architecture, 2016; torch documentation (issue 104776)",
    severity=Severity.DIFFERS,
    losslab="cross_entropy equals torch's; the doctor warns about the combination and shows the resulting optimum",
)
def weights_with_smoothing() -> Evidence:
    """Class weights also apply to the smoothed part, so the optimum moves from the true label to the heavy class."""
    plain, weighted = (_optimum(torch.tensor(w, dtype=torch.float64)) for w in ([1.0, 1.0], [1.0, 50.0]))
    seen = (
        f"smoothing 0.1, every label class 0: the optimal p is ({say(plain)}) without weights and ({say(weighted)}) "
        f"with weights (1, 50)"
    )
    return Evidence(seen, holds=float(weighted[1]) > float(plain[1]) + 0.01)


def _optimum(weight: Tensor) -> Tensor:
    """Find the softmax (2,) that minimises the loss of label 0."""
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits, torch.tensor([0]), weight=weight, label_smoothing=0.1)
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)
    return logits.detach().softmax(1).squeeze(0)


@finding(
    "torch.nn.functional.kl_div",
    claim="Σ_k t_k log(t_k / p_k), averaged over the examples",
    source="Kullback & Leibler 1951; torch documentation warns of its own default",
    severity=Severity.DIFFERS,
    losslab="kl_div is averaged over examples, never over elements",
    documented=True,
)
def kl_mean() -> Evidence:
    """The default reduction divides by the number of elements, so the divergence is C times too small."""
    log_q, target = torch.full((4, 100), 0.01).log(), F.one_hot(torch.arange(4), 100).float()
    default, right = F.kl_div(log_q, target), F.kl_div(log_q, target, reduction="batchmean")
    seen = f"100 classes, uniform p, one-hot target: {say(default)} by default; log 100 = {say(right)} with batchmean"
    return Evidence(seen, holds=abs(float(default) - math.log(100)) > 0.1)


@finding(
    "torch.nn.functional.cross_entropy",
    claim="a class index is equivalent to a one-hot distribution",
    source="torch documents both means: division by Σ w_y for indices, and by N for probabilities",
    severity=Severity.DIFFERS,
    losslab="cross_entropy equals torch's in both cases; its example_weight defines the mean",
    documented=True,
)
def weighted_means() -> Evidence:
    """With class weights, an index and the equivalent one-hot target give losses that differ by the mean weight."""
    logits, label, weight = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 0]), torch.tensor([10.0, 1.0])
    index = F.cross_entropy(logits, label, weight=weight)
    soft = F.cross_entropy(logits, F.one_hot(label, 2).float(), weight=weight)
    return Evidence(f"weights (10, 1): index {say(index)}; one-hot {say(soft)}", holds=abs(float(index - soft)) > 0.1)


@finding(
    "torch.nn.functional.poisson_nll_loss",
    claim="full=True adds the terms in log k!, so that exp(-loss) is the Poisson distribution",
    source="definition of the distribution; torch documents Stirling's approximation",
    severity=Severity.WRONG_VALUE,
    losslab="poisson_nll computes log k! = log Γ(k + 1) exactly",
    documented=True,
)
def stirling() -> Evidence:
    """full=True approximates log k! for k > 1, so the probabilities of all counts do not sum to 1."""
    counts = torch.arange(60, dtype=torch.float64)
    loss = F.poisson_nll_loss(torch.full_like(counts, math.log(2)), counts, full=True, reduction="none")
    exact = -torch.distributions.Poisson(torch.tensor(2.0, dtype=torch.float64)).log_prob(counts)
    total = loss.neg().exp().sum()
    seen = f"rate 2, count 2: {say(loss[2])}, exactly {say(exact[2])}; all probabilities sum to {say(total)}"
    return Evidence(seen, holds=abs(float(total) - 1) > 1e-3)


@finding(
    "torch.nn.functional.multi_margin_loss",
    claim="Σ_k max(0, 1 - z_y + z_k) over the wrong classes, or its largest term",
    source="Weston & Watkins 1999; Crammer & Singer 2001; torch documents the division by C",
    severity=Severity.DIFFERS,
    losslab="multi_margin follows torch; its card has the value at uniform logits as a function of K",
    documented=True,
)
def margin_over_classes() -> Evidence:
    """The sum over the wrong classes is divided by C, so it is the hinge loss of neither paper and decreases as 1/C."""
    value = F.multi_margin_loss(torch.zeros(1, 10), torch.tensor([0]))
    seen = f"10 classes, zero logits: {say(value)}; Weston & Watkins 9, Crammer & Singer 1"
    return Evidence(seen, holds=min(abs(float(value) - 9), abs(float(value) - 1)) > 1e-3)


@finding(
    "torch.nn.functional.gaussian_nll_loss",
    claim="eps clamps var for stability; the clamping is ignored with respect to autograd",
    source="torch documentation",
    severity=Severity.WRONG_GRADIENT,
    losslab="gaussian_nll uses the variance softplus(v) + ε of an unconstrained output v, without a clamp",
    documented=True,
)
def variance_under_eps() -> Evidence:
    """Below eps the value does not depend on the variance, but the gradient is that at eps, of order 1/eps²."""

    def loss(var: Tensor) -> Tensor:
        return F.gaussian_nll_loss(torch.zeros_like(var), torch.ones_like(var), var)

    _, gradient = value_and_gradient(loss, [1e-8], torch.float64)
    exact = slope(loss, [1e-8], 1e-9)
    seen = f"residual 1, var 1e-8, ∂loss/∂var: autograd {say(gradient)}; central differences {say(exact)}"
    return Evidence(seen, holds=bool((gradient - exact).abs().max() > 1))


FINDINGS = (
    weights_with_smoothing,
    kl_mean,
    weighted_means,
    variance_under_eps,
    stirling,
    margin_over_classes,
)

"""torch: misuse that is accepted without an error and gives a wrong number."""

import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from audits.finding import Evidence, Severity, finding
from audits.measure import say, value_and_gradient


def _column_against_row(loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, float, int]:
    """Return the loss of outputs (3, 1) against equal targets (3,), the correct value, and the number of warnings."""
    column, row = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1.0, 2.0, 3.0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        broadcast = float(loss(column, row))
    return broadcast, float(loss(column.squeeze(1), row)), len(caught)


@finding(
    "torch.nn.functional.mse_loss",
    claim="the target has the shape of the input",
    source="torch documentation",
    severity=Severity.MISUSE,
    losslab="mse, l1, huber and smooth_l1 refuse shapes that would broadcast, with a message of one line",
)
def mse_broadcasts() -> Evidence:
    """Outputs (N, 1) and targets (N,) are broadcast to (N, N), with only a warning."""
    broadcast, right, warned = _column_against_row(F.mse_loss)
    seen = f"outputs equal to the targets: {say(broadcast)} instead of {say(right)}, {warned} warning"
    return Evidence(seen, holds=broadcast != right)


@finding(
    "torch.nn.functional.gaussian_nll_loss",
    claim="the target has the shape of the input, or broadcasts to it on purpose",
    source="torch documentation",
    severity=Severity.MISUSE,
    losslab="gaussian_nll and poisson_nll refuse shapes that would broadcast",
)
def nll_broadcasts() -> Evidence:
    """gaussian_nll_loss and poisson_nll_loss broadcast outputs (N, 1) and targets (N,) to (N, N), without a warning."""
    gaussian = _column_against_row(lambda z, t: F.gaussian_nll_loss(z, t, 1.0))
    poisson = _column_against_row(F.poisson_nll_loss)
    seen = (
        f"outputs equal to the targets: gaussian {say(gaussian[0])} instead of {say(gaussian[1])}, "
        f"poisson {say(poisson[0])} instead of {say(poisson[1])}; {gaussian[2] + poisson[2]} warnings"
    )
    return Evidence(seen, holds=gaussian[0] != gaussian[1] and gaussian[2] == 0)


@finding(
    "torch.nn.functional.kl_div",
    claim="a divergence, which is at least 0, and 0 for equal distributions",
    source="Kullback & Leibler 1951; torch documents that the input is log-probabilities",
    severity=Severity.MISUSE,
    losslab="kl_div takes logits; the doctor detects probabilities where log-probabilities are expected",
)
def kl_of_probabilities() -> Evidence:
    """Probabilities instead of log-probabilities are accepted silently and give a negative divergence."""
    p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.1, 0.2, 0.7]])
    same, other = (F.kl_div(p, target, reduction="batchmean") for target in (p, q))
    seen = f"kl_div(p, p) = {say(same)}; kl_div(p, q) = {say(other)}"
    return Evidence(seen, holds=float(same) < 0)


@finding(
    "torch.nn.functional.nll_loss",
    claim="a negative log-likelihood, which is at least 0 for classes",
    source="torch documentation: the input is expected to be log-probabilities",
    severity=Severity.MISUSE,
    losslab="cross_entropy takes logits; the doctor detects a softmax in the network",
)
def nll_of_probabilities() -> Evidence:
    """Probabilities instead of log-probabilities are accepted silently: the loss is -p, negative and bounded."""
    value, gradient = value_and_gradient(lambda p: F.nll_loss(p, torch.tensor([0]), reduction="none"), [[0.01, 0.99]])
    exact = -torch.tensor(0.01).log()
    seen = f"p = 0.01 for the label: value {say(value)} instead of {say(exact)}; gradient {say(gradient)}"
    return Evidence(seen, holds=float(value) < 0)


@finding(
    "torch.nn.functional.cross_entropy",
    claim="targets of the input's shape are probabilities of the classes",
    source="torch documentation, which notes that constraints are not strictly enforced",
    severity=Severity.MISUSE,
    losslab="the doctor refuses soft targets whose rows do not sum to 1",
    documented=True,
)
def rows_that_do_not_sum_to_one() -> Evidence:
    """Soft targets whose rows do not sum to 1 are accepted silently: each example is weighted by the sum of its row."""
    target = torch.tensor([[1.5, 0.5]])
    (_, given), (_, right) = (
        value_and_gradient(partial(F.cross_entropy, target=t), [[0.0, 0.0]]) for t in (target, target / 2)
    )
    seen = f"target (1.5, 0.5), uniform p: gradient {say(given)}; with the normalised target {say(right)}"
    return Evidence(seen, holds=not torch.allclose(given, right))


@finding(
    "torch.nn.functional.binary_cross_entropy_with_logits",
    claim="targets are between 0 and 1, and the loss is at least 0",
    source="torch documentation",
    severity=Severity.MISUSE,
    losslab="the doctor detects ±1 targets where 0/1 targets are expected",
)
def bce_of_signs() -> Evidence:
    """Targets of ±1 are accepted silently, and the loss is unbounded below: training diverges to minus infinity."""
    value, gradient = value_and_gradient(
        lambda z: F.binary_cross_entropy_with_logits(z, -torch.ones_like(z), reduction="none"), [-10.0, -1e4]
    )
    seen = f"target -1, z = -10, -10,000: value {say(value)}; gradient {say(gradient)}"
    return Evidence(seen, holds=bool((value < 0).all()))


@finding(
    "torch.nn.functional.soft_margin_loss",
    claim="targets are 1 or -1",
    source="torch documentation",
    severity=Severity.MISUSE,
    losslab="the doctor detects 0/1 targets where ±1 targets are expected",
)
def zeros_for_signs() -> Evidence:
    """Losses for ±1 targets accept 0/1 targets silently: examples of class 0 have no gradient, or no loss at all."""
    value, gradient = value_and_gradient(
        lambda z: F.soft_margin_loss(z, torch.zeros_like(z), reduction="none"), [-5.0, 5.0]
    )
    same = torch.ones(1, 3)
    cosines = torch.stack([F.cosine_embedding_loss(same, same, torch.tensor([label])) for label in (0, -1)])
    seen = (
        f"target 0, z = -5, 5: value {say(value)}, gradient {say(gradient.abs())}; cosine_embedding_loss of equal "
        f"vectors labelled 0 and -1: {say(cosines)}"
    )
    return Evidence(seen, holds=bool((gradient == 0).all()))


FINDINGS = (
    mse_broadcasts,
    nll_broadcasts,
    kl_of_probabilities,
    rows_that_do_not_sum_to_one,
    bce_of_signs,
    zeros_for_signs,
    nll_of_probabilities,
)

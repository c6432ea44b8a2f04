"""Gaussian and Poisson negative log-likelihoods equal torch's and those of the distributions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal, Poisson

from losslab.errors import LabError
from losslab.losses import MSE, GaussianNLL, PoissonNLL

BOTH = torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
T = torch.randn(8, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Z = BOTH[:, :3]
COUNTS = torch.poisson(Z.exp(), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("full", [False, True])
def test_gaussian_equals_torch_with_softplus_variances(full):
    outputs, again = BOTH.clone().requires_grad_(), BOTH.clone().requires_grad_()
    mine = GaussianNLL(full=full)(outputs, T)
    theirs = F.gaussian_nll_loss(again[:, :3], T, F.softplus(again[:, 3:]) + 1e-6, full=full, eps=1e-12)
    torch.testing.assert_close(mine, theirs)
    mine.backward()
    theirs.backward()
    torch.testing.assert_close(outputs.grad, again.grad)


def test_full_gaussian_equals_the_likelihood_of_the_distribution():
    loss = GaussianNLL(full=True)
    normal = Normal(loss.to_predictions(BOTH), loss.variances(BOTH).sqrt())
    torch.testing.assert_close(loss.per_example(BOTH, T), -normal.log_prob(T).mean(1))


def test_gaussian_takes_the_means_first_and_then_the_raw_variances():
    loss = GaussianNLL(eps=0.5)
    outputs = torch.tensor([[1.0, 2.0, 0.0, math.log(math.e - 1)]])
    assert loss.outputs(2) == 4
    assert loss.to_predictions(outputs).tolist() == [[1, 2]]
    torch.testing.assert_close(loss.variances(outputs), torch.tensor([[math.log(2) + 0.5, 1.5]]))


def test_gaussian_with_a_variance_of_1_is_half_the_squared_error():
    raw = math.log(math.expm1(1 - 1e-6))
    outputs = torch.cat([Z, torch.full_like(Z, raw)], 1)
    torch.testing.assert_close(GaussianNLL()(outputs, T), MSE()(Z, T) / 2)


def test_the_best_variance_is_the_mean_squared_residual():
    target = torch.tensor([[-2.0], [0.0], [2.0]], dtype=torch.float64)
    raw = math.log(math.expm1(8 / 3 - 1e-6))
    outputs = torch.tensor([[0.0, raw]] * 3, dtype=torch.float64, requires_grad=True)
    GaussianNLL()(outputs, target).backward()
    torch.testing.assert_close(outputs.grad.sum(0), torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)


def test_a_large_residual_at_a_large_variance_does_not_overflow():
    outputs = torch.tensor([[1e30, 1e30]], requires_grad=True)
    loss = GaussianNLL()(outputs, torch.zeros(1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(0.5e30)
    assert outputs.grad.flatten().tolist() == pytest.approx([1, -0.5])


def test_outputs_without_variances_are_an_error():
    with pytest.raises(LabError, match="must have 2 columns for each column of the target"):
        GaussianNLL()(Z, T)


def test_poisson_equals_torch_by_default():
    outputs, again = Z.clone().requires_grad_(), Z.clone().requires_grad_()
    mine, theirs = PoissonNLL()(outputs, COUNTS), F.poisson_nll_loss(again, COUNTS)
    torch.testing.assert_close(mine, theirs)
    mine.backward()
    theirs.backward()
    torch.testing.assert_close(outputs.grad, again.grad)
    torch.testing.assert_close(outputs.grad, (Z.exp() - COUNTS) / Z.numel())


def test_full_poisson_equals_the_likelihood_of_the_distribution():
    expected = -Poisson(Z.exp()).log_prob(COUNTS).mean(1)
    torch.testing.assert_close(PoissonNLL(full=True).per_example(Z, COUNTS), expected)


@pytest.mark.parametrize(("count", "apart"), [(0, 0), (1, 0), (2, 0.0413), (3, 0.0277), (30, 0.00278)])
def test_full_poisson_of_torch_uses_stirlings_approximation(count, apart):
    z, t = torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), float(count), dtype=torch.float64)
    exact, theirs = PoissonNLL(full=True)(z, t), F.poisson_nll_loss(z, t, full=True)
    assert exact.item() - theirs.item() == pytest.approx(apart, rel=0.01)


def test_predictions_of_poisson_are_rates_and_the_best_is_the_mean_count():
    target = torch.tensor([[0.0], [1.0], [5.0]])
    outputs = torch.full((3, 1), math.log(2.0), requires_grad=True)
    torch.testing.assert_close(PoissonNLL().to_predictions(outputs), torch.full((3, 1), 2.0))
    PoissonNLL()(outputs, target).backward()
    assert outputs.grad.sum().item() == pytest.approx(0, abs=1e-6)


def test_rate_of_poisson_overflows_just_above_the_output_on_its_card():
    card = PoissonNLL().card
    rates = torch.tensor([[card.overflows_at], [card.overflows_at + 1]]).exp()
    assert rates.isfinite().flatten().tolist() == [True, False]

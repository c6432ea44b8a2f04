"""Quantile and expectile: their minima, agreement with scikit-learn's pinball loss, and τ = 1/2."""

import pytest
import torch
from sklearn.metrics import mean_pinball_loss

from losslab.errors import LabError
from losslab.losses import L1, MSE, Expectile, Quantile

Z = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
T = torch.randn(20, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_values_by_hand():
    outputs, target = torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0], [-1.0]])
    torch.testing.assert_close(Quantile(0.9).per_example(outputs, target), torch.tensor([1.8, 0.2]))
    torch.testing.assert_close(Expectile(0.9).per_example(outputs, target), torch.tensor([3.6, 0.4]))


@pytest.mark.parametrize("tau", [0.05, 0.5, 0.9])
def test_quantile_equals_scikit_learns_pinball_loss(tau):
    assert Quantile(tau)(Z, T).item() == pytest.approx(mean_pinball_loss(T.numpy(), Z.numpy(), alpha=tau))


@pytest.mark.parametrize(("half", "whole"), [(Quantile, L1), (Expectile, MSE)])
def test_loss_at_tau_one_half_is_half_of_l1_or_mse(half, whole):
    outputs, again = Z.clone().requires_grad_(), Z.clone().requires_grad_()
    mine, other = half(0.5)(outputs, T), whole()(again, T) / 2
    mine.backward()
    other.backward()
    torch.testing.assert_close(mine, other)
    torch.testing.assert_close(outputs.grad, again.grad)


def test_quantile_has_no_gradient_at_the_target_like_l1():
    outputs = torch.zeros(1, 1, requires_grad=True)
    Quantile(0.9)(outputs, torch.zeros(1, 1)).backward()
    assert outputs.grad.item() == 0


@pytest.mark.parametrize("tau", [0.2, 0.9])
def test_the_best_constant_is_the_quantile(tau):
    target = torch.arange(1.0, 102)[:, None]
    costs = torch.stack([Quantile(tau)(torch.full_like(target, value), target) for value in target.flatten().tolist()])
    assert target[costs.argmin()].item() == torch.quantile(target, tau).round().item()


def test_weighted_residuals_cancel_at_the_expectile():
    target = torch.tensor([[0.0], [1.0], [10.0]], dtype=torch.float64)
    best = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([best], tolerance_grad=1e-12, tolerance_change=0, max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = Expectile(0.8)(best.expand(3, 1), target)
        loss.backward()
        return loss

    optimizer.step(closure)
    # 0.8 (10 - e) = 0.2 (e + (e - 1)), so e = 8.2/1.2.
    assert best.item() == pytest.approx(8.2 / 1.2, rel=1e-6)


@pytest.mark.parametrize("loss", [Quantile, Expectile])
@pytest.mark.parametrize("tau", [0.0, 1.0, -0.1, float("nan")])
def test_tau_outside_0_to_1_is_rejected(loss, tau):
    with pytest.raises(LabError, match=r"tau must be a number in \(0, 1\)"):
        loss(tau)

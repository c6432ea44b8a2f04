"""Squared errors of a classifier: on its logits and on its probabilities."""

import mpmath
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import brier_score_loss

from losslab.losses import MSE, Brier, RescaledMSE

Z = 2 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 4, 2, 1, 1, 3, 0, 2])
HOT = F.one_hot(Y, 5).double()
T = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(1)


def gradient(loss, target):
    outputs = Z.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(outputs, target), outputs)
    return result


def test_rescaled_mse_by_hand():
    loss = RescaledMSE(k=3.0, m=10.0)
    assert loss(torch.tensor([[8.0, 1.0, -2.0]]), torch.tensor([0])).item() == pytest.approx((3 * 4 + 1 + 4) / 3)


def test_rescaled_mse_with_k_1_and_m_1_is_the_squared_error_to_one_hot_targets():
    torch.testing.assert_close(RescaledMSE().per_example(Z, Y), MSE().per_example(Z, HOT))
    torch.testing.assert_close(gradient(RescaledMSE(), T), gradient(MSE(), T))


@pytest.mark.parametrize(("k", "m"), [(1.0, 1.0), (15.0, 30.0)])
def test_probabilities_of_rescaled_mse_minimise_the_expected_loss(k, m):
    loss, truth = RescaledMSE(k, m), torch.tensor([0.7, 0.2, 0.1, 0.0], dtype=torch.float64)
    best = truth * k * m / (truth * k + 1 - truth)
    outputs = best[None].clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(outputs, truth[None]), outputs)
    torch.testing.assert_close(slope, torch.zeros_like(slope))
    torch.testing.assert_close(loss.to_probabilities(best[None])[0], truth, atol=2e-7, rtol=0)


def test_brier_score_equals_scikit_learn():
    p = Z.softmax(1)
    theirs = brier_score_loss(Y, p, labels=range(5), scale_by_half=False)
    assert Brier()(Z, Y).item() == pytest.approx(theirs)


def test_the_brier_score_is_the_squared_error_on_probabilities_summed_over_the_classes():
    torch.testing.assert_close(Brier().per_example(Z, Y), 5 * MSE().per_example(Z.softmax(1), HOT))


def test_brier_score_of_a_soft_target_exceeds_the_squared_distance_by_a_constant():
    distance = (Z.softmax(1) - T).square().sum(1)
    torch.testing.assert_close(Brier().per_example(Z, T), distance + 1 - T.square().sum(1))


def test_the_gradient_of_the_brier_score():
    p = Z.softmax(1)
    error = p - HOT
    expected = 2 * p * (error - (p * error).sum(1, keepdim=True))
    torch.testing.assert_close(gradient(Brier(), Y), expected / 8)


@pytest.mark.parametrize("margin", [5.0, 20.0, 30.0])
def test_the_brier_score_is_exact_where_p_rounds_to_1(margin):
    outputs = torch.tensor([[margin, 0.0, -1.0]], requires_grad=True)
    Brier()(outputs, torch.tensor([0])).backward()
    with mpmath.workdps(60):
        weights = [mpmath.exp(margin), mpmath.mpf(1), mpmath.exp(-1)]
        p = [w / sum(weights) for w in weights]
        exact = (1 - p[0]) ** 2 + p[1] ** 2 + p[2] ** 2
        slope = 2 * p[0] * (p[0] - 1 - (p[0] * (p[0] - 1) + p[1] ** 2 + p[2] ** 2))
    assert Brier()(outputs, torch.tensor([0])).item() == pytest.approx(float(exact), rel=1e-5, abs=0)
    assert outputs.grad[0, 0].item() == pytest.approx(float(slope), rel=1e-5, abs=0)

"""The Tweedie loss: agreement with scikit-learn's deviance, the powers 1 and 2, and derivatives."""

import math

import mpmath
import pytest
import torch
from sklearn.metrics import mean_tweedie_deviance

from losslab.losses import PoissonNLL, Tweedie

RANDOM = torch.Generator().manual_seed(0)
Z = torch.randn(30, 2, generator=RANDOM, dtype=torch.float64)
T = torch.rand(30, 2, generator=RANDOM, dtype=torch.float64) * 5 + 0.1


def both(loss, outputs, target):
    leaf = outputs.clone().requires_grad_()
    value = loss(leaf, target)
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("power", [1.0, 1.2, 1.5, 1.9, 2.0])
def test_differences_are_half_those_of_scikit_learns_deviance(power):
    other = Z + 0.3 * T
    ours = Tweedie(power)(Z, T) - Tweedie(power)(other, T)
    theirs = [mean_tweedie_deviance(T.flatten(), z.exp().flatten(), power=power) for z in (Z, other)]
    assert ours.item() == pytest.approx((theirs[0] - theirs[1]) / 2)


def test_power_1_is_the_poisson_loss_minus_1():
    value, gradient = both(Tweedie(1.0), Z, T)
    expected, expected_gradient = both(PoissonNLL(), Z, T)
    torch.testing.assert_close(value, expected - 1)
    torch.testing.assert_close(gradient, expected_gradient)


def test_power_2_is_the_likelihood_of_an_exponential_distribution():
    likelihood = -torch.distributions.Exponential((-Z).exp()).log_prob(T).mean()
    torch.testing.assert_close(Tweedie(2.0)(Z, T), likelihood - T.mean())


@pytest.mark.parametrize("power", [1.0, 1 + 1e-9, 1.3, 1.5, 2 - 1e-9, 2.0])
@pytest.mark.parametrize("size", [1e-30, 1e-3, 0.19, 0.21, 5.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_are_exact(power, size, dtype):
    precision = 1e-5 if dtype == torch.float32 else 1e-13
    power = torch.tensor(power, dtype=dtype).item()
    for sign in (1, -1):
        for count in (0.0, 3.0):
            outputs = torch.tensor([[sign * size]], dtype=dtype)
            value, gradient = both(Tweedie(power), outputs, torch.full_like(outputs, count))
            with mpmath.workdps(60):
                z, p = mpmath.mpf(outputs.item()), mpmath.mpf(power)
                parts = [mpmath.expm1(k * z) / k if k else z for k in (2 - p, 1 - p)]
                slopes = [mpmath.exp((2 - p) * z), mpmath.exp((1 - p) * z)]
                exact = [float(parts[0] - count * parts[1]), float(slopes[0] - count * slopes[1])]
                scale = [float(abs(parts[0]) + count * abs(parts[1])), float(slopes[0] + count * slopes[1])]
            assert value.item() == pytest.approx(exact[0], rel=0, abs=precision * scale[0])
            assert gradient.item() == pytest.approx(exact[1], rel=0, abs=precision * scale[1])


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_derivative_by_the_power_is_exact(power):
    p = torch.tensor(power, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(Tweedie(p)(Z, T), p)
    step = 1e-3 if power in {1.0, 2.0} else 1e-5
    beside = [Tweedie(torch.tensor(power + sign * step, dtype=torch.float64))(Z, T) for sign in (1, -1)]
    assert slope.item() == pytest.approx(((beside[0] - beside[1]) / (2 * step)).item(), rel=1e-5)


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_the_best_constant_is_the_logarithm_of_the_mean(power):
    target = torch.tensor([[0.0], [1.0], [8.0]])
    outputs = torch.full((3, 1), math.log(3.0), requires_grad=True)
    Tweedie(power)(outputs, target).backward()
    assert outputs.grad.sum().item() == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(Tweedie(power).to_predictions(outputs), torch.full((3, 1), 3.0))

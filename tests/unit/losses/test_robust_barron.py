"""Barron's loss: its special cases, its formula at other α, and its derivatives with respect to z and α."""

from math import inf

import mpmath
import pytest
import torch

from losslab.errors import LabError
from losslab.losses import MSE, Barron, Cauchy, Charbonnier, GemanMcClure, Welsch

R = torch.randn(200, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5
SIZES = (1e-30, 1e-3, 0.1, 0.5, 1.0, 3.0, 12.0, 90.0, 1e4, 1e10)
ALPHAS = (-1e30, -1e6, -10.0, -2.0, -0.5, -1e-8, 0.0, 1e-8, 1e-3, 0.3, 1.0, 1.5, 1.6, 1.999, 2 - 1e-6, 2.0, 2.01, 2.6)


def exact(x: float, alpha: float) -> mpmath.mpf:
    x, alpha = mpmath.mpf(x), mpmath.mpf(alpha)
    if alpha == 2:
        return x * x / 2
    if alpha == 0:
        return mpmath.log(x * x / 2 + 1)
    b = abs(alpha - 2)
    return b / alpha * ((x * x / b + 1) ** (alpha / 2) - 1)


def exact_slope(x: float, alpha: float) -> mpmath.mpf:
    x, alpha = mpmath.mpf(x), mpmath.mpf(alpha)
    return x if alpha == 2 else x * (x * x / abs(alpha - 2) + 1) ** (alpha / 2 - 1)


def slopes(residual: torch.Tensor, alpha: float, c: float = 1.0):
    """Return the loss of one residual, and its derivatives with respect to the residual and α."""
    z, a = residual.clone().requires_grad_(), torch.tensor(alpha, dtype=residual.dtype, requires_grad=True)
    value = Barron(a, c)(z, torch.zeros_like(z))
    return (value.item(), *(grad.item() for grad in torch.autograd.grad(value, (z, a))))


@pytest.mark.parametrize("c", [0.7, 1.0, 4.0])
@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize(
    ("alpha", "named"), [(2.0, None), (1.0, Charbonnier), (0.0, Cauchy), (-2.0, GemanMcClure), (-inf, Welsch)]
)
def test_special_cases_of_alpha_equal_the_named_losses(alpha, named, c, as_tensor):
    outputs, again = R.clone().requires_grad_(), R.clone().requires_grad_()
    barron = Barron(torch.tensor(alpha, dtype=torch.float64) if as_tensor else alpha, c)
    mine = barron.per_example(outputs, torch.zeros_like(R))
    other = (named(c) if named else MSE()).per_example(again, torch.zeros_like(R)) / (1 if named else 2 * c**2)
    torch.testing.assert_close(mine, other, rtol=1e-13, atol=0)
    mine.sum().backward()
    other.sum().backward()
    torch.testing.assert_close(outputs.grad, again.grad, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_are_exact_at_every_alpha(alpha, dtype):
    alpha = torch.tensor(alpha, dtype=dtype).item()
    tiny, precision = (1e-30, 1e-5) if dtype == torch.float32 else (1e-300, 1e-11)
    for size in SIZES:
        residual = torch.tensor([[size]], dtype=dtype)
        value, slope, _ = slopes(residual, alpha)
        with mpmath.workdps(150):
            expected, expected_slope = (float(f(residual.item(), alpha)) for f in (exact, exact_slope))
        assert value == pytest.approx(expected, rel=precision, abs=tiny)
        assert slope == pytest.approx(expected_slope, rel=precision, abs=tiny)


@pytest.mark.parametrize(("alpha", "size"), [(-2.0, 1e30), (0.0, 1e30), (1.0, 1e30), (1.2, 1e30), (1.6, 1e20)])
def test_value_and_gradient_are_exact_at_residuals_whose_squares_overflow_float32(alpha, size):
    residual = torch.tensor([[size]])
    value, slope, _ = slopes(residual, alpha)
    with mpmath.workdps(60):
        expected = [float(f(residual.item(), torch.tensor(alpha).item())) for f in (exact, exact_slope)]
    assert [value, slope] == pytest.approx(expected, rel=3e-5, abs=1e-38)


@pytest.mark.parametrize("alpha", [a for a in ALPHAS if -100 < a != 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_derivative_by_alpha_is_exact_even_near_0_and_2(alpha, dtype):
    alpha = torch.tensor(alpha, dtype=dtype).item()
    rounding = torch.finfo(dtype).eps
    for size in SIZES[1:-1]:
        residual = torch.tensor([[size]], dtype=dtype)
        value, _, found = slopes(residual, alpha)
        with mpmath.workdps(100):
            step = mpmath.mpf(10) ** -25
            beside = [exact(residual.item(), alpha + sign * step) for sign in (1, -1)]
            expected = float((beside[0] - beside[1]) / (2 * step))
        assert found == pytest.approx(expected, rel=1e4 * rounding, abs=30 * rounding * value)


def test_infinite_derivative_at_alpha_2_is_replaced_by_that_of_the_nearest_number():
    residual = torch.tensor([[3.0]])
    at, below = (slopes(residual, alpha)[2] for alpha in (2.0, 2 - 2**-23))
    assert at == pytest.approx(below, rel=0.1)
    assert at > 30


def test_alpha_may_be_learnt():
    target = torch.tensor([[0.0]] * 90 + [[50.0]] * 10)
    alpha = torch.tensor(2.0, requires_grad=True)
    optimizer = torch.optim.SGD([alpha], lr=1e-4)
    for _ in range(20):
        optimizer.zero_grad()
        Barron(alpha)(torch.zeros(100, 1), target).backward()
        optimizer.step()
    assert alpha.isfinite()
    assert alpha < 1.95


def test_a_smaller_alpha_gives_a_smaller_loss():
    values = torch.stack([Barron(alpha).per_example(R, torch.zeros_like(R)) for alpha in (-inf, -2, 0, 1, 1.5, 2)])
    assert (values.diff(dim=0) >= 0).all()


def test_alpha_above_2_is_rejected():
    with pytest.raises(LabError, match=r"alpha must be a number in \[-inf, 2\], got 3"):
        Barron(alpha=3)

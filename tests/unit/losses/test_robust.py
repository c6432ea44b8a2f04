"""Charbonnier, Cauchy, Geman-McClure, Welsch and Tukey: values by hand, those of kornia, and exact derivatives."""

import kornia.losses
import mpmath
import pytest
import torch

from losslab.losses import MSE, Cauchy, Charbonnier, GemanMcClure, Huber, LogCosh, SmoothL1, Tukey, Welsch
from losslab.losses.numerics import expm1

LOSSES = [Charbonnier, Cauchy, GemanMcClure, Welsch]
EXACT = {
    Charbonnier: (lambda x: mpmath.sqrt(x * x + 1) - 1, lambda x: x / mpmath.sqrt(x * x + 1)),
    Cauchy: (lambda x: mpmath.log(x * x / 2 + 1), lambda x: 2 * x / (x * x + 2)),
    GemanMcClure: (lambda x: 2 * x * x / (x * x + 4), lambda x: 16 * x / (x * x + 4) ** 2),
    Welsch: (lambda x: 1 - mpmath.exp(-x * x / 2), lambda x: x * mpmath.exp(-x * x / 2)),
}
R = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
ZERO = torch.zeros_like(R)


def value_and_gradient(loss, residual):
    outputs = residual.clone().requires_grad_()
    value = loss.per_example(outputs, torch.zeros_like(outputs))
    value.sum().backward()
    return value.detach(), outputs.grad


@pytest.mark.parametrize(
    ("loss", "value"),
    [(Charbonnier(3.0), 2 / 3), (Cauchy(2.0), 1.09861), (GemanMcClure(2.0), 1.0), (Welsch(4.0), 0.393469)],
)
def test_values_by_hand(loss, value):
    # √((4/3)² + 1) - 1 = 5/3 - 1, log(2²/2 + 1) = log 3, 2·4/(4 + 4) = 1, and 1 - e^(-1/2).
    assert loss(torch.tensor([[4.0]]), torch.tensor([[0.0]])).item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Charbonnier, kornia.losses.charbonnier_loss),
        (Cauchy, kornia.losses.cauchy_loss),
        (GemanMcClure, kornia.losses.geman_mcclure_loss),
        (Welsch, kornia.losses.welsch_loss),
    ],
)
def test_robust_losses_equal_kornia_at_c_1(ours, theirs):
    for c in (1.0, 2.5):
        outputs, again = R.clone().requires_grad_(), R.clone().requires_grad_()
        mine, other = ours(c)(outputs, ZERO), theirs(again / c, ZERO, reduction="mean")
        mine.backward()
        other.backward()
        torch.testing.assert_close(mine, other)
        torch.testing.assert_close(outputs.grad, again.grad)


def test_charbonnier_is_the_form_of_image_restoration_up_to_a_factor_and_a_constant():
    epsilon = 1e-3
    theirs = (R.square() + epsilon**2).sqrt()
    torch.testing.assert_close(epsilon * Charbonnier(epsilon).penalty(R) + epsilon, theirs)


@pytest.mark.parametrize("loss", LOSSES)
def test_loss_near_the_target_is_half_the_scaled_squared_error(loss):
    outputs = 1e-4 * R
    torch.testing.assert_close(loss(2.0)(outputs, ZERO), MSE()(outputs, ZERO) / 8, rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e-3, 0.5, 1.0, 3.0, 8.0, 13.0, 90.0, 1e4, 1e10, 1e20, 1e30])
@pytest.mark.parametrize("c", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_are_exact_from_tiny_to_huge_residuals(loss, size, c, dtype):
    residual = torch.tensor([[size], [-size]], dtype=dtype)
    values, gradients = value_and_gradient(loss(c), residual)
    with mpmath.workdps(150):
        x = mpmath.mpf(residual[0].item()) / c
        value, slope = (float(curve(x)) for curve in EXACT[loss])
    tiny, precision = 1e-30 if dtype == torch.float32 else 1e-300, 1e-5 if dtype == torch.float32 else 1e-13
    assert values.tolist() == pytest.approx([value, value], rel=precision, abs=tiny)
    assert gradients.flatten().tolist() == pytest.approx([slope / c, -slope / c], rel=precision, abs=tiny)


def test_expm1_keeps_its_gradient_where_that_of_torch_is_0():
    x = torch.tensor([-30.0], requires_grad=True)
    expm1(x).backward()
    assert x.grad.item() == pytest.approx(9.3576e-14, rel=1e-4)
    again = torch.tensor([-30.0], requires_grad=True)
    torch.expm1(again).backward()
    assert again.grad.item() == 0, "torch's gradient no longer rounds to 0: use it"


@pytest.mark.parametrize("loss", [GemanMcClure, Welsch])
def test_a_bounded_loss_ignores_an_outlier(loss):
    target = torch.tensor([[0.0]] * 9 + [[1e6]])
    outputs = torch.zeros(10, 1, requires_grad=True)
    loss()(outputs, target).backward()
    assert outputs.grad.abs().max() < 1e-12


@pytest.mark.parametrize("loss", [*LOSSES, Huber, LogCosh, SmoothL1, Tukey])
def test_second_derivative_is_1_at_a_residual_of_0(loss):
    """With |r| in the formula, autograd might return 0 at r = 0."""

    def value(residual):
        return loss().per_example(residual, torch.zeros_like(residual)).sum()

    at_zero = torch.zeros(1, 1, dtype=torch.float64)
    assert torch.autograd.functional.hessian(value, at_zero).item() == pytest.approx(1)


def test_tukey_by_hand():
    loss = Tukey(2.0)
    # The loss is 4/6 (1 - (1 - 1/4)³) at r = 1, and 4/6 for r ≥ 2.
    values = loss.per_example(torch.tensor([[1.0], [2.0], [1e30]]), torch.zeros(3, 1))
    torch.testing.assert_close(values, torch.tensor([37 / 96, 2 / 3, 2 / 3]))


@pytest.mark.parametrize("share", [1e-30, 1e-8, 1e-3, 0.3, 0.7, 0.72, 0.9, 0.999])
@pytest.mark.parametrize("c", [0.5, 4.685])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tukeys_value_and_gradient_are_exact_within_c(share, c, dtype):
    outputs = torch.tensor([[share * c], [-share * c]], dtype=dtype, requires_grad=True)
    values = Tukey(c).per_example(outputs, torch.zeros_like(outputs))
    values.sum().backward()
    with mpmath.workdps(100):
        r = mpmath.mpf(outputs[0].item())
        kept = 1 - (r / c) ** 2
        value, slope = float(mpmath.mpf(c) ** 2 / 6 * (1 - kept**3)), float(r * kept**2)
    tiny = 1e-38 if dtype == torch.float32 else 1e-300
    # Near c the slope is the square of a difference of nearly equal numbers, which changes if only r is rounded.
    precision = 20 * torch.finfo(dtype).eps / (1 - share**2)
    assert values.tolist() == pytest.approx([value, value], rel=precision, abs=tiny)
    assert outputs.grad.flatten().tolist() == pytest.approx([slope, -slope], rel=precision, abs=tiny)


def test_tukey_has_no_gradient_beyond_c():
    outputs = torch.tensor([[4.7], [-90.0], [1e30]], requires_grad=True)
    Tukey()(outputs, torch.zeros(3, 1)).backward()
    assert outputs.grad.flatten().tolist() == [0, 0, 0]

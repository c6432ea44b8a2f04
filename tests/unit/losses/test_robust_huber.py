"""Log-cosh: values and derivatives are exact from tiny to huge residuals."""

import math

import mpmath
import pytest
import torch

from losslab.losses import LogCosh


def test_values_by_hand():
    outputs = torch.tensor([[math.log(2)], [0.0], [-math.log(2)]])
    # cosh(log 2) = (2 + 1/2)/2 = 5/4.
    expected = torch.tensor([math.log(1.25), 0.0, math.log(1.25)])
    torch.testing.assert_close(LogCosh().per_example(outputs, torch.zeros(3, 1)), expected)


@pytest.mark.parametrize("size", [1e-30, 1e-8, 1e-3, 0.5, 0.999, 1.0, 1.001, 17.0, 90.0, 1e4, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_are_exact_from_tiny_to_huge_residuals(size, dtype):
    outputs = torch.tensor([[size], [-size]], dtype=dtype, requires_grad=True)
    values = LogCosh().per_example(outputs, torch.zeros_like(outputs))
    values.sum().backward()
    r = mpmath.mpf(outputs[0].item())
    with mpmath.workdps(80):
        exact = float(mpmath.log(mpmath.cosh(r)) if r < 1e6 else r - mpmath.log(2))
        slope = float(mpmath.tanh(r))
    tiny, precision = 1e-38 if dtype == torch.float32 else 1e-300, 1e-6 if dtype == torch.float32 else 1e-14
    assert values.tolist() == pytest.approx([exact, exact], rel=precision, abs=tiny)
    assert outputs.grad.flatten().tolist() == pytest.approx([slope, -slope], rel=precision, abs=tiny)


def test_second_derivative_of_log_cosh_is_exact():
    for size in (0.0, 0.3, 1.5, 5.0):
        r = torch.tensor(size, dtype=torch.float64)
        curvature = torch.func.grad(torch.func.grad(lambda z: LogCosh().penalty(z)))(r)
        assert curvature.item() == pytest.approx(1 / math.cosh(size) ** 2, rel=1e-12)

"""Tukey's biweight: its formula, its closed-form slope r (1 - (r/c)²)², and nothing at all beyond c."""

import mpmath
import pytest
import torch

from losslab.losses import Tukey


def test_values_by_hand():
    loss = Tukey(2.0)
    # 4/6 (1 - (1 - 1/4)³) at 1, and 4/6 from 2 on.
    values = loss.per_example(torch.tensor([[1.0], [2.0], [1e30]]), torch.zeros(3, 1))
    torch.testing.assert_close(values, torch.tensor([37 / 96, 2 / 3, 2 / 3]))


@pytest.mark.parametrize("share", [1e-30, 1e-8, 1e-3, 0.3, 0.7, 0.72, 0.9, 0.999])
@pytest.mark.parametrize("c", [0.5, 4.685])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_are_exact_within_c(share, c, dtype):
    outputs = torch.tensor([[share * c], [-share * c]], dtype=dtype, requires_grad=True)
    values = Tukey(c).per_example(outputs, torch.zeros_like(outputs))
    values.sum().backward()
    with mpmath.workdps(100):
        r = mpmath.mpf(outputs[0].item())
        kept = 1 - (r / c) ** 2
        value, slope = float(mpmath.mpf(c) ** 2 / 6 * (1 - kept**3)), float(r * kept**2)
    tiny = 1e-38 if dtype == torch.float32 else 1e-300
    # Near c the slope is the square of a difference of nearly equal numbers, which rounding r alone changes.
    precision = 20 * torch.finfo(dtype).eps / (1 - share**2)
    assert values.tolist() == pytest.approx([value, value], rel=precision, abs=tiny)
    assert outputs.grad.flatten().tolist() == pytest.approx([slope, -slope], rel=precision, abs=tiny)


def test_beyond_c_there_is_no_gradient_at_all():
    outputs = torch.tensor([[4.7], [-90.0], [1e30]], requires_grad=True)
    Tukey()(outputs, torch.zeros(3, 1)).backward()
    assert outputs.grad.flatten().tolist() == [0, 0, 0]

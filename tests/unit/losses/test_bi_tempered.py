"""Bi-tempered logistic loss."""

from functools import cache

import mpmath as mp
import pytest
import torch
import torch.nn.functional as F
from exact import check

from losslab.errors import LabError
from losslab.losses import BiTempered, CrossEntropy
from losslab.losses.numerics import log_tempered_softmax

Z = 3 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 4, 2, 1, 1, 3, 0, 2])
T = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(1)


def divergence(loss, outputs, target):
    """Return the paper's loss for soft targets, which is lower by a number that depends only on the target."""
    r = 1 - loss.t1
    log_t = torch.log(target) if r == 0 else (target**r - 1) / r
    constant = (target * torch.nan_to_num(log_t)).sum(1) - ((target ** (1 + r)).sum(1) - 1) / (1 + r)
    return loss.per_example(outputs, target) + constant


# The values that the tests of google/bi-tempered-loss publish.
OFFICIAL = torch.tensor([[-0.5, 0.1, 2.0], [0.1, 1.5, -5.0], [4.0, -3.0, -6.0]], dtype=torch.float64)


def test_values_of_the_official_code_for_soft_targets():
    labels = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1], [0.2, 0.8, 0.0]], dtype=torch.float64)
    published = torch.tensor([0.02301914, 0.18972909, 0.93874922], dtype=torch.float64)
    torch.testing.assert_close(divergence(BiTempered(0.5, 1.5), OFFICIAL, labels), published, rtol=0, atol=1e-5)


def test_values_of_the_official_code_for_smoothed_labels():
    # The smoothing of the official code gives the label 1 - ε and the others ε / (K - 1), with ε = 0.1.
    labels = torch.full((3, 3), 0.05, dtype=torch.float64).fill_diagonal_(0.9)
    published = torch.tensor([0.76652711, 0.08627685, 1.35443510], dtype=torch.float64)
    torch.testing.assert_close(divergence(BiTempered(0.5, 1.5), OFFICIAL, labels), published, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("t1", "t2", "published"), [(0.9, 1.1, 0.45677936), (0.8, 1.2, 0.34298314)])
def test_values_of_the_official_code_at_other_temperatures(t1, t2, published):
    labels = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    found = divergence(BiTempered(t1, t2), OFFICIAL[:1], labels).item()
    assert found == pytest.approx(published, abs=1e-5)


def test_official_code_gives_cross_entropy_at_temperatures_of_1():
    labels = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    assert BiTempered(1.0, 1.0)(OFFICIAL[:1], labels).item() == pytest.approx(1.6583576, abs=1e-6)


def test_tempered_softmax_at_4_equals_the_official_code_up_to_its_error():
    # The five iterations of the official code do not converge: its first row sums to 1.00003.
    published = [[0.3205458, 0.32714278, 0.3523402], [0.3430056, 0.36491093, 0.29220778]]
    found = BiTempered(t2=4.0).to_probabilities(OFFICIAL)[:2]
    torch.testing.assert_close(found, torch.tensor(published, dtype=torch.float64), rtol=0, atol=1e-4)


@pytest.mark.parametrize("t", [1.0, 1.0 + 1e-12, 1.0001, 1.2, 2.0, 4.0, 10.0])
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1e4])
def test_tempered_probabilities_sum_to_1(t, size):
    log_p, rest = log_tempered_softmax(size * Z, t)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(8, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(log_p.exp() + rest, torch.ones_like(rest), rtol=1e-12, atol=0)


def test_two_classes_at_t2_2_have_a_closed_form():
    # Both p are 1 / (1 + λ - z) and sum to 1, so x = λ - max z is the root of x² + d x - 1, where d is |z_1 - z_2|.
    gap = torch.tensor([0.0, 1.0, 50.0, 1e6], dtype=torch.float64)
    outputs = torch.stack([gap, torch.zeros(4, dtype=torch.float64)], 1)
    excess = (-gap + (gap.square() + 4).sqrt()) / 2
    log_p, _ = log_tempered_softmax(outputs, 2.0)
    torch.testing.assert_close(log_p[:, 0], -excess.log1p(), rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(log_p[:3, 1], -torch.log1p(gap + excess)[:3], rtol=1e-12, atol=0)


@pytest.mark.parametrize(("t1", "t2"), [(1.0, 1.0), (1.0 - 1e-9, 1.0 + 1e-9), (1.0, 1.0 + 1e-12)])
@pytest.mark.parametrize("target", [Y, T])
def test_loss_approaches_cross_entropy_as_both_temperatures_go_to_1(t1, t2, target):
    outputs, again = Z.clone().requires_grad_(), Z.clone().requires_grad_()
    ours, theirs = BiTempered(t1, t2)(outputs, target), CrossEntropy()(again, target)
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=0)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(outputs.grad, again.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("t2", [1.0, 1.3])
def test_t1_0_is_half_the_squared_error_of_the_probabilities(t2):
    loss = BiTempered(0.0, t2)
    squared = (loss.to_probabilities(Z) - F.one_hot(Y, 5)).square().sum(1)
    torch.testing.assert_close(loss.per_example(Z, Y), squared / 2)


@pytest.mark.parametrize(("t1", "t2"), [(0.8, 1.2), (0.0, 1.0), (0.5, 4.0)])
def test_gradient_equals_the_papers_formula_with_the_escort_distribution(t1, t2):
    loss, outputs = BiTempered(t1, t2), Z.clone().requires_grad_()
    loss.per_example(outputs, T).sum().backward()
    p = loss.to_probabilities(Z)
    pull = (p - T) * p ** (t2 - t1)
    escort = p**t2 / (p**t2).sum(1, keepdim=True)
    torch.testing.assert_close(outputs.grad, pull - escort * pull.sum(1, keepdim=True))


def test_second_derivatives_are_exact():
    assert torch.autograd.gradgradcheck(lambda z: BiTempered(0.8, 1.5)(z, Y[:2]), (Z[:2].clone().requires_grad_(),))


def test_derivatives_by_the_temperatures_are_exact_even_at_1():
    def scored(t1, t2):
        return BiTempered(t1, t2)(Z, Y)

    for t1, t2 in ((1.0, 1.0), (0.8, 1.2)):
        steps = [torch.tensor(t, dtype=torch.float64) for t in (t1, t2)]
        slopes = torch.func.grad(scored, argnums=(0, 1))(*steps)
        h = 1e-6
        by_t1 = (3 * scored(t1, t2) - 4 * scored(t1 - h, t2) + scored(t1 - 2 * h, t2)) / (2 * h)
        by_t2 = (-3 * scored(t1, t2) + 4 * scored(t1, t2 + h) - scored(t1, t2 + 2 * h)) / (2 * h)
        torch.testing.assert_close(slopes, (by_t1, by_t2), rtol=1e-6, atol=1e-7)


@cache
def exact(t1, t2):
    t1, t2 = mp.mpf(t1), mp.mpf(t2)

    def probabilities(logits):
        s, top = t2 - 1, max(logits)
        excess = mp.mpf(0)
        for _ in range(100):
            bases = [1 + s * (top + excess - z) for z in logits]
            total, slope = (mp.fsum(b ** (-1 / s - more) for b in bases) for more in (0, 1))
            step = (total**s - 1) / s * total / slope
            excess += step
            if abs(step) < mp.mpf(10) ** (10 - mp.mp.dps) * excess:
                break
        return [b ** (-1 / s) for b in [1 + s * (top + excess - z) for z in logits]]

    def formula(logits):
        p = probabilities(logits)
        surprise = -mp.log(p[0]) if t1 == 1 else (1 - p[0] ** (1 - t1)) / (1 - t1)
        return surprise - (1 - mp.fsum(x ** (2 - t1) for x in p)) / (2 - t1)

    return formula


@pytest.mark.parametrize(("t1", "t2"), [(0.8, 1.2), (0.0, 1.5), (1.0, 4.0), (0.5, 1.01)])
@pytest.mark.parametrize(("dtype", "rtol", "noise"), [(torch.float32, 5e-4, 1e-7), (torch.float64, 1e-9, 1e-15)])
def test_value_and_gradient_are_accurate_at_all_confidences(t1, t2, dtype, rtol, noise):
    # If several classes have the largest output, their part of the gradient is rounding noise.
    check(BiTempered(t1, t2), exact(t1, t2), dtype, rtol, noise)


@pytest.mark.parametrize("wrong", [lambda: BiTempered(t1=1.1), lambda: BiTempered(t2=0.9), lambda: BiTempered(t2=11)])
def test_temperatures_outside_their_range_are_rejected(wrong):
    with pytest.raises(LabError, match="must be a number in"):
        wrong()

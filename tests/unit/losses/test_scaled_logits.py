"""Variants of cross-entropy from Kornblith et al. 2021 and Wei et al. 2022, and Poly-1."""

import math

import mpmath
import pytest
import torch
import torch.nn.functional as F

from losslab.losses import BCE, CosineSoftmax, CrossEntropy, LogitNorm, LogitPenalty, Poly1, PriorSigmoid

Z = 2 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 4, 2, 1, 1, 3, 0, 2])
T = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(1)
HOT = F.one_hot(Y, 5).double()


def gradient(loss, target, outputs=Z):
    outputs = outputs.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(outputs, target), outputs)
    return result


def test_logit_norm_is_cross_entropy_of_normalised_outputs():
    for target in (Y, T):
        expected = F.cross_entropy(F.normalize(Z) / 0.04, target)
        torch.testing.assert_close(LogitNorm()(Z, target), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("size", [1e-3, 1e3, 1e30])
def test_logit_norm_does_not_depend_on_the_size_of_the_outputs(size):
    small, large = Z.float(), Z.float() * size
    torch.testing.assert_close(LogitNorm()(large, Y), LogitNorm()(small, Y), rtol=1e-3, atol=0)
    torch.testing.assert_close(
        gradient(LogitNorm(), Y, large) * size, gradient(LogitNorm(), Y, small), rtol=2e-3, atol=1e-7
    )


def test_logit_norm_at_zeros_is_finite_with_a_gradient():
    slope = gradient(LogitNorm(), Y, torch.zeros(8, 5))
    assert slope.isfinite().all()
    assert (slope.gather(1, Y[:, None]) < 0).all()


def test_gradient_of_logit_norm_is_orthogonal_to_the_outputs():
    torch.testing.assert_close((gradient(LogitNorm(1.0), Y) * Z).sum(1), torch.zeros(8).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_cosine_softmax_is_cross_entropy_at_a_temperature(temperature):
    cosines = Z / Z.abs().max()
    loss = CosineSoftmax(temperature)
    torch.testing.assert_close(loss(cosines, Y), F.cross_entropy(cosines / temperature, Y))
    torch.testing.assert_close(loss.to_probabilities(cosines), (cosines / temperature).softmax(1))
    assert loss.cosine_outputs


def test_logit_penalty_is_added_to_cross_entropy():
    penalty = 0.01 * Z.square().sum(1)
    torch.testing.assert_close(LogitPenalty(0.01).per_example(Z, Y), CrossEntropy().per_example(Z, Y) + penalty)
    expected = (Z.softmax(1) - HOT + 0.02 * Z) / 8
    torch.testing.assert_close(gradient(LogitPenalty(0.01), Y), expected)


def test_sigmoid_sums_over_the_classes_and_starts_at_the_prior():
    shifted = Z - math.log(5)
    expected = F.binary_cross_entropy_with_logits(shifted, HOT, reduction="none").sum(1)
    torch.testing.assert_close(PriorSigmoid().per_example(Z, HOT), expected)
    assert PriorSigmoid().to_probabilities(torch.zeros(1, 9)).tolist() == [[pytest.approx(0.1)] * 9]


def test_sigmoid_with_one_output_is_binary_cross_entropy():
    torch.testing.assert_close(PriorSigmoid()(Z[:, :1], HOT[:, :1]), BCE()(Z[:, :1], HOT[:, :1]))


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 0.5, 2.0])
def test_poly1_is_its_formula(epsilon):
    p = Z.softmax(1).gather(1, Y[:, None]).squeeze(1)
    torch.testing.assert_close(Poly1(epsilon).per_example(Z, Y), -p.log() + epsilon * (1 - p))


def test_poly1_at_epsilon_0_is_cross_entropy():
    for target in (Y, T):
        torch.testing.assert_close(Poly1(0.0).per_example(Z, target), CrossEntropy().per_example(Z, target))


def test_gradient_of_poly1():
    p = Z.softmax(1).gather(1, Y[:, None])
    torch.testing.assert_close(gradient(Poly1(2.0), Y), (1 + 2 * p) * (Z.softmax(1) - HOT) / 8)


@pytest.mark.parametrize("epsilon", [-1.0, 0.0, 2.0])
@pytest.mark.parametrize("margin", [1.0, 3.0, 10.0, 17.0, 30.0])
def test_poly1_is_exact_in_float32_where_its_terms_cancel(epsilon, margin):
    outputs = torch.tensor([[margin, 0.0, 0.0]], requires_grad=True)
    value = Poly1(epsilon)(outputs, torch.tensor([0]))
    value.backward()
    with mpmath.workdps(60):
        rest = 2 / (mpmath.exp(margin) + 2)
        exact = -mpmath.log(1 - rest) + epsilon * rest
        slope = -rest * (1 + epsilon * (1 - rest))
    assert value.item() == pytest.approx(float(exact), rel=1e-5, abs=0)
    assert outputs.grad[0, 0].item() == pytest.approx(float(slope), rel=1e-5, abs=0)


def test_poly1_with_a_logit_of_minus_infinity_keeps_other_classes_finite():
    outputs = torch.tensor([[1.0, -torch.inf, 0.0]])
    assert Poly1(0.0)(outputs, torch.tensor([0])).item() == pytest.approx(math.log1p(math.exp(-1)))

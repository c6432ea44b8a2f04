"""Losses for noisy labels that are functions of the probability of the class: mae, rce, gce."""

import math

import mpmath as mp
import pytest
import torch
import torch.nn.functional as F
from exact import check, softmax

from losslab.errors import LabError
from losslab.losses import GCE, MAE, RCE, CrossEntropy
from losslab.losses.numerics import log_softmax_tails

Z = 3 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 4, 2, 1, 1, 3, 0, 2])
UNIFORM = torch.zeros(1, 10), torch.tensor([3])

FORMULAS = [
    (MAE(), lambda z: 1 - softmax(z)[0]),
    (RCE(-4.0), lambda z: 4 * (1 - softmax(z)[0])),
    (GCE(0.7), lambda z: (1 - softmax(z)[0] ** mp.mpf(0.7)) / mp.mpf(0.7)),
    (GCE(1e-3), lambda z: (1 - softmax(z)[0] ** mp.mpf(1e-3)) / mp.mpf(1e-3)),
    (GCE(1e-12), lambda z: (1 - softmax(z)[0] ** mp.mpf(1e-12)) / mp.mpf(1e-12)),
]


@pytest.mark.parametrize(("loss", "formula"), FORMULAS)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_value_and_gradient_are_exact_at_all_confidences(loss, formula, dtype, rtol):
    check(loss, formula, dtype, rtol)


@pytest.mark.parametrize("size", [0.1, 3.0, 30.0])
def test_log_softmax_tails_equal_torchs_log_softmax(size):
    log_p, log_rest = log_softmax_tails(size * Z)
    torch.testing.assert_close(log_p, F.log_softmax(size * Z, dim=1))
    torch.testing.assert_close(log_rest.exp(), 1 - F.softmax(size * Z, dim=1), rtol=1e-9, atol=1e-15)


def test_losses_at_uniform_logits_of_ten_classes_have_the_known_values():
    assert MAE()(*UNIFORM).item() == pytest.approx(0.9)
    assert RCE()(*UNIFORM).item() == pytest.approx(8.289, abs=5e-4)
    assert RCE(log_zero=-4.0)(*UNIFORM).item() == pytest.approx(3.6)
    assert GCE()(*UNIFORM).item() == pytest.approx((1 - 10**-0.7) / 0.7)


def test_mae_is_half_the_absolute_error_of_the_probabilities():
    absolute = (Z.softmax(1) - F.one_hot(Y, 5)).abs().sum(1)
    torch.testing.assert_close(MAE().per_example(Z, Y), absolute / 2)


def test_rce_equals_the_published_code_which_clamps_the_target_at_1e_minus_4():
    published = -(Z.softmax(1) * F.one_hot(Y, 5).double().clamp(min=1e-4).log()).sum(1)
    torch.testing.assert_close(RCE().per_example(Z, Y), published)


@pytest.mark.parametrize("log_zero", [-4.0, math.log(1e-4)])
def test_rce_is_minus_a_times_mae(log_zero):
    torch.testing.assert_close(RCE(log_zero).per_example(Z, Y), -log_zero * MAE().per_example(Z, Y))


def test_gce_with_q_1_is_mae():
    torch.testing.assert_close(GCE(1.0).per_example(Z, Y), MAE().per_example(Z, Y))


@pytest.mark.parametrize("q", [1e-6, 1e-12, 1e-30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gce_approaches_cross_entropy_as_q_goes_to_0(q, dtype):
    outputs, again = (Z.to(dtype).clone().requires_grad_() for _ in range(2))
    ours, theirs = GCE(q)(outputs, Y), CrossEntropy()(again, Y)
    torch.testing.assert_close(ours, theirs, rtol=3e-5, atol=0)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(outputs.grad, again.grad, rtol=3e-5, atol=1e-7)


@pytest.mark.parametrize("q", [0.1, 0.7, 1.0])
def test_gradient_of_gce_is_that_of_cross_entropy_times_p_to_the_q(q):
    outputs = Z.clone().requires_grad_()
    GCE(q).per_example(outputs, Y).sum().backward()
    p = Z.softmax(1)
    p_y = p.gather(1, Y[:, None])
    torch.testing.assert_close(outputs.grad, p_y**q * (p - F.one_hot(Y, 5)))


@pytest.mark.parametrize(("loss", "total"), [(MAE(), 4), (RCE(), -4 * math.log(1e-4)), (GCE(1.0), 4)])
def test_symmetric_losses_sum_to_a_constant_over_the_classes(loss, total):
    torch.testing.assert_close(loss.classwise(Z).sum(1), torch.full((8,), float(total), dtype=torch.float64))


@pytest.mark.parametrize(
    "wrong", [lambda: GCE(0.0), lambda: GCE(1.1), lambda: RCE(0.0), lambda: RCE(4.0), lambda: GCE(math.nan)]
)
def test_hyperparameters_outside_their_range_are_rejected(wrong):
    with pytest.raises(LabError, match="must be a number in"):
        wrong()


@pytest.mark.parametrize("loss", [MAE, RCE, GCE])
def test_class_weights_and_an_ignored_index_count_as_in_torchs_cross_entropy(loss):
    weight, target = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0]), Y.clone()
    target[[1, 5]] = -1
    counted = target != -1
    plain = loss().per_example(Z[counted], target[counted])
    weights = weight.double()[target[counted]]
    ours = loss(weight=weight, ignore_index=-1)(Z, target)
    torch.testing.assert_close(ours, (plain * weights).sum() / weights.sum())

"""Values that can be worked out by hand, and agreement with torch where torch has the loss."""

import math

import pytest
import torch
import torch.nn.functional as F

from losslab.errors import LabError
from losslab.losses import BCE, L1, MSE, ClassLoss, CrossEntropy, Focal, Huber, KLDiv, SmoothL1
from losslab.losses.numerics import log_softmax_tails
from losslab.targets import Kind, encode

Z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 4, 2, 1, 1, 3, 0, 2])
T = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(1)


def test_l1_and_mse_have_the_values_of_the_tutorial():
    outputs, target = torch.tensor([1.0, 1.0, 3.0]), torch.tensor([1.0, 1.0, 5.0])
    assert L1()(outputs, target).item() == pytest.approx(0.6667, abs=5e-5)
    assert MSE()(outputs, target).item() == pytest.approx(1.3333, abs=5e-5)


def test_outputs_and_target_that_broadcast_raise_an_error():
    with pytest.raises(LabError, match=r"\(3, 1\) and target \(3,\) must have the same shape"):
        MSE()(torch.zeros(3, 1), torch.zeros(3))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (MSE(), F.mse_loss),
        (L1(), F.l1_loss),
        (Huber(0.3), lambda z, t: F.huber_loss(z, t, delta=0.3)),
        (SmoothL1(0.3), lambda z, t: F.smooth_l1_loss(z, t, beta=0.3)),
        (SmoothL1(0.0), F.l1_loss),
        (BCE(), F.binary_cross_entropy_with_logits),
        (BCE(pos_weight=3.0), lambda z, t: F.binary_cross_entropy_with_logits(z, t, pos_weight=torch.tensor(3.0))),
        (KLDiv(), lambda z, t: F.kl_div(z.log_softmax(1), t, reduction="batchmean")),
    ],
)
def test_elementwise_losses_equal_torch(ours, theirs):
    outputs, again = (3 * Z).requires_grad_(), (3 * Z).requires_grad_()
    ours(outputs, T).backward()
    theirs(again, T).backward()
    torch.testing.assert_close(ours(3 * Z, T), theirs(3 * Z, T))
    torch.testing.assert_close(outputs.grad, again.grad)


WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0], dtype=torch.float64)


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("soft", [False, True])
def test_cross_entropy_equals_torch(weight, smoothing, soft):
    target = T if soft else Y
    ours = CrossEntropy(weight=weight, label_smoothing=smoothing)
    outputs, again = Z.clone().requires_grad_(), Z.clone().requires_grad_()
    mine, theirs = ours(outputs, target), F.cross_entropy(again, target, weight=weight, label_smoothing=smoothing)
    torch.testing.assert_close(mine, theirs)
    mine.backward()
    theirs.backward()
    torch.testing.assert_close(outputs.grad, again.grad)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_ignored_examples_are_excluded_from_the_sum_and_the_mean(weight):
    target = Y.clone()
    target[[1, 5]] = 3
    ours = CrossEntropy(weight=weight, ignore_index=3, label_smoothing=0.1)
    theirs = F.cross_entropy(Z, target, weight=weight, ignore_index=3, label_smoothing=0.1)
    torch.testing.assert_close(ours(Z, target), theirs)
    assert ours.per_example(Z, target)[[1, 5]].tolist() == [0, 0]


def test_gradient_of_cross_entropy_is_p_minus_y_over_n():
    outputs = Z.clone().requires_grad_()
    CrossEntropy()(outputs, Y).backward()
    torch.testing.assert_close(outputs.grad, (Z.softmax(1) - F.one_hot(Y, 5)) / 8)


def test_cross_entropy_at_uniform_logits_is_ln_10():
    assert CrossEntropy()(torch.zeros(4, 10), torch.arange(4)).item() == pytest.approx(2.3026, abs=5e-5)


def test_kl_is_cross_entropy_minus_the_entropy_of_the_target():
    entropy = -(T * T.log()).sum(1)
    torch.testing.assert_close(KLDiv().per_example(Z, T), CrossEntropy().per_example(Z, T) - entropy)


def test_cross_entropy_after_a_softmax_cannot_fall_below_1_4612():
    best = F.one_hot(torch.arange(10), 10).float()
    assert CrossEntropy()(best, torch.arange(10)).item() == pytest.approx(1.4612, abs=5e-5)


def test_focal_at_gamma_0_is_cross_entropy():
    torch.testing.assert_close(Focal(gamma=0.0).per_example(Z, Y), CrossEntropy().per_example(Z, Y))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_is_its_formula(gamma):
    p = Z.softmax(1).gather(1, Y[:, None]).squeeze(1)
    torch.testing.assert_close(Focal(gamma=gamma).per_example(Z, Y), -((1 - p) ** gamma) * p.log())


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("margin", [1.0, 20.0, 40.0, 200.0])
def test_focal_is_exact_at_confident_logits_where_1_minus_p_rounds_to_0(gamma, margin):
    # For two logits with margin m, 1 - p = σ(-m) and -log p = log1p(e^-m), which float64 computes exactly.
    outputs = torch.tensor([[margin, 0.0]], requires_grad=True)
    loss = Focal(gamma=gamma)(outputs, torch.tensor([0]))
    loss.backward()
    log_rest = -margin - math.log1p(math.exp(-margin))
    expected = math.exp(gamma * log_rest) * math.log1p(math.exp(-margin))
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-38)
    assert torch.isfinite(outputs.grad).all()


def test_the_logarithm_of_1_minus_p_is_exact_in_float32():
    logits = torch.tensor([[50.0, 0.0, -3.0], [0.0, 0.0, 0.0], [-80.0, 10.0, 90.0]])
    exact = (1 - logits.double().softmax(1)).log()
    exact[0, 0] = torch.logsumexp(logits[0, 1:].double(), 0) - torch.logsumexp(logits[0].double(), 0)
    exact[2, 2] = torch.logsumexp(logits[2, :2].double(), 0) - torch.logsumexp(logits[2].double(), 0)
    ours = log_softmax_tails(logits)[1]
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-7)


def test_huber_is_smooth_l1_times_its_delta():
    torch.testing.assert_close(Huber(0.7)(Z, T), 0.7 * SmoothL1(0.7)(Z, T))


def test_squared_error_on_classes_equals_torch_on_one_hot_targets():
    hot = encode(Y, Kind.INDEX, Kind.PROBABILITIES, 5, torch.float64)
    torch.testing.assert_close(MSE()(Z, hot), F.mse_loss(Z, F.one_hot(Y, 5).double()))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Huber(0),
        lambda: SmoothL1(-1),
        lambda: Focal(-0.5),
        lambda: CrossEntropy(label_smoothing=1.5),
        lambda: CrossEntropy(weight=[1, -1]),
        lambda: CrossEntropy(weight=[0, 0]),
        lambda: BCE(pos_weight=-1.0),
        lambda: Focal(float("nan")),
    ],
)
def test_hyperparameters_outside_their_range_are_rejected(wrong):
    with pytest.raises(LabError, match="must"):
        wrong()


def test_a_wrong_number_of_class_weights_is_rejected():
    with pytest.raises(LabError, match="got 2 for 5 classes"):
        CrossEntropy(weight=[1.0, 2.0])(Z, Y)


def test_hyperparameters_are_not_in_the_state_dict():
    assert not CrossEntropy(weight=[1.0, 2.0], label_smoothing=torch.tensor(0.1)).state_dict()


@pytest.mark.parametrize("logits", [[1.0, -torch.inf, 0.0], [3e38, -3e38, 0.0]])
def test_a_logit_of_minus_infinity_gives_finite_losses_as_in_torch(logits):
    outputs, target = torch.tensor([logits]), torch.tensor([0])
    torch.testing.assert_close(CrossEntropy()(outputs, target), F.cross_entropy(outputs, target))


def test_ignored_examples_may_have_any_outputs():
    outputs, target = Z.clone(), Y.clone()
    outputs[2], target[2] = torch.nan, -100
    torch.testing.assert_close(CrossEntropy()(outputs, target), F.cross_entropy(outputs, target))


def test_a_classwise_that_reduces_raises_an_error_with_the_name():
    class Reduced(ClassLoss):
        def classwise(self, outputs):
            return outputs.softmax(1).sum(1)

    with pytest.raises(LabError, match=r"Reduced\.classwise must return a loss per class, \(8, 5\): got \(8,\)"):
        Reduced()(Z, Y)

"""Losses and weights for classes that are not equally frequent."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torchvision.ops import sigmoid_focal_loss

from losslab.errors import LabError
from losslab.losses import BCE, LDAM, CosineSoftmax, CrossEntropy, LogitAdjusted, SigmoidFocal, catalog
from losslab.losses.imbalance import effective_number

Z = 2 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 4, 2, 1, 1, 3, 0, 2])
T = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(1)
HOT = F.one_hot(Y, 5).double()
COUNTS = torch.tensor([5000, 2000, 500, 100, 25])
WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0], dtype=torch.float64)


def gradient(loss, target, outputs=Z):
    outputs = outputs.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(outputs, target), outputs)
    return result


def test_balanced_softmax_is_its_formula():
    loss = catalog.make("balanced_softmax")
    loss.set_class_counts(COUNTS)
    terms = COUNTS * Z.exp()
    torch.testing.assert_close(loss.per_example(Z, Y), -(terms / terms.sum(1, keepdim=True)).log()[range(8), Y])


@pytest.mark.parametrize("tau", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_logit_adjustment_is_cross_entropy_of_adjusted_logits(tau, weight):
    loss = LogitAdjusted(tau, COUNTS, weight)
    adjusted = Z + tau * (COUNTS / COUNTS.sum()).double().log()
    for target in (Y, T):
        torch.testing.assert_close(loss(Z, target), F.cross_entropy(adjusted, target, weight), rtol=1e-6, atol=0)


def test_predicted_probabilities_are_not_adjusted():
    torch.testing.assert_close(LogitAdjusted(2.0, COUNTS).to_probabilities(Z), Z.softmax(1))


def test_equal_counts_do_not_change_the_loss():
    torch.testing.assert_close(LogitAdjusted(1.0, [7] * 5)(Z, Y), CrossEntropy()(Z, Y))
    assert LDAM(0.0, counts=COUNTS)(Z, Y).item() == pytest.approx(CosineSoftmax(1 / 30)(Z, Y).item())


def test_ldams_margins_by_hand():
    # 256 is 4⁴ and 16 is 2⁴, so the margin of the first class is half that of the second.
    outputs = torch.zeros(2, 2, dtype=torch.float64)
    expected = F.softplus(torch.tensor([2.5, 5.0], dtype=torch.float64))
    torch.testing.assert_close(LDAM(0.5, 10.0, [256, 16]).per_example(outputs, torch.tensor([0, 1])), expected)


@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_ldam_is_cross_entropy_of_scaled_cosines_minus_the_margin_of_the_label(weight):
    cosines = Z / Z.abs().max()
    margins = 0.5 * (25 / COUNTS.double()) ** 0.25
    expected = F.cross_entropy(30 * (cosines - HOT * margins), Y, weight)
    torch.testing.assert_close(LDAM(counts=COUNTS, weight=weight)(cosines, Y), expected)
    torch.testing.assert_close(LDAM().to_probabilities(cosines), (30 * cosines).softmax(1))
    assert LDAM.cosine_outputs


@pytest.mark.parametrize("make", [LogitAdjusted, LDAM])
def test_a_class_without_examples_counts_as_the_rarest(make):
    absent, rarest = make(counts=[500, 0, 20, 3, 0]), make(counts=[500, 3, 20, 3, 3])
    torch.testing.assert_close(absent.per_example(Z, Y), rarest.per_example(Z, Y))
    assert gradient(absent, Y).isfinite().all()


@pytest.mark.parametrize("make", [LogitAdjusted, LDAM])
def test_counts_are_taken_from_the_data_unless_given(make):
    given, learnt = make(counts=COUNTS.flip(0)), make()
    for loss in (given, learnt):
        loss.set_class_counts(COUNTS)
    torch.testing.assert_close(given(Z, Y), make(counts=COUNTS.flip(0).tolist())(Z, Y))
    torch.testing.assert_close(learnt(Z, Y), make(counts=COUNTS)(Z, Y))
    learnt.set_class_counts(COUNTS.flip(0))
    torch.testing.assert_close(learnt(Z, Y), given(Z, Y))


def test_a_function_for_class_weights_gets_the_same_counts():
    given, learnt = LDAM(counts=COUNTS, weight=effective_number), LDAM(weight=effective_number)
    learnt.set_class_counts(COUNTS)
    for loss in (given, learnt):
        torch.testing.assert_close(loss.weight, effective_number(COUNTS))


@pytest.mark.parametrize("make", [LogitAdjusted, LDAM])
def test_wrong_counts_raise_a_one_line_error_with_the_fix(make):
    with pytest.raises(LabError, match=r"pass counts=\[...\], or call set_class_counts"):
        make()(Z, Y)
    with pytest.raises(LabError, match="3 for 5 classes"):
        make(counts=[1, 2, 3])(Z, Y)
    for wrong in ([1, -1], [0, 0]):
        with pytest.raises(LabError, match="counts must have one number ≥ 0 per class"):
            make(counts=wrong)


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.5])
@pytest.mark.parametrize("alpha", [0.25, 0.6])
def test_sigmoid_focal_equals_torchvision(alpha, gamma):
    loss = SigmoidFocal(alpha, gamma)

    def theirs(z, t):
        return sigmoid_focal_loss(z, t, alpha, gamma, reduction="mean")

    torch.testing.assert_close(loss(Z, HOT), theirs(Z, HOT))
    torch.testing.assert_close(gradient(loss, HOT), gradient(theirs, HOT))


@pytest.mark.parametrize("gamma", [0.1, 0.5])
def test_sigmoid_focal_is_exact_where_torchvisions_gradient_is_nan(gamma):
    outputs, label = torch.tensor([[40.0]]), torch.ones(1, 1)
    assert gradient(lambda z, t: sigmoid_focal_loss(z, t, gamma=gamma, reduction="mean"), label, outputs).isnan().all()
    # -log p = 1 - p = e^-40 to the last bit, so the loss is α e^(-40 (1 + γ)), and its slope -(1 + γ) times that.
    expected = 0.25 * torch.tensor(-40.0 * (1 + gamma), dtype=torch.float64).exp()
    loss = SigmoidFocal(gamma=gamma)
    assert loss(outputs, label).item() == pytest.approx(expected.item(), rel=1e-5, abs=0)
    assert gradient(loss, label, outputs).item() == pytest.approx(-(1 + gamma) * expected.item(), rel=1e-5, abs=0)


def test_sigmoid_focal_at_alpha_one_half_and_gamma_0_is_half_of_binary_cross_entropy():
    torch.testing.assert_close(SigmoidFocal(0.5, 0.0)(Z, T), BCE()(Z, T) / 2)


def test_balanced_weights_equal_scikit_learn():
    loss = catalog.make("weighted_cross_entropy")
    loss.set_class_counts(COUNTS)
    labels = torch.arange(5).repeat_interleave(COUNTS)
    expected = torch.from_numpy(compute_class_weight("balanced", classes=labels.unique().numpy(), y=labels.numpy()))
    torch.testing.assert_close(loss(Z, Y), F.cross_entropy(Z, Y, expected), rtol=1e-6, atol=0)


def test_class_balanced_uses_the_effective_number():
    loss = catalog.make("class_balanced")
    loss.set_class_counts(COUNTS)
    weight = (1 - 0.9999) / (1 - 0.9999 ** COUNTS.double())
    torch.testing.assert_close(loss(Z, Y), F.cross_entropy(Z, Y, weight * 5 / weight.sum()), rtol=1e-6, atol=0)

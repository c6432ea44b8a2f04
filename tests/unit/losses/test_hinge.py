"""Hinge, squared hinge and the multi-class margin loss."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import hinge_loss

from losslab.losses import Hinge, MultiMargin, SquaredHinge
from losslab.targets import Kind, encode

Z = 2 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 4, 2, 1, 1, 3, 0, 2])
T = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(1)
LABELS = (T > 0.2).double()
WEIGHT = torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0], dtype=torch.float64)


def value_and_gradient(loss, target):
    outputs = Z.clone().requires_grad_()
    value = loss(outputs, target)
    (gradient,) = torch.autograd.grad(value, outputs)
    return value.detach(), gradient


def test_values_by_hand():
    outputs = torch.tensor([[2.0], [0.5], [-1.0], [-3.0]])
    label = torch.tensor([[1.0], [1.0], [1.0], [0.0]])
    assert Hinge().per_example(outputs, label).tolist() == [0, 0.5, 2, 0]
    assert SquaredHinge().per_example(outputs, label).tolist() == [0, 0.25, 4, 0]


def test_binary_hinge_equals_scikit_learn():
    label, outputs = LABELS[:, :1], Z[:, :1]
    assert Hinge()(outputs, label).item() == pytest.approx(hinge_loss(label.flatten(), outputs.flatten()))


@pytest.mark.parametrize(("loss", "power"), [(Hinge(), 1), (SquaredHinge(), 2)])
def test_hinge_is_averaged_over_the_labels(loss, power):
    expected = ((1 - (2 * LABELS - 1) * Z).clamp(min=0) ** power).mean(1)
    torch.testing.assert_close(loss.per_example(Z, LABELS), expected)


@pytest.mark.parametrize("loss", [Hinge(), SquaredHinge()])
def test_soft_label_mixes_the_losses_of_both_labels(loss):
    ones, zeros = torch.ones_like(T), torch.zeros_like(T)
    mixture = 0.3 * loss.per_example(Z, ones) + 0.7 * loss.per_example(Z, zeros)
    torch.testing.assert_close(loss.per_example(Z, 0.3 * ones), mixture)


def test_squared_hinge_is_lowest_at_the_output_of_the_true_probability():
    outputs = torch.linspace(-2, 2, 4001, dtype=torch.float64)[:, None]
    best = outputs[SquaredHinge().per_example(outputs, torch.full_like(outputs, 0.8)).argmin()]
    assert SquaredHinge().to_probabilities(best[None]).item() == pytest.approx(0.8, abs=1e-3)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("margin", [1.0, 2.5])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_multi_margin_equals_torch(p, margin, weight):
    ours = value_and_gradient(MultiMargin(p, margin, weight), Y)
    theirs = value_and_gradient(lambda z, y: F.multi_margin_loss(z, y, p=p, margin=margin, weight=weight), Y)
    torch.testing.assert_close(ours, theirs)


def test_multi_margin_of_soft_targets_is_the_expected_loss():
    loss = MultiMargin(2.0, weight=WEIGHT)
    each = torch.stack([loss.per_example(Z, torch.full((8,), k)) for k in range(5)], 1)
    torch.testing.assert_close(loss.per_example(Z, T), (T * each).sum(1))
    hot = encode(Y, Kind.INDEX, Kind.PROBABILITIES, 5, torch.float64)
    torch.testing.assert_close(loss.per_example(Z, hot), loss.per_example(Z, Y))


def test_multi_margin_ignores_examples_in_the_sum_and_in_the_mean():
    target, kept = Y.clone(), [0, 2, 3, 4, 6, 7]
    target[[1, 5]] = -100
    loss = MultiMargin(weight=WEIGHT)
    torch.testing.assert_close(loss(Z, target), loss(Z[kept], Y[kept]))


def test_missing_margin_much_smaller_than_the_margin_is_exact():
    outputs = torch.tensor([[0.0, 1e-5 - 1, -5.0]])
    expected = (1 + outputs[0, 1].double()) ** 2 / 3
    assert MultiMargin(p=2)(outputs, torch.tensor([0])).item() == pytest.approx(expected.item(), rel=1e-6)


def test_multi_margin_of_two_opposite_outputs_is_half_a_hinge():
    outputs = torch.cat([Z[:, :1], -Z[:, :1]], 1) / 2
    torch.testing.assert_close(
        MultiMargin().per_example(outputs, Y % 2), Hinge().per_example(Z[:, :1], 1.0 - (Y % 2)[:, None]) / 2
    )

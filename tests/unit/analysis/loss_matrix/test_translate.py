"""Outputs translated from one loss to another."""

from functools import cache

import pytest
import torch

from losslab.analysis.loss_matrix.measure import translate
from losslab.losses import BCE, MSE, Brier, CrossEntropy, GaussianNLL, PoissonNLL, catalog

named = cache(catalog.make)


def scores(*shape):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def probabilities(outputs, loss):
    found = loss.to_probabilities(outputs)
    return found / found.sum(1, keepdim=True)


def test_outputs_stay_as_they_are_if_both_losses_read_them_alike():
    outputs = scores(20, 4)
    found, how = translate(outputs, CrossEntropy(), Brier(), values=False, exclusive=True)
    assert how == "as they are"
    assert torch.equal(found, outputs.double())


@pytest.mark.parametrize("trained", ["cross_entropy", "bce", "mse", "squared_hinge"])
@pytest.mark.parametrize("measuring", ["cross_entropy", "bce", "mse", "squared_hinge", "ldam", "rescaled_mse"])
def test_translated_outputs_have_the_same_probabilities(trained, measuring):
    trained, measuring = named(trained), named(measuring)
    outputs = scores(20, 4)
    found, how = translate(outputs, trained, measuring, values=False, exclusive=True)
    assert how
    expected = probabilities(outputs.double(), trained)
    torch.testing.assert_close(probabilities(found, measuring), expected, rtol=1e-3, atol=1e-5)


def test_probabilities_of_labels_need_not_sum_to_1():
    outputs = scores(20, 3)
    found, how = translate(outputs, BCE(), MSE(), values=False, exclusive=False)
    assert how == "translated"
    torch.testing.assert_close(found, outputs.double().sigmoid(), rtol=1e-3, atol=1e-5)


def test_there_is_no_translation_if_no_outputs_have_the_meaning():
    spread = torch.tensor([[50.0, 0.0, 0.0]])  # surer than unit vectors at this temperature can be
    found = translate(
        spread, CrossEntropy(), catalog.make("logit_norm", "loss.temperature=1.0"), values=False, exclusive=True
    )
    assert found[1] == ""


def test_values_are_translated_through_linear_and_exponential_readings():
    outputs = scores(20, 1)
    _, how = translate(outputs, MSE(), named("huber"), values=True, exclusive=False)
    assert how == "as they are"
    found, how = translate(outputs, PoissonNLL(), MSE(), values=True, exclusive=False)
    assert how == "translated"
    torch.testing.assert_close(found, outputs.double().exp())
    found, how = translate(outputs.exp(), MSE(), PoissonNLL(), values=True, exclusive=False)
    assert how == "translated"
    torch.testing.assert_close(found, outputs.double(), atol=1e-6, rtol=1e-6)


def test_a_mean_can_be_read_from_mean_and_variance_but_not_the_reverse():
    assert translate(scores(9, 1), MSE(), GaussianNLL(), values=True, exclusive=False)[1] == ""
    outputs = scores(9, 2)
    found, how = translate(outputs, GaussianNLL(), MSE(), values=True, exclusive=False)
    assert how == "translated"
    torch.testing.assert_close(found, GaussianNLL().to_predictions(outputs.double()))


def test_values_below_0_have_no_translation_to_a_logarithmic_reading():
    assert translate(scores(9, 1), MSE(), PoissonNLL(), values=True, exclusive=False)[1] == ""

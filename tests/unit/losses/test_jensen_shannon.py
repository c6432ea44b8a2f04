"""Jensen-Shannon losses: js and gjs."""

import math
from functools import cache

import mpmath as mp
import pytest
import torch
import torch.nn.functional as F
from exact import check, softmax

from losslab.errors import LabError
from losslab.losses import GJS, JS, MAE, CrossEntropy

Z = 3 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
AGAIN = Z + torch.randn(8, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
BOTH = torch.cat([Z, AGAIN], 1)
Y = torch.tensor([0, 4, 2, 1, 1, 3, 0, 2])
T = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).softmax(1)


def definition(target, predictions, pi):
    """Return the paper's Σ_i π_i KL(p_i ‖ m) / Z of distributions (N, C)."""
    weights = [pi, *[(1 - pi) / len(predictions)] * len(predictions)]
    parts = [target, *predictions]
    mean = sum(w * p for w, p in zip(weights, parts, strict=True))
    divergences = [(torch.xlogy(p, p) - torch.xlogy(p, mean)).sum(1) for p in parts]
    return sum(w * d for w, d in zip(weights, divergences, strict=True)) / (-(1 - pi) * math.log(1 - pi))


@cache
def exact(pi):
    pi = mp.mpf(pi)

    def formula(logits):
        p, w = softmax(logits), 1 - pi
        rest = mp.fsum(p[1:])
        m = pi + w * p[0]
        divergence = -pi * mp.log(m) + w * (p[0] * mp.log(p[0] / m) - rest * mp.log(w))
        return divergence / (-w * mp.log(w))

    return formula


@pytest.mark.parametrize("pi", [1e-9, 1e-3, 0.1, 0.7, 0.999, 1 - 1e-9])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_value_and_gradient_are_exact_at_all_confidences(pi, dtype, rtol):
    check(JS(pi), exact(pi), dtype, rtol)


@pytest.mark.parametrize("pi", [0.1, 0.5, 0.9])
def test_js_equals_its_definition_for_classes_and_for_soft_targets(pi):
    hot = F.one_hot(Y, 5).double()
    torch.testing.assert_close(JS(pi).per_example(Z, Y), definition(hot, [Z.softmax(1)], pi))
    torch.testing.assert_close(JS(pi).per_example(Z, T), definition(T, [Z.softmax(1)], pi))
    torch.testing.assert_close(JS(pi).per_example(Z, hot), JS(pi).per_example(Z, Y))


@pytest.mark.parametrize("pi", [0.1, 0.5, 0.9])
def test_gjs_equals_its_definition_for_classes_and_for_soft_targets(pi):
    hot, views = F.one_hot(Y, 5).double(), [Z.softmax(1), AGAIN.softmax(1)]
    torch.testing.assert_close(GJS(pi).per_example(BOTH, Y), definition(hot, views, pi))
    torch.testing.assert_close(GJS(pi).per_example(BOTH, T), definition(T, views, pi))


@pytest.mark.parametrize("target", [Y, T])
def test_gjs_of_views_that_agree_is_js(target):
    found = GJS(0.3).per_example(torch.cat([Z, Z], 1), target)
    torch.testing.assert_close(found, JS(0.3).per_example(Z, target))


def test_gjs_is_js_of_the_mean_prediction_plus_the_divergence_of_the_views():
    mean = ((Z.softmax(1) + AGAIN.softmax(1)) / 2).log()
    own = definition(Z.softmax(1), [AGAIN.softmax(1)], 0.5) * 0.5 * math.log(2)
    torch.testing.assert_close(GJS(0.3).per_example(BOTH, Y), JS(0.3).per_example(mean, Y) - own / math.log(0.7))


def test_js_is_0_only_where_the_prediction_equals_the_soft_target():
    torch.testing.assert_close(JS(0.4).per_example(T.log(), T), torch.zeros(8, dtype=torch.float64))
    assert (JS(0.4).per_example(Z, T) > 1e-3).all()


@pytest.mark.parametrize("pi", [1e-9, 1e-12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_js_approaches_cross_entropy_as_pi_goes_to_0(pi, dtype):
    outputs, again = (Z.to(dtype).clone().requires_grad_() for _ in range(2))
    ours, theirs = JS(pi)(outputs, Y), CrossEntropy()(again, Y)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    ours.backward()
    theirs.backward()
    torch.testing.assert_close(outputs.grad, again.grad, rtol=1e-4, atol=1e-6)


def test_js_approaches_mae_as_pi_goes_to_1():
    distances = [(JS(1 - w).per_example(Z, Y) - MAE().per_example(Z, Y)).abs().max() for w in (1e-2, 1e-4, 1e-8)]
    # If 1/|log w| is halved, the difference is halved too.
    assert distances[1] / distances[0] == pytest.approx(0.5, abs=0.02)
    assert distances[2] / distances[1] == pytest.approx(0.5, abs=0.02)


def test_value_of_the_published_code_with_its_weights_for_cifar_10():
    # The published code clamps at 1e-7, which changes nothing at these outputs.
    hot, p = F.one_hot(Y, 5).double(), Z.softmax(1)
    mean = (0.7 * hot + 0.3 * p).log()
    published = 0.7 * -mean.gather(1, Y[:, None]).squeeze(1) + 0.3 * (p * (p.log() - mean)).sum(1)
    torch.testing.assert_close(JS().per_example(Z, Y), published / (-0.3 * math.log(0.3)))


@pytest.mark.parametrize("pi", [1e-9, 0.3, 1 - 1e-9])
def test_a_soft_target_with_zeros_has_an_exact_loss_in_float32(pi):
    target = torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.2, 0.3, 0.5]])
    outputs, precise = (torch.tensor([[3.0, -1.0, 0.0]] * 3, dtype=t) for t in (torch.float32, torch.float64))
    for leaf in (outputs, precise):
        leaf.requires_grad_()
        JS(pi)(leaf, target).backward()
    torch.testing.assert_close(JS(pi)(outputs, target).double(), JS(pi)(precise, target), rtol=1e-5, atol=0)
    torch.testing.assert_close(outputs.grad.double(), precise.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(JS(pi)(precise[:1], target[:1]), JS(pi)(precise[:1], torch.tensor([0])))


def test_equal_views_have_no_divergence_at_any_weight_of_the_target():
    outputs = torch.cat([Z, Z], 1).float()
    torch.testing.assert_close(GJS(1e-9)(outputs, Y), JS(1e-9)(Z.float(), Y))


class TwiceAsLarge(torch.nn.Module):
    def forward(self, inputs):
        return 2 * inputs


def test_gjs_uses_another_view_in_training_and_the_outputs_twice_in_evaluation():
    loss = GJS(view=lambda inputs: inputs + 1)
    outputs = TwiceAsLarge()(Z)
    torch.testing.assert_close(loss.loss_inputs(outputs, Z, TwiceAsLarge()), torch.cat([2 * Z, 2 * Z + 2], 1))
    loss.eval()
    torch.testing.assert_close(loss.loss_inputs(outputs, Z, TwiceAsLarge()), torch.cat([2 * Z, 2 * Z], 1))


@pytest.mark.parametrize(("loss", "outputs"), [(JS(), Z), (GJS(), BOTH)])
def test_an_ignored_index_is_excluded_from_the_sum_and_the_mean(loss, outputs):
    target = Y.clone()
    target[[1, 5]] = -100
    counted = target != -100
    torch.testing.assert_close(loss(outputs, target), loss(outputs[counted], target[counted]))


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1, math.nan])
def test_pi_outside_0_to_1_is_rejected(wrong):
    with pytest.raises(LabError, match="must be a number in"):
        JS(wrong)

"""Losses with the wrong sign or without a minimum, and sound losses that are similar."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from losslab import losses
from losslab.doctor import Severity, examine, report

N, C = 32, 5
X = torch.randn(N, 8, generator=torch.Generator().manual_seed(1))
Z = torch.randn(N, C, generator=torch.Generator().manual_seed(2))
LABELS, YES = Z.argmax(1), (Z > 0).float()
HOT = F.one_hot(LABELS, C).float()
WEIGHT = torch.arange(1.0, 1 + C)


class Negated(losses.CrossEntropy):
    def score(self, outputs, target):
        return -super().score(outputs, target)


class NegatedMSE(losses.MSE):
    def score(self, outputs, target):
        return -super().score(outputs, target)


class OfLogs(losses.CrossEntropy):
    """A loss of log-probabilities, which is given logits."""

    def score(self, outputs, target):
        return -outputs.gather(1, target[:, None])[:, 0]


class Module(nn.Module):
    def forward(self, outputs, target):
        return -(outputs * target).sum(1).mean()


def margins(outputs, target):
    right = outputs.gather(1, target[:, None])
    return (1 + outputs - right).relu().mean()


def ordinal(outputs, target):
    above = (torch.arange(C) < target[:, None]).float()
    return F.binary_cross_entropy_with_logits(outputs, above)


def correlation(outputs, target):
    return -F.cosine_similarity(outputs, target).mean()


WRONG = {
    "negated ce": (lambda o, t: -F.cross_entropy(o, t), LABELS, "loss-upside-down"),
    "negated ce, ours": (Negated(), LABELS, "loss-upside-down"),
    "negated ce, one-hot": (lambda o, t: -F.cross_entropy(o, t), HOT, "loss-upside-down"),
    "negated mse": (lambda o, t: -F.mse_loss(o, t), Z, "loss-upside-down"),
    "negated mse, ours": (NegatedMSE(), Z, "loss-upside-down"),
    "negated bce": (lambda o, t: -F.binary_cross_entropy_with_logits(o, t), YES, "loss-upside-down"),
    "nll of logits": (lambda o, t: F.nll_loss(o, t), LABELS, "no-log-probabilities"),  # noqa: PLW0108
    "weighted nll of logits": (lambda o, t: F.nll_loss(o, t, weight=WEIGHT), LABELS, "loss-unbounded"),
    "nll of twice the logits": (lambda o, t: F.nll_loss(2 * o, t), LABELS, "loss-unbounded"),
    "nll of logits, summed": (lambda o, t: F.nll_loss(o, t, reduction="sum"), LABELS, "loss-unbounded"),
    "nll of logits, ours": (OfLogs(), LABELS, "loss-unbounded"),
    "nll of logits, one-hot": (Module(), HOT, "no-log-probabilities"),
}
SOUND = {
    "ce": (lambda o, t: F.cross_entropy(o, t, weight=WEIGHT, label_smoothing=0.3), LABELS),
    "ce, ours": (losses.CrossEntropy(), HOT),
    "mse": (lambda o, t: 2 * F.mse_loss(o, t), Z),
    "mse, ours": (losses.MSE(), Z),
    "bce": (lambda o, t: 2 * F.binary_cross_entropy_with_logits(o, t), YES),
    "bce of rows": (lambda o, t: 2 * F.binary_cross_entropy_with_logits(o, t), Z.softmax(1)),
    "likelihood of a Poisson distribution": (lambda o, t: (o.exp() - t * o).mean(), (3 * YES)),
    "weighted nll": (lambda o, t: F.nll_loss(o.log_softmax(1), t, weight=WEIGHT), LABELS),
    "less a constant": (lambda o, t: F.cross_entropy(o, t) - 100, LABELS),
    "margins": (margins, LABELS),
    "distances": (lambda o, t: F.cross_entropy(-o, t), LABELS),
    "ranks": (ordinal, LABELS),
    "correlation": (correlation, Z),
    "minus the probability": (lambda o, t: -o.softmax(1).gather(1, t[:, None]).mean(), LABELS),
}


def network(*last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, C), *last)


@pytest.mark.parametrize("wrong", WRONG)
def test_loss_with_the_wrong_sign_or_without_a_minimum_is_an_error(wrong):
    loss, target, name = WRONG[wrong]
    found = examine(network(), loss, (X, target))
    assert [(finding.severity, finding.name) for finding in found] == [(Severity.ERROR, name)], report(found)


@pytest.mark.parametrize("sound", SOUND)
def test_loss_that_is_lowest_at_correct_outputs_is_sound(sound):
    loss, target = SOUND[sound]
    found = examine(network(), loss, (X, target))
    assert not found, report(found)


@pytest.mark.parametrize("last", [nn.LogSoftmax(1), nn.Softmax(1), nn.LogSigmoid(), nn.Tanh()])
def test_loss_without_a_minimum_is_sound_if_the_network_bounds_its_outputs(last):
    found = examine(network(last), lambda o, t: F.nll_loss(o, t, weight=WEIGHT), (X, LABELS))
    assert not found, report(found)


def test_negated_loss_is_sound_if_the_optimizer_maximizes():
    body = network()
    optimizer = torch.optim.SGD(body.parameters(), lr=0.1, maximize=True)
    assert not examine(body, WRONG["negated ce"][0], (X, LABELS), optimizer=optimizer)

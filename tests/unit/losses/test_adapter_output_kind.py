"""`infer` (for the adapter) and `identify` (for the doctor) find out what a criterion takes the outputs for."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from losslab import losses
from losslab.losses.adapter.output_kind import OutputKind, identify, infer
from losslab.losses.adapter.probe import find_probe
from losslab.targets import Kind

CLASSES = 5
WEIGHT = torch.linspace(0.5, 2, CLASSES)


def by_hand(outputs, target):
    return -(target * outputs.log_softmax(1)).sum(1).mean()


def weighted_nll(outputs, target):
    return F.nll_loss(outputs, target, weight=WEIGHT)


CRITERIA = {
    "cross-entropy": (nn.CrossEntropyLoss(), Kind.INDEX, OutputKind.LOGITS),
    "cross-entropy by hand": (by_hand, Kind.PROBABILITIES, OutputKind.LOGITS),
    "bce on logits": (F.binary_cross_entropy_with_logits, Kind.BINARY, OutputKind.BINARY_LOGITS),
    "bce": (lambda o, t: F.binary_cross_entropy(o, t), Kind.BINARY, OutputKind.PROBABILITIES),  # noqa: PLW0108
    "nll": (nn.NLLLoss(), Kind.INDEX, OutputKind.LOG_PROBABILITIES),
    "nll by hand": (lambda o, t: -o.gather(1, t[:, None]).mean(), Kind.INDEX, OutputKind.LOG_PROBABILITIES),
    "kl": (partial(F.kl_div, reduction="batchmean"), Kind.PROBABILITIES, OutputKind.LOG_PROBABILITIES),
    "mse": (nn.MSELoss(), Kind.VALUES, OutputKind.VALUES),
    "l1 by hand": (lambda o, t: (o - t).abs().mean(), Kind.VALUES, OutputKind.VALUES),
    "poisson": (nn.PoissonNLLLoss(), Kind.VALUES, OutputKind.LOG_VALUES),
    "poisson of rates": (nn.PoissonNLLLoss(log_input=False), Kind.VALUES, OutputKind.VALUES),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_identify_and_infer_agree_where_both_are_certain(name):
    criterion, kind, expected = CRITERIA[name]
    probe = find_probe(criterion, kind, CLASSES)
    assert infer(probe) is expected
    assert identify(criterion, *probe.batches[0]) is expected


def test_identify_returns_unknown_in_doubt_where_infer_returns_the_most_likely_kind():
    probe = find_probe(weighted_nll, Kind.INDEX, CLASSES)
    assert infer(probe) is OutputKind.LOG_PROBABILITIES
    assert identify(weighted_nll, *probe.batches[0]) is OutputKind.UNKNOWN


def test_identify_uses_what_a_losslab_loss_declares():
    outputs, index = torch.zeros(4, CLASSES), torch.zeros(4, dtype=torch.int64)
    assert identify(losses.Focal(), outputs, index) is OutputKind.LOGITS
    assert identify(losses.BCE(), outputs, outputs) is OutputKind.BINARY_LOGITS
    assert identify(losses.Huber(), outputs, outputs) is OutputKind.VALUES

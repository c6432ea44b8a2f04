"""Inputs that are not normalised or not finite, and batches with too few classes."""

import pytest
import torch
from torch import nn

from losslab import losses
from losslab.doctor import examine
from losslab.errors import LabError
from losslab.losses.adapter.adapted import adapt
from losslab.targets import Kind

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.randint(5, (32,), generator=torch.Generator().manual_seed(2))


def names(found) -> list[str]:
    return [finding.name for finding in found]


@pytest.mark.parametrize(("scale", "fix"), [(1.0, "divide by 255"), (1 / 255, None)])
def test_bytes_are_found_and_scaled_images_are_not(scale, fix):
    images = torch.randint(256, (32, 3, 8, 8), generator=torch.Generator().manual_seed(0)) * scale
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5))
    found = [
        finding
        for finding in examine(network, nn.CrossEntropyLoss(), (images, LABELS))
        if finding.name != "initial-loss"
    ]
    assert names(found) == ([] if fix is None else ["inputs-not-normalised"])
    assert fix is None or fix in found[0].fix


def test_large_features_are_found():
    found = examine(nn.Linear(8, 5), nn.HuberLoss(), (1000 * X, torch.zeros(32, 5)))
    assert names(found) == ["inputs-not-normalised"]
    assert "standardise" in found[0].fix


def test_nan_in_the_inputs_is_found_unless_the_network_replaces_it():
    inputs = X.clone()
    inputs[3, 2] = torch.nan
    assert names(examine(nn.Linear(8, 5), nn.CrossEntropyLoss(), (inputs, LABELS))) == ["inputs-not-finite"]
    linear = nn.Linear(8, 5)

    def filled(inputs):
        return linear(inputs.nan_to_num())

    assert not examine(filled, nn.CrossEntropyLoss(), (inputs, LABELS))


def test_sorted_data_are_found_and_rare_classes_are_not():
    many = torch.randn(256, 8)
    found = examine(nn.Linear(8, 10), nn.CrossEntropyLoss(), (many, torch.full((256,), 3)))
    assert names(found) == ["classes-missing"]
    rare = torch.zeros(256, dtype=torch.int64)
    rare[:5] = torch.tensor([1, 3, 5, 7, 9])
    assert not examine(nn.Linear(8, 10), nn.CrossEntropyLoss(), (many, rare))


LINEAR, COLUMN = nn.Linear(8, 5), nn.Linear(8, 1)
LOG_SOFTMAX = nn.Sequential(LINEAR, nn.LogSoftmax(1))
HOT = nn.functional.one_hot(LABELS, 5).float()


@pytest.mark.parametrize(
    ("network", "loss", "target", "part", "words"),
    [
        (COLUMN, nn.MultiMarginLoss(), LABELS * 0, "why", "nothing to be compared with"),
        (LOG_SOFTMAX, nn.NLLLoss(), HOT, "why", "class indices of shape (N,), not rows"),
        (LOG_SOFTMAX, nn.NLLLoss(), LABELS.float(), "why", "class indices are integers"),
        (LINEAR, nn.CrossEntropyLoss(), X[:, :5], "fix", "softmax of logits"),
        (LINEAR, nn.MSELoss(), X[:, :1], "why", "not compared one to one"),
        (COLUMN, nn.MSELoss(), X[:, 0], "why", "every output is compared with every target"),
    ],
)
def test_message_describes_the_targets_that_were_given(network, loss, target, part, words):
    assert words in getattr(examine(network, loss, (X, target))[0], part)


def test_non_finite_outputs_are_counted_by_example():
    linear = nn.Linear(8, 5)

    def network(inputs):
        outputs = linear(inputs["x"])
        return outputs.masked_fill(torch.arange(len(outputs))[:, None] < 3, torch.nan)

    (finding,) = examine(network, nn.CrossEntropyLoss(), ({"x": X}, LABELS))
    assert finding.problem == "the outputs of 3 of 32 examples are NaN or infinite"


VALUES, SCORES = X[:, :1], X[:, :5]
ADVICE = {
    "counts below 0": (COLUMN, nn.PoissonNLLLoss(), VALUES, "counts-negative", "counts that are not standardised"),
    "amounts below 0": (
        COLUMN,
        lambda z, t: (t * torch.exp(-z) + z).mean(),
        VALUES,
        "targets-out-of-reach",
        "not standardised",
    ),
    "amounts below 0, ours": (COLUMN, losses.Tweedie(), VALUES, "targets-out-of-reach", "not standardised"),
    "logarithms of targets below 0": (
        COLUMN,
        lambda z, t: (z - (t + 1).log()).square().mean(),
        3 * VALUES,
        "loss-not-finite",
        "the targets go down to",
    ),
    "labels outside of 0 and 1": (LINEAR, nn.BCEWithLogitsLoss(), SCORES, "labels-outside-0-1", "labels of 0 and 1"),
    "labels outside of 0 and 1, probabilities": (
        nn.Sequential(LINEAR, nn.Sigmoid()),
        nn.BCELoss(),
        SCORES,
        "labels-outside-0-1",
        "labels of 0 and 1",
    ),
    "logits for probabilities": (LINEAR, nn.BCELoss(), HOT, "no-probabilities", "on logits"),
    "scores for probabilities": (
        LOG_SOFTMAX,
        nn.KLDivLoss(reduction="batchmean"),
        SCORES,
        "targets-negative",
        "softmax of logits",
    ),
    "logits for log-probabilities": (
        LINEAR,
        nn.KLDivLoss(reduction="batchmean"),
        SCORES.softmax(1),
        "no-log-probabilities",
        "log_softmax",
    ),
    "mean over the classes": (LOG_SOFTMAX, nn.KLDivLoss(), SCORES.softmax(1), "kl-element-mean", "batchmean"),
    "rectified values": (
        nn.Sequential(COLUMN, nn.ReLU()),
        nn.MSELoss(),
        VALUES,
        "targets-out-of-reach",
        "end the network in a linear layer",
    ),
}


@pytest.mark.parametrize("case", ADVICE)
def test_advice_names_the_cause_also_for_an_adapted_criterion(case):
    network, criterion, target, name, fix = ADVICE[case]
    kind = Kind.VALUES if target.shape[1] == 1 else Kind.BINARY
    kind = Kind.PROBABILITIES if isinstance(criterion, nn.KLDivLoss) else kind
    (finding,) = examine(network, adapt(criterion, kind, target.shape[1]), (X, target))
    assert finding.name == name
    assert fix in finding.fix


def test_outputs_below_0_are_named_if_the_loss_is_finite_for_others():
    (finding,) = examine(COLUMN, lambda z, t: (z.log() - t.log()).square().mean(), (X, VALUES.abs() + 1))
    assert "the outputs go down to" in finding.fix


def test_one_index_far_out_of_range_may_mean_no_label():
    labels = LABELS.clone()
    labels[::4] = 255
    (finding,) = examine(LINEAR, nn.CrossEntropyLoss(), (X, labels))
    assert "ignore_index=255" in finding.fix
    assert "256 outputs" in finding.fix


def test_adapted_criterion_of_probabilities_names_targets_or_outputs():
    loss = adapt(nn.BCELoss(), Kind.BINARY, 5)
    with pytest.raises(LabError, match="the targets of the data"):
        loss(HOT, HOT + 1)
    with pytest.raises(LabError, match="the outputs of the network"):
        loss(HOT + 1, HOT)

"""Every loss of the lab, on targets of the kind it asks for first: the doctor must keep silent."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from losslab.doctor import examine, report
from losslab.losses import catalog
from losslab.losses.base import Loss
from losslab.models.cosine import CosineLinear
from losslab.targets import Kind
from losslab.training.preflight import _Agreeing

N, C = 64, 5
DRAWN = torch.randn(N, C, generator=torch.Generator().manual_seed(2))
LABELS = DRAWN.argmax(1)
OF_COUNTS = ("poisson_nll", "tweedie")


def target(name: str, kind: Kind, columns: int) -> torch.Tensor:
    """Of the kind, in so many columns where the kind leaves it open."""
    if name in OF_COUNTS:
        return (3 * DRAWN[:, :columns].abs()).round()
    return {
        Kind.INDEX: LABELS,
        Kind.PROBABILITIES: F.one_hot(LABELS, C).float(),
        Kind.BINARY: (DRAWN[:, :columns] > 0).float(),
        Kind.VALUES: DRAWN[:, :columns],
    }[kind]


def network(loss: Loss, columns: int) -> nn.Module:
    last = CosineLinear(16, columns) if loss.cosine_outputs else nn.Linear(16, loss.outputs(columns))
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), last)


@pytest.mark.parametrize("columns", [1, C])
@pytest.mark.parametrize("name", catalog.names())
def test_nothing_is_found_in_a_loss_of_the_lab_on_what_it_is_for(name, columns):
    loss = catalog.make(name)
    kind = loss.wants[0]
    if kind in {Kind.INDEX, Kind.PROBABILITIES}:
        columns = C
    loss.set_class_counts(LABELS.bincount(minlength=C))
    torch.manual_seed(0)
    inputs = torch.randn(N, 8)
    body = network(loss, columns)
    optimizer = torch.optim.SGD(body.parameters(), lr=0.01)
    loss = loss if loss.n_views == 1 else _Agreeing(loss)
    found = examine(body, loss, (inputs, target(name, kind, columns)), optimizer=optimizer)
    assert not found, report(found)


class OfValuesFirst(Loss):
    """Says nothing of probabilities, so that the base says softmax."""

    wants = (Kind.VALUES, Kind.BINARY, Kind.INDEX)

    def score(self, outputs, target):
        return (outputs - target).square().flatten(1).mean(1)


class OfYesAndNo(OfValuesFirst):
    wants = (Kind.BINARY,)


@pytest.mark.parametrize("loss", [OfValuesFirst(), OfYesAndNo()])
def test_a_loss_of_ones_own_that_says_nothing_of_probabilities_is_not_read_as_one_of_classes(loss):
    found = examine(nn.Linear(8, 1), loss, (torch.randn(N, 8), (DRAWN[:, :1] > 0).float()))
    assert not found, report(found)


def test_rates_that_are_exponentials_of_outputs_are_in_reach_and_negative_counts_are_not():
    rectified = nn.Sequential(nn.Linear(8, 1), nn.Hardtanh())
    batch = torch.randn(N, 8), (3 * DRAWN[:, :1].abs()).round()
    assert not examine(rectified, catalog.make("poisson_nll"), batch)
    found = examine(nn.Linear(8, 1), catalog.make("poisson_nll"), (batch[0], DRAWN[:, :1]))
    assert [finding.name for finding in found] == ["targets-out-of-reach"]

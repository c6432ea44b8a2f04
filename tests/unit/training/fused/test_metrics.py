"""The metrics of stacked members are exactly those that each member has alone."""

import math

import pytest
import torch

from losslab.data.batch import DataSpec
from losslab.models.metrics import EvaluationMetrics
from losslab.targets import Kind, Task
from losslab.training.fused.metrics import StackedMetrics

MEMBERS = 3
SPECS = {
    "regression": DataSpec(Task.REGRESSION, Kind.VALUES, (4,), 1),
    "several values": DataSpec(Task.REGRESSION, Kind.VALUES, (4,), 3),
    "binary": DataSpec(Task.BINARY, Kind.BINARY, (4,), 1),
    "two classes": DataSpec(Task.MULTICLASS, Kind.INDEX, (4,), 2),
    "six classes": DataSpec(Task.MULTICLASS, Kind.INDEX, (4,), 6),
    "labels": DataSpec(Task.MULTILABEL, Kind.BINARY, (4,), 3),
}


def batch(spec, size, highest, generator, dtype):
    """Random outputs, probabilities and targets, of which the classes from `highest` on are empty."""
    outputs = 2 * torch.randn(MEMBERS, size, spec.targets, generator=generator, dtype=dtype)
    if spec.task is Task.REGRESSION:
        return outputs, None, torch.randn(MEMBERS, size, spec.targets, generator=generator, dtype=dtype)
    if spec.task is Task.MULTICLASS:
        truth = torch.randint(min(highest, spec.targets), (MEMBERS, size), generator=generator)
        return outputs, outputs.softmax(2), truth
    truth = torch.randint(min(highest, 2), (MEMBERS, size, spec.targets), generator=generator).to(dtype)
    return outputs, outputs.sigmoid(), truth


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("highest", [9, 1], ids=["all classes", "one class"])
@pytest.mark.parametrize("sizes", [(1,), (50,), (7, 7, 3)], ids=["one example", "one batch", "three batches"])
@pytest.mark.parametrize("name", SPECS)
def test_stacked_metrics_equal_those_of_each_member(name, sizes, highest, dtype):
    spec, generator = SPECS[name], torch.Generator().manual_seed(0)
    stacked = StackedMetrics(spec, MEMBERS, torch.device("cpu"))
    alone = [EvaluationMetrics(spec) for _ in range(MEMBERS)]
    for size in sizes:
        outputs, probabilities, truth = batch(spec, size, highest, generator, dtype)
        stacked.update(outputs, probabilities, truth)
        for member, metrics in enumerate(alone):
            metrics.update(outputs[member], None if probabilities is None else probabilities[member], truth[member])
    values = stacked.compute()
    assert stacked.names == [*values]
    for member, metrics in enumerate(alone):
        expected = metrics.compute()
        assert [*values] == [*expected]
        for key, value in expected.items():
            one, other = float(values[key][member]), float(value)
            # A sum over the examples of all members may be added in another order: one unit in the last place or two.
            assert one == pytest.approx(other, rel=5e-16, abs=1e-16) or (math.isnan(one) and math.isnan(other)), key


@pytest.mark.parametrize("name", ["binary", "six classes"])
def test_certain_and_impossible_probabilities_give_the_same_metrics(name):
    spec = SPECS[name]
    rows = torch.tensor([[1.0], [0.0], [0.5], [1.0]]) if spec.targets == 1 else torch.eye(6)[:4] * 1.0
    truth = torch.tensor([[1.0], [1.0], [0.0], [0.0]]) if spec.targets == 1 else torch.tensor([0, 5, 2, 2])
    stacked, alone = StackedMetrics(spec, 2, torch.device("cpu")), EvaluationMetrics(spec)
    stacked.update(*(each.expand(2, *each.shape) for each in (rows, rows, truth)))
    alone.update(rows, rows, truth)
    for key, value in alone.compute().items():
        assert stacked.compute()[key].tolist() == pytest.approx([float(value)] * 2, rel=5e-16), key

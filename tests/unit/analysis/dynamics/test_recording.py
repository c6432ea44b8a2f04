"""Snapshots and their gradients, compared with formulas."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from losslab.analysis.dynamics import recording
from losslab.analysis.dynamics.recording import LINE, decision_threshold, layer_titles, loss_slope
from losslab.data.batch import Batch, DataSpec
from losslab.losses import BCE, MAE, MSE, CrossEntropy, GaussianNLL, Hinge, Huber
from losslab.models.learner import Classifier, Regressor
from losslab.targets import Kind, Task

TEN = DataSpec(Task.MULTICLASS, Kind.INDEX, (4,), targets=10)
LABELS = DataSpec(Task.MULTILABEL, Kind.BINARY, (4,), targets=3)
VALUES = DataSpec(Task.REGRESSION, Kind.VALUES, (4,), targets=1)


def learner(loss, spec, network=None):
    kind = Regressor if spec.task is Task.REGRESSION else Classifier
    return kind(network or nn.Linear(4, loss.outputs(spec.targets)), loss, spec)


def batches(spec, count=40, sizes=(16, 24)):
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 4, generator=draws)
    if spec.kind is Kind.VALUES:
        target = torch.randn(count, spec.targets, generator=draws)
    elif spec.kind is Kind.BINARY:
        target = torch.randint(2, (count, spec.targets), generator=draws).float()
    else:
        target = torch.randint(spec.targets, (count,), generator=draws)
    whole = Batch(inputs, target, target.clone(), torch.arange(count))
    return whole, [Batch(*parts) for parts in zip(*(part.split(list(sizes)) for part in whole), strict=True)]


def test_the_gradient_of_cross_entropy_is_p_minus_y():
    torch.manual_seed(0)
    whole, parts = batches(TEN)
    snapshot = recording.take_snapshot(learner(CrossEntropy(), TEN), parts, 0, 0)
    hot = np.eye(10)[whole.target.numpy()]
    p = torch.from_numpy(snapshot.outputs).double().softmax(1).numpy()
    assert snapshot.gradient == pytest.approx(np.linalg.norm(p - hot, axis=1), rel=1e-5)
    assert snapshot.loss == pytest.approx(-np.log((p * hot).sum(1)), rel=1e-5)


def test_layer_gradients_are_those_of_the_mean_loss_for_any_batches():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 10))
    module = learner(CrossEntropy(), TEN, network)
    whole, parts = batches(TEN)
    snapshot = recording.take_snapshot(module, parts, 0, 0)
    nn.functional.cross_entropy(network(whole.inputs), whole.target).backward()
    expected = [
        torch.cat([p.grad.flatten() for p in layer.parameters()]).square().mean().sqrt().item()
        for layer in (network[0], network[2])
    ]
    assert snapshot.flow == pytest.approx(expected, rel=1e-5)
    assert layer_titles(network) == ["0 Linear", "2 Linear"]


def test_a_frozen_layer_has_no_gradient_and_the_others_have():
    network = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 10))
    network[0].requires_grad_(requires_grad=False)
    snapshot = recording.take_snapshot(learner(CrossEntropy(), TEN, network), batches(TEN)[1], 0, 0)
    assert math.isnan(snapshot.flow[0])
    assert snapshot.flow[1] > 0


def test_a_snapshot_changes_nothing():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 10))
    module = learner(CrossEntropy(), TEN, network).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    draws = torch.default_generator.get_state()
    recording.take_snapshot(module, batches(TEN)[1], 0, 0)
    assert torch.equal(torch.default_generator.get_state(), draws)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(each.training for each in module.modules())
    assert all(parameter.grad is None for parameter in module.parameters())


def test_dropout_is_off_in_a_snapshot():
    network = nn.Sequential(nn.Linear(4, 10), nn.Dropout(0.5))
    module = learner(CrossEntropy(), TEN, network).train()
    first, second = (recording.take_snapshot(module, batches(TEN)[1], 0, 0) for _ in range(2))
    assert (first.outputs != 0).all()
    assert (first.outputs == second.outputs).all()


def test_a_class_margin_is_to_the_largest_other_output():
    module = learner(CrossEntropy(), DataSpec(Task.MULTICLASS, Kind.INDEX, (4,), targets=3))
    outputs = torch.tensor([[5.0, 2.0, 1.0], [5.0, 2.0, 7.0]])
    assert recording.margin(module, outputs, torch.tensor([0, 1])).tolist() == [3, -5]
    soft = learner(CrossEntropy(), DataSpec(Task.MULTICLASS, Kind.PROBABILITIES, (4,), targets=3))
    assert recording.margin(soft, outputs, torch.tensor([[0.6, 0.4, 0], [0.1, 0.2, 0.7]])).tolist() == [3, 2]


def test_a_multilabel_margin_is_that_of_the_weakest_label():
    outputs, target = torch.tensor([[3.0, -1.0, 2.0], [3.0, -1.0, 2.0]]), torch.tensor([[1.0, 0, 1], [1, 1, 0]])
    assert recording.margin(learner(BCE(), LABELS), outputs, target).tolist() == [1, -2]


def test_outputs_that_are_probabilities_have_threshold_one_half():
    module = learner(MSE(), replace(LABELS, targets=1, task=Task.BINARY))
    assert decision_threshold(module) == 0.5
    assert recording.margin(module, torch.tensor([[0.75], [0.25]]), torch.ones(2, 1)).tolist() == [0.25, -0.25]
    assert decision_threshold(learner(Hinge(), LABELS)) == 0


def test_a_regression_margin_is_the_residual():
    outputs, target = torch.tensor([[1.0], [1.0]]), torch.tensor([[3.0], [0.5]])
    assert recording.margin(learner(MSE(), VALUES), outputs, target).tolist() == [-2, 0.5]
    several = replace(VALUES, targets=2)
    assert recording.margin(learner(MSE(), several), torch.tensor([[3.0, 4.0]]), torch.zeros(1, 2)).item() == (
        pytest.approx(math.sqrt(12.5))
    )
    likelihood = learner(GaussianNLL(), VALUES)
    assert recording.margin(likelihood, torch.tensor([[1.0, 9.0]]), torch.tensor([[3.0]])).item() == -2


def test_slope_of_cross_entropy_for_ten_classes_equals_its_formula():
    p = 1 / (1 + 9 * np.exp(-LINE.clip(-700)))
    expected = np.sqrt((1 - p) ** 2 + 9 * ((1 - p) / 9) ** 2)
    assert loss_slope(learner(CrossEntropy(), TEN)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_slope_of_huber_is_the_residual_up_to_one():
    assert loss_slope(learner(Huber(), VALUES)) == pytest.approx(np.minimum(np.abs(LINE), 1))


def test_slopes_of_binary_losses():
    one = replace(LABELS, targets=1, task=Task.BINARY)
    assert loss_slope(learner(Hinge(), one)) == pytest.approx(np.where(LINE < 1, 1, 0))
    assert loss_slope(learner(BCE(), one)) == pytest.approx(1 / (1 + np.exp(np.clip(LINE, -700, 700))), abs=1e-12)
    assert loss_slope(learner(MSE(), one)) == pytest.approx(2 * np.abs(LINE - 0.5))


def test_mae_gives_confidently_wrong_examples_no_gradient_but_cross_entropy_does():
    wrong = np.searchsorted(LINE, -10)
    start = np.searchsorted(LINE, 0)
    of_mae, of_cross_entropy = loss_slope(learner(MAE(), TEN)), loss_slope(learner(CrossEntropy(), TEN))
    assert of_mae[wrong] < 1e-3 * of_mae[start]
    assert of_cross_entropy[wrong] > of_cross_entropy[start]


def test_slope_is_nan_where_outputs_are_not_the_predicted_values():
    assert np.isfinite(loss_slope(learner(GaussianNLL(), VALUES))).all()
    from losslab.losses import PoissonNLL

    assert np.isnan(loss_slope(learner(PoissonNLL(), VALUES))).all()


def test_every_run_draws_the_same_examples():
    rows = recording.draw_rows(1000, 50, 0)
    assert len(rows) == len(rows.unique()) == 50
    assert torch.equal(rows, rows.sort().values)
    assert torch.equal(rows, recording.draw_rows(1000, 50, 0))
    assert not torch.equal(rows, recording.draw_rows(1000, 50, 1))
    assert recording.draw_rows(30, 50, 0).tolist() == list(range(30))


def test_a_target_that_differs_from_the_truth_is_corrupted():
    index = torch.arange(3)
    hard = Batch(torch.zeros(3, 4), torch.tensor([1, 2, 3]), torch.tensor([1, 0, 3]), index)
    assert recording.describe_examples(learner(CrossEntropy(), TEN), [hard]).corrupted.tolist() == [False, True, False]
    rows = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.6, 0.4]])
    soft = Batch(torch.zeros(3, 4), rows, torch.tensor([0, 0, 0]), index)
    two = DataSpec(Task.MULTICLASS, Kind.PROBABILITIES, (4,), targets=2)
    assert recording.describe_examples(learner(CrossEntropy(), two), [soft]).corrupted.tolist() == [False, True, False]
    labels = Batch(torch.zeros(2, 4), torch.tensor([[1.0, 0, 1], [0, 0, 0]]), torch.tensor([[1.0, 0, 1], [0, 0, 1]]),
                   index[:2])  # fmt: skip
    assert recording.describe_examples(learner(BCE(), LABELS), [labels]).corrupted.tolist() == [False, True]

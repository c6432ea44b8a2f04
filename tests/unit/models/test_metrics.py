"""Metrics compared with scikit-learn, in batches of unequal size."""

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from losslab.data.batch import DataSpec
from losslab.io.metric_names import direction
from losslab.models.metrics import Average, EvaluationMetrics, RunningMean
from losslab.targets import Kind, Task

N = 101
RANDOM = torch.Generator().manual_seed(0)


def measured(spec: DataSpec, outputs, probabilities, truth, batch: int = 16) -> dict[str, float]:
    metrics = EvaluationMetrics(spec)
    for i in range(0, N, batch):
        part = slice(i, i + batch)
        metrics.update(outputs[part], None if probabilities is None else probabilities[part], truth[part])
    return {name: value.item() for name, value in metrics.compute().items()}


def test_multiclass_metrics_agree_with_scikit_learn():
    outputs, truth = torch.randn(N, 4, generator=RANDOM), torch.randint(4, (N,), generator=RANDOM)
    p = outputs.softmax(1)
    ours = measured(DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), 4), outputs, p, truth)
    y, decided, exact = truth.numpy(), outputs.argmax(1).numpy(), outputs.double().softmax(1).numpy()
    macro = {"average": "macro", "zero_division": 0}
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(y, decided), abs=1e-12)
    assert ours["precision"] == pytest.approx(sk.precision_score(y, decided, **macro), abs=1e-7)
    assert ours["recall"] == pytest.approx(sk.recall_score(y, decided, **macro), abs=1e-7)
    assert ours["f1"] == pytest.approx(sk.f1_score(y, decided, **macro), abs=1e-7)
    assert ours["nll"] == pytest.approx(sk.log_loss(y, exact, labels=range(4)), rel=1e-6)
    assert ours["brier"] == pytest.approx(((exact - np.eye(4)[y]) ** 2).sum(1).mean(), rel=1e-6)


def test_binary_metrics_agree_with_scikit_learn():
    outputs, truth = torch.randn(N, 1, generator=RANDOM), torch.randint(2, (N, 1), generator=RANDOM).float()
    p = outputs.sigmoid()
    ours = measured(DataSpec(Task.BINARY, Kind.BINARY, (1,), 1), outputs, p, truth)
    y, decided, exact = truth.numpy().ravel(), (p > 0.5).numpy().ravel(), outputs.double().sigmoid().numpy().ravel()
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(y, decided), abs=1e-12)
    assert ours["f1"] == pytest.approx(sk.f1_score(y, decided), abs=1e-7)
    assert ours["nll"] == pytest.approx(sk.log_loss(y, exact), rel=1e-6)
    assert ours["brier"] == pytest.approx(sk.brier_score_loss(y, exact), rel=1e-6)


def test_regression_metrics_agree_with_scikit_learn():
    outputs, truth = torch.randn(N, 1, generator=RANDOM), torch.randn(N, 1, generator=RANDOM)
    ours = measured(DataSpec(Task.REGRESSION, Kind.VALUES, (1,), 1), outputs, None, truth)
    y, z = truth.double().numpy(), outputs.double().numpy()
    assert ours["mse"] == pytest.approx(sk.mean_squared_error(y, z), rel=1e-12)
    assert ours["mae"] == pytest.approx(sk.mean_absolute_error(y, z), rel=1e-12)
    assert ours["r2"] == pytest.approx(sk.r2_score(y, z), rel=1e-9)


def test_multilabel_metrics_are_averaged_over_labels():
    outputs, truth = torch.randn(N, 3, generator=RANDOM), torch.randint(2, (N, 3), generator=RANDOM).float()
    ours = measured(DataSpec(Task.MULTILABEL, Kind.BINARY, (1,), 3), outputs, outputs.sigmoid(), truth)
    decided = (outputs > 0).numpy()
    assert ours["accuracy"] == pytest.approx((decided == truth.numpy().astype(bool)).mean(), abs=1e-7)
    assert ours["f1"] == pytest.approx(sk.f1_score(truth.numpy(), decided, average="macro"), abs=1e-7)


def test_one_vs_all_probabilities_are_normalised_for_exclusive_classes():
    outputs, truth = torch.randn(N, 4, generator=RANDOM), torch.randint(4, (N,), generator=RANDOM)
    p = outputs.double().sigmoid()
    ours = measured(DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), 4), outputs, p, truth)
    assert ours["nll"] == pytest.approx(sk.log_loss(truth.numpy(), (p / p.sum(1, keepdim=True)).numpy()), rel=1e-9)


@pytest.mark.parametrize("batch", [1, 7, 16, 101])
def test_results_do_not_depend_on_the_batch_size(batch):
    outputs = torch.randn(N, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = torch.randint(4, (N,), generator=torch.Generator().manual_seed(2))
    spec = DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), 4)
    whole = measured(spec, outputs, outputs.softmax(1), truth, N)
    parts = measured(spec, outputs, outputs.softmax(1), truth, batch)
    assert parts == pytest.approx(whole, abs=1e-9)


def test_confident_mistakes_have_a_finite_nll():
    spec = DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), 2)
    metrics = EvaluationMetrics(spec)
    metrics.update(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert metrics.compute()["nll"].item() == pytest.approx(15.9424, abs=1e-3)  # -ln 2^-23


@pytest.mark.parametrize("kind", [Average, RunningMean])
def test_sums_are_float64_so_that_small_values_survive_large_ones(kind):
    average = kind()
    average.update(torch.tensor(1e8), 1)
    for _ in range(1000):
        average.update(torch.tensor(1e-1), 0)
    assert float(average.compute()) == pytest.approx(1e8 + 100, abs=1e-3)


def test_probabilities_that_are_all_zero_count_as_uniform():
    metrics = EvaluationMetrics(DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), 4))
    outputs = torch.full((3, 4), -1e4)
    metrics.update(outputs, outputs.sigmoid(), torch.tensor([0, 1, 2]))
    assert metrics.compute()["nll"].item() == pytest.approx(np.log(4))


@pytest.mark.parametrize(
    ("spec", "outputs"),
    [
        (DataSpec(Task.REGRESSION, Kind.VALUES, (1,), 1), torch.ones(4, 1)),
        (DataSpec(Task.REGRESSION, Kind.VALUES, (1,), 3), torch.ones(4, 3)),
        (DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), 3), torch.ones(4, 3)),
        (DataSpec(Task.BINARY, Kind.BINARY, (1,), 1), torch.ones(4, 1)),
        (DataSpec(Task.MULTILABEL, Kind.BINARY, (1,), 3), torch.ones(4, 3)),
    ],
)
def test_metric_states_without_examples_have_the_same_shapes_as_with_examples(spec, outputs):
    idle, busy = EvaluationMetrics(spec), EvaluationMetrics(spec)
    truth = torch.tensor([0, 1, 2, 0]) if spec.task is Task.MULTICLASS else outputs
    busy.update(outputs, None if spec.task is Task.REGRESSION else outputs / 2, truth)
    assert shapes(idle) == shapes(busy)


def shapes(metrics):
    found = {}
    for collection in filter(None, (metrics.decision_metrics, metrics.probability_metrics)):
        for name, metric in collection.items(keep_base=True, copy_state=False):
            found[name] = {
                state: (getattr(metric, state).shape, getattr(metric, state).dtype) for state in metric._defaults
            }
    return found


def test_nll_and_brier_stay_separate_after_a_perfect_first_batch():
    # Then the states of NLL and Brier are equal, and torchmetrics' compute groups would merge the two.
    outputs = torch.tensor([[40.0, 0, 0], [0, 1, 0], [0, 0, 2], [1, 0, 0]])
    truth, spec = torch.tensor([0, 1, 1, 2]), DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), 3)
    whole, single = (measured(spec, outputs, outputs.softmax(1), truth, batch) for batch in (4, 1))
    assert single == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("metric", ["val/mse", "test/nll", "train/loss", "train/loss/focal", "train/mse_given", "ece"])
def test_lower_is_better_for_errors_and_losses(metric):
    assert direction(metric) == "min"


@pytest.mark.parametrize("metric", ["val/accuracy", "test/r2", "f1", "train/accuracy_given", "test/recall"])
def test_higher_is_better_for_scores(metric):
    assert direction(metric) == "max"


def test_calibration_error_is_that_of_guo_et_al_with_15_bins():
    outputs, truth = 2 * torch.randn(N, 4, generator=RANDOM), torch.randint(4, (N,), generator=RANDOM)
    ours = measured(DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), 4), outputs, outputs.softmax(1), truth)["ece"]
    confidence, correct = outputs.double().softmax(1).amax(1), (outputs.argmax(1) == truth).double()
    expected = 0.0
    for m in range(1, 16):  # bin m is the interval ((m - 1)/15, m/15]
        members = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if members.any():
            gap = abs(correct[members].mean() - confidence[members].mean())
            expected += members.sum().item() / N * gap.item()
    assert ours == pytest.approx(expected, rel=1e-6)

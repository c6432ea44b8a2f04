"""docs/choosing.md: its statements about gradients are correct."""

import re
from math import exp, log
from pathlib import Path

import pytest
import torch
from pages.choosing_guide import gradients, measures, tables
from pages.choosing_guide.situation import Sweep, Sweeps
from pages.choosing_guide.text import SITUATIONS
from pages.experiments import Result
from pages.study import Study, StudyRow

from losslab.data.corruption.value_noise import Outliers
from losslab.data.synthetic import LinearSynthetic
from losslab.io import atomic
from losslab.losses import BCE, MSE, CrossEntropy, Huber, catalog

DOCS = Path(__file__).resolve().parents[3] / "docs"


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def slope(loss, outputs):
    outputs = outputs.clone().requires_grad_()
    return torch.autograd.grad(loss(outputs).sum(), outputs)[0]


def outliers():
    data = LinearSynthetic(n=64, features=3)
    data.corrupt([Outliers(0.1)])
    data.setup()
    train = data.splits["train"]
    ones = torch.ones(len(train.inputs), 1)
    return torch.cat([train.inputs, ones], dim=1).double(), train.target.double()


def test_the_gradient_of_cross_entropy_is_p_minus_y():
    outputs, target = 5 * drawn(20, 7), drawn(20, 7).softmax(1)
    torch.testing.assert_close(
        slope(lambda z: CrossEntropy().per_example(z, target), outputs), outputs.softmax(1) - target
    )


def test_the_gradient_of_binary_cross_entropy_is_p_minus_y():
    outputs, target = 5 * drawn(20, 1), (drawn(20, 1) > 0).double()
    torch.testing.assert_close(slope(lambda z: BCE().per_example(z, target), outputs), outputs.sigmoid() - target)


def test_only_the_gradient_of_squared_error_on_probabilities_vanishes_for_confident_mistakes():
    last = {name: abs(values[-1]) for name, values in gradients.confident_slopes().items()}
    assert gradients.MARGINS[-1] == -10
    vanishing = {name for name, value in last.items() if value < 1e-3}
    assert vanishing == {"squared error on the softmax (brier)", "squared error on the sigmoid"}
    p = 1 / (1 + exp(10))
    assert last["squared error on the sigmoid"] == pytest.approx(2 * (1 - p) * p * (1 - p))
    assert last["bce (sigmoid): p − y"] == pytest.approx(1 - p)
    assert last["squared error on the logits (rescaled_mse)"] > 1


def test_clipping_shortens_a_gradient_and_keeps_its_direction():
    inputs, target = outliers()
    weight = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
    MSE()(inputs @ weight, target).backward()
    before = weight.grad.clone()
    torch.nn.utils.clip_grad_norm_([weight], 0.1)
    torch.testing.assert_close(weight.grad, 0.1 * before / before.norm(), rtol=1e-5, atol=0)


def test_full_batch_descent_with_clipping_converges_to_the_same_minimum():
    inputs, target = outliers()
    weight = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    clipped = 0
    for _ in range(1000):
        optimizer.zero_grad()
        MSE()(inputs @ weight, target).backward()
        clipped += bool(torch.nn.utils.clip_grad_norm_([weight], 0.1) > 0.1)
        optimizer.step()
    assert clipped > 100
    torch.testing.assert_close(weight.detach(), torch.linalg.lstsq(inputs, target).solution)


def test_the_gradient_of_huber_is_the_clipped_residual():
    residual = 5 * drawn(50, 1)
    found = slope(lambda z: Huber(delta=1.5).per_example(z, torch.zeros_like(z)), residual)
    torch.testing.assert_close(found, residual.clamp(-1.5, 1.5))


@pytest.mark.parametrize(("optimizer", "times"), [(torch.optim.SGD, 100), (torch.optim.Adam, 1)])
def test_a_constant_factor_of_the_loss_cancels_under_adam_only(optimizer, times):
    def step(factor):
        weight = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
        stepper = optimizer([weight], lr=0.01)
        (factor * MSE()(drawn(8, 3) @ weight, drawn(8, 1))).backward()
        stepper.step()
        return weight.detach() - 1

    torch.testing.assert_close(step(100), times * step(1), rtol=1e-5, atol=0)


@pytest.fixture(scope="module")
def first_gradients():
    return gradients.measure()


@pytest.mark.slow  # builds a network for every loss
def test_every_loss_of_the_catalog_has_an_initial_gradient(first_gradients):
    assert {one.loss for one in first_gradients} == set(catalog.names())


@pytest.mark.slow  # builds a network for every loss
def test_the_recorded_initial_gradients_are_up_to_date(first_gradients):
    kept = {(one.setting, one.loss): one.ratio for one in gradients.read(DOCS / "figures")}
    fresh = {(one.setting, one.loss): one.ratio for one in first_gradients}
    assert kept == pytest.approx(fresh, rel=0.02), "write it again: python scripts/pages choosing --text"


@pytest.mark.slow  # builds a network for every loss
def test_the_initial_gradient_of_the_reference_loss_has_ratio_1(first_gradients):
    assert {one.ratio for one in first_gradients if one.loss == one.reference} == {1.0}


def names(situation):
    return set(re.findall(r"\w+", situation.first)) & set(catalog.names())


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_a_situation_compares_losses_that_exist_with_the_recommended_one(situation):
    first = situation.experiments[0]
    configs = [each for each in first.configurations() if "choices" in each]
    losses = {config["choices"]["loss"] for config in configs}
    assert len(losses) > 1
    assert losses <= set(catalog.names())
    assert names(situation) & losses
    assert situation.source
    assert situation.reason.endswith(".")
    if isinstance(first, Study):
        (reference,) = [each for each in first.overrides if each.startswith("study.reference=")]
        assert names(situation).intersection(re.findall(r"\w+", reference))


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_a_command_before_a_study_names_its_loss(situation):
    setups = [each.setup for each in situation.experiments if isinstance(each, Study) and each.setup]
    assert all("loss=cross_entropy " in setup for setup in setups)  # the default of a network is loss=mse


def study_row(group, verdict, difference=None, metric="accuracy"):
    interval = (difference,) * 3
    return StudyRow(group, metric, 5, 0.9, 0.8, 1.0, *interval, verdict, 0.01, 1.0, None, None, at_edge=False)


def test_the_page_says_that_a_loss_was_better_than_the_recommended_one_only_if_the_verdict_says_so():
    reference, worse = study_row("huber", "reference"), study_row("mse", "worse", 3.0, "mse")
    undecided, better = study_row("l1", "undecided", 0.9, "mse"), study_row("tukey", "better", 0.8, "mse")
    found = tables.better_than_recommended([undecided, reference, worse], ())
    assert tables.disagreement("huber", found) == ""
    found = tables.better_than_recommended([better, undecided, reference, worse], ())
    expected = "The source recommends huber; here `tukey` was better by a factor of 1.25."
    assert tables.disagreement("huber", found) == expected


def test_a_loss_that_is_better_than_the_reference_but_not_than_a_recommended_method_is_no_disagreement():
    rows = [
        study_row("cross_entropy + temperature", "better", 0.02),
        study_row("brier", "better", 0.01),
        study_row("cross_entropy", "reference"),
    ]
    assert tables.better_than_recommended(rows, ["cross_entropy + temperature"]) == []
    assert [row.group for row in tables.better_than_recommended(rows, [])] == ["cross_entropy + temperature", "brier"]


def test_the_verdicts_of_a_study_become_a_sentence():
    rows = [
        study_row("tukey", "better", 0.012),
        study_row("huber", "reference"),
        study_row("l1", "undecided", -0.001),
        study_row("mse", "worse", -0.05),
        study_row("welsch", "worse", -0.2),
    ]
    assert tables.describe(rows) == "`tukey` is better; `mse` and `welsch` are worse; `l1` is undecided"
    assert tables.describe(rows, amounts=True) == (
        "`tukey` (by 1.2 points) is better than `huber`; `mse` (by 5 points) and `welsch` (by 20 points) are worse "
        "than `huber`; `l1` is undecided"
    )


def test_labels_are_shortened_and_rows_that_repeat_a_group_left_out():
    rows = [study_row("epochs=1 gce", "reference"), study_row("mse epochs=9 + temperature", "same runs"),
            study_row("mse epochs=9 + thresholds", "worse", -0.1)]  # fmt: skip
    words = {"epochs=1": "", "epochs=9": "(long)"}
    assert [row.group for row in tables.rename(rows, words)] == ["gce", "mse (long) + thresholds"]


def sweeps(*each):
    return Sweeps("some", each, ("test/mse",), "loss=mse")


def test_the_label_of_a_run_contains_the_settings_that_differ_between_the_runs():
    swept = sweeps(Sweep(("model=linear", "loss=huber", "loss.delta=0.1,1.0")), Sweep(("model=linear", "loss=mse")))
    assert swept.label(["model=linear", "loss=huber", "loss.delta=0.1", "seed=0"]) == "loss=huber loss.delta=0.1"
    assert swept.label(["model=linear", "loss=mse", "seed=1"]) == "loss=mse"
    kept = sweeps(Sweep(("loss=mse",)), Sweep(("loss=ldam", "callbacks=deferred_reweighting"), bare=False))
    assert kept.label(["loss=mse", "seed=0", "callbacks=none"]) == "loss=mse"
    assert kept.label(["loss=ldam", "callbacks=deferred_reweighting"]) == "loss=ldam callbacks=deferred_reweighting"


def test_a_table_has_means_differences_and_verdicts():
    values = {"loss=mse": (1.0, 2.0, 3.0), "loss=l1": (1.5, 2.6, 3.4)}
    results = [
        Result("some", label, seed, "test/mse", value) for label in values for seed, value in enumerate(values[label])
    ]
    shown = tables.table(sweeps(Sweep(("loss=l1,mse",))), results).splitlines()
    assert shown[2].startswith("| `loss=mse` | 3 | 2.0 ± 2.5 |")
    assert shown[3] == "| `loss=l1` | 3 | 2.5 ± 2.4 | +0.50 ± 0.25: worse |"


@pytest.mark.parametrize(("loss", "error"), [("mse", 1.0), ("gaussian_nll", 0.0)])
def test_the_error_of_log_sigma_is_0_for_the_true_sigma_and_its_standard_deviation_for_a_constant(train, loss, error):
    settings = ("data=linear_synthetic", "data.n=2000", "data.noise=0", "noise=heteroscedastic", "noise.scale=0.02")
    experiment, _ = train(*settings, f"loss={loss}", "trainer.max_epochs=1", "logger=none")
    if loss == "gaussian_nll":  # where σ² is small, softplus(v) is exp(v): v = 2 log σ, which is linear
        head, column = experiment.learner.network, experiment.data.splits["train"].inputs[:, 0]
        with torch.no_grad():
            head.weight[1] = 0
            head.weight[1, 0] = 2 / column.std(correction=0)
            head.bias[1] = 2 * log(0.02) - 2 * column.mean() / column.std(correction=0)
        state = {"state_dict": experiment.learner.state_dict()}
        atomic.write_with_checksum(experiment.folder.last, lambda file: torch.save(state, file))
    found = measures.deviation_error(experiment.folder.path, {"train/mse_given": 0.02**2})
    assert found == pytest.approx(error, abs=0.05)

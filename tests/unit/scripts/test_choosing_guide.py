"""docs/choosing.md: its statements about gradients are correct."""

from math import exp, log
from pathlib import Path

import pytest
import torch
from pages.choosing_guide import gradients, measures, tables
from pages.choosing_guide.situation import Situation, Sweep
from pages.choosing_guide.text import SITUATIONS
from pages.experiments import Result

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


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_a_situation_compares_losses_that_exist(situation):
    named = {
        loss
        for sweep in situation.sweeps
        for setting in sweep.settings
        if setting.startswith("loss=")
        for loss in setting.removeprefix("loss=").split(",")
    }
    assert named
    assert named <= set(catalog.names())
    assert min(sweep.seeds for sweep in situation.sweeps) >= 3
    assert situation.source
    assert situation.reason.endswith(".")


def situation(*sweeps):
    return Situation("some", "", "", "", "", "", sweeps, ("test/mse",), "loss=mse")


def test_the_label_of_a_run_contains_the_settings_that_differ_between_the_runs():
    swept = situation(Sweep(("model=linear", "loss=huber", "loss.delta=0.1,1.0")), Sweep(("model=linear", "loss=mse")))
    assert swept.label(["model=linear", "loss=huber", "loss.delta=0.1", "seed=0"]) == "loss=huber loss.delta=0.1"
    assert swept.label(["model=linear", "loss=mse", "seed=1"]) == "loss=mse"
    kept = situation(Sweep(("loss=mse",)), Sweep(("loss=ldam", "callbacks=deferred_reweighting"), bare=False))
    assert kept.label(["loss=mse", "seed=0", "callbacks=none"]) == "loss=mse"
    assert kept.label(["loss=ldam", "callbacks=deferred_reweighting"]) == "loss=ldam callbacks=deferred_reweighting"


def test_a_table_has_means_differences_and_verdicts():
    values = {"loss=mse": (1.0, 2.0, 3.0), "loss=l1": (1.5, 2.6, 3.4)}
    results = [
        Result("some", label, seed, "test/mse", value) for label in values for seed, value in enumerate(values[label])
    ]
    shown = tables.table(situation(Sweep(("loss=l1,mse",))), results).splitlines()
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

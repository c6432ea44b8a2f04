"""Each statement of docs/choosing.md that is not a figure or a run, and that its numbers are those of this code."""

from math import exp
from pathlib import Path

import pytest
import torch
from choosings import confident, figure, gradients, page
from choosings.row import Trial
from choosings.rows import EVERYTHING, ROWS

from losslab.data.corruption.value_noise import Outliers
from losslab.data.synthetic import LinearSynthetic
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


def test_only_squared_error_on_probabilities_vanishes_on_what_is_confidently_wrong():
    last = {name: abs(values[-1]) for name, values in confident.slopes().items()}
    assert confident.MARGINS[-1] == -10
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


def test_descent_with_clipping_on_all_examples_ends_where_descent_without_does():
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


def test_the_gradient_of_huber_is_the_residual_clipped():
    residual = 5 * drawn(50, 1)
    found = slope(lambda z: Huber(delta=1.5).per_example(z, torch.zeros_like(z)), residual)
    torch.testing.assert_close(found, residual.clamp(-1.5, 1.5))


@pytest.mark.parametrize(("optimizer", "times"), [(torch.optim.SGD, 100), (torch.optim.Adam, 1)])
def test_a_constant_factor_of_the_loss_cancels_under_adam_alone(optimizer, times):
    def step(factor):
        weight = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
        stepper = optimizer([weight], lr=0.01)
        (factor * MSE()(drawn(8, 3) @ weight, drawn(8, 1))).backward()
        stepper.step()
        return weight.detach() - 1

    torch.testing.assert_close(step(100), times * step(1), rtol=1e-5, atol=0)


@pytest.fixture(scope="module")
def initials():
    return gradients.measure()


def test_every_loss_of_the_catalogue_has_its_first_gradient(initials):
    assert {one.loss for one in initials} == set(catalog.names())


def test_the_first_gradients_are_those_of_this_code(initials):
    kept = {(one.place, one.loss): one.ratio for one in figure.read(DOCS / "figures")}
    fresh = {(one.place, one.loss): one.ratio for one in initials}
    assert kept == pytest.approx(fresh, rel=0.02), "renew it: python scripts/choosing.py --page"


def test_a_reference_is_compared_with_itself(initials):
    assert {one.ratio for one in initials if one.loss == one.reference} == {1.0}


def test_the_page_fits_its_rows_and_its_numbers():
    assert page.stale(DOCS) == [], "renew it: python scripts/choosing.py ROW, or --page where only words changed"


def test_a_changed_command_makes_the_page_stale(monkeypatch):
    monkeypatch.setattr(Trial, "command", "python train.py")
    assert {row.name for row in EVERYTHING} <= set(page.stale(DOCS))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_compares_losses_that_exist(row):
    named = {
        loss
        for trial in row.trials
        for setting in trial.settings
        if setting.startswith("loss=")
        for loss in setting.removeprefix("loss=").split(",")
    }
    assert named
    assert named <= set(catalog.names())
    assert min(trial.seeds for trial in row.trials) >= 3
    assert row.source
    assert row.reason.endswith(".")

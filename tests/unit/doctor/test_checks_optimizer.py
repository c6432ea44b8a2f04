"""Settings of loss and optimizer that prevent training, and sound settings."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import SGD, Adam, AdamW

from losslab import losses
from losslab.doctor import Severity, examine, report
from losslab.losses.imbalance import balanced

ERROR, WARNING = Severity.ERROR, Severity.WARNING
X = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.randint(1, 5, (32,), generator=torch.Generator().manual_seed(2))
WEIGHT = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 5))


def warmed_up(body: nn.Module) -> torch.optim.Optimizer:
    optimizer = SGD(body.parameters(), lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 10)
    return optimizer


def head_only(body: nn.Module) -> torch.optim.Optimizer:
    body[:4].requires_grad_(requires_grad=False)
    return SGD(body[4].parameters(), lr=0.1)


OPTIMIZERS = {
    "rate of 0": (lambda b: SGD(b.parameters(), lr=0.0), [(ERROR, "learning-rate-zero")]),
    "warmed up from 0": (warmed_up, []),
    "rate of 0 for some": (lambda b: SGD([{"params": b[:4].parameters(), "lr": 0.0},
                                          {"params": b[4].parameters()}], lr=0.1), []),
    "maximize": (lambda b: SGD(b.parameters(), lr=0.1, maximize=True), [(WARNING, "maximize")]),
    "the head alone": (lambda b: SGD(b[4].parameters(), lr=0.1), [(WARNING, "optimizer-misses")]),
    "the head alone, the rest frozen": (head_only, []),
    "in groups": (lambda b: SGD([{"params": b[:4].parameters()}, {"params": b[4].parameters()}], lr=0.1), []),
    "decay": (lambda b: AdamW(b.parameters(), lr=0.1, weight_decay=1.0), [(WARNING, "weight-decay-too-high")]),
    "strong decay in small steps": (lambda b: AdamW(b.parameters(), lr=1e-3, weight_decay=10.0), []),
    "mild decay in large steps": (lambda b: SGD(b.parameters(), lr=1.0, weight_decay=0.5), []),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_optimizer_that_cannot_train_is_found_and_a_sound_one_is_not(case):
    make, expected = OPTIMIZERS[case]
    body = network()
    found = examine(body, nn.CrossEntropyLoss(), (X, LABELS), optimizer=make(body))
    assert [(finding.severity, finding.name) for finding in found] == expected, report(found)


@pytest.mark.parametrize(("optimizer", "removes"), [(SGD, True), (AdamW, True), (Adam, False)])
def test_finding_on_weight_decay_names_the_removed_fraction_for_sgd_and_adamw_but_not_adam(optimizer, removes):
    network = nn.Linear(8, 5)
    found = examine(
        network, nn.CrossEntropyLoss(), (X, LABELS), optimizer=optimizer(network.parameters(), lr=0.1, weight_decay=2.0)
    )
    assert names(found) == ["weight-decay-too-high"]
    assert ("removes the fraction" in found[0].why) == removes


def test_finding_names_the_first_missed_parameter():
    body = network()
    found = examine(body, nn.CrossEntropyLoss(), (X, LABELS), optimizer=SGD(body[1:].parameters(), lr=0.1))
    assert found[0].problem.endswith("0.weight")


def test_learning_rate_of_0_is_an_error_if_no_optimizer_is_given():
    found = examine(network(), nn.CrossEntropyLoss(), (X, LABELS), lr=0.0)
    assert [finding.name for finding in found] == ["learning-rate-zero"]


def by_rule() -> losses.Loss:
    loss = losses.CrossEntropy(weight=balanced)
    loss.set_class_counts(LABELS.bincount(minlength=5))
    return loss


WEIGHTS = {
    "torch": (nn.CrossEntropyLoss(WEIGHT), True),
    "torch, function": (partial(F.cross_entropy, weight=WEIGHT), True),
    "ours": (losses.CrossEntropy(weight=WEIGHT), True),
    "of the class ignored": (nn.CrossEntropyLoss(WEIGHT, ignore_index=2), False),
    "small": (nn.CrossEntropyLoss(WEIGHT + 0.01), False),
    "of a class that never occurs, by rule": (by_rule(), False),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_finding_names_the_class_of_weight_0(case):
    loss, wrong = WEIGHTS[case]
    found = examine(network(), loss, (X, LABELS))
    assert [finding.name for finding in found] == ["class-weight-zero"] * wrong, report(found)
    assert all("class 2 " in finding.problem for finding in found)


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (network(), True),
        (nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 5)), True),
        (nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 5)), True),
        (nn.Sequential(nn.Dropout(0.0), nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 5)), False),
        (nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 5)), False),
    ],
)
def test_evaluation_mode_is_found_if_a_layer_behaves_differently_in_it(body, wrong):
    found = examine(body.eval(), nn.CrossEntropyLoss(), (X, LABELS))
    assert [(f.severity, f.name) for f in found] == [(WARNING, "evaluation-mode")] * wrong, report(found)
    assert not examine(body.train(), nn.CrossEntropyLoss(), (X, LABELS))
    body[0].eval()  # a layer whose statistics are frozen on purpose
    assert not examine(body, nn.CrossEntropyLoss(), (X, LABELS))


def test_optimizer_of_lazy_parameters_is_sound():
    body = nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.Linear(16, 5))
    assert not examine(body, nn.CrossEntropyLoss(), (X, LABELS), optimizer=SGD(body.parameters(), lr=0.1))


def names(found) -> list[str]:
    return [finding.name for finding in found]


LINE = torch.tensor([[1.0], [2.0], [3.0]])


@pytest.mark.parametrize(
    ("options", "bound", "formula"),
    [
        ({}, 0.1803, "2/λmax"),
        ({"momentum": 0.9}, 0.3426, "2(1+β)/λmax"),
        ({"momentum": 0.9, "nesterov": True}, 0.1223, "2(1+β)/((1+2β)λmax)"),
        ({"momentum": 0.9, "dampening": 0.5}, 0.6851, "2(1+β)/((1-0.5)λmax)"),
    ],
)
@pytest.mark.parametrize("loss", [nn.MSELoss(), losses.MSE(), F.mse_loss])
def test_largest_stable_learning_rate_of_the_three_points_is_that_of_the_textbook(loss, options, bound, formula):
    network = nn.Linear(1, 1)
    for lr in (bound - 2e-4, bound + 2e-4):
        optimizer = torch.optim.SGD(network.parameters(), lr=lr, **options)
        found = examine(network, loss, (LINE, 2 * LINE), optimizer=optimizer)
        assert names(found) == ["learning-rate-too-high"] * (lr > bound)
    assert f"{formula} = {bound:.4g}"[:-1] in found[0].why


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 3.0}])
def test_gradient_descent_diverges_exactly_above_the_bound(options):
    def ends_high(lr: float) -> tuple[bool, bool]:
        torch.manual_seed(0)
        network = nn.Linear(1, 1).double()
        optimizer = torch.optim.SGD(network.parameters(), lr=lr, **options)
        found = examine(network, nn.MSELoss(), (LINE.double(), 2 * LINE.double()), optimizer=optimizer)
        warned = "learning-rate-too-high" in names(found)
        for _ in range(600):
            optimizer.zero_grad()
            loss = F.mse_loss(network(LINE.double()), 2 * LINE.double())
            if not loss < 1e6:
                break
            loss.backward()
            optimizer.step()
        return warned, not loss < 1e3

    for lr in (0.05, 0.1, 0.115, 0.13, 0.17, 0.19, 0.3, 0.33, 0.35, 0.5):
        warned, diverged = ends_high(lr)
        assert warned == diverged, lr


def test_learning_rate_is_checked_only_where_a_bound_is_known():
    perceptron = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1))
    assert not examine(perceptron, nn.MSELoss(), (LINE, 2 * LINE), lr=10.0)
    assert not examine(nn.Linear(1, 1), nn.L1Loss(), (LINE, 2 * LINE), lr=10.0)
    network = nn.Linear(1, 1)
    assert not examine(
        network, nn.MSELoss(), (LINE, 2 * LINE), optimizer=torch.optim.Adam(network.parameters(), lr=1.0)
    )
    assert names(examine(network, nn.MSELoss(), (LINE, 2 * LINE), lr=10.0)) == ["learning-rate-too-high"]
    probe = nn.Sequential(nn.Linear(1, 3).requires_grad_(requires_grad=False), nn.ReLU(), nn.Linear(3, 1))
    assert names(examine(probe, nn.MSELoss(), (LINE, 2 * LINE), lr=10.0)) == ["learning-rate-too-high"]


def test_learning_rate_bound_is_computed_from_all_examples_of_the_batch():
    many = torch.cat([LINE] + [torch.zeros(1, 1)] * 60)
    assert not examine(nn.Linear(1, 1), nn.MSELoss(), (many, many), lr=0.5, examples=3)

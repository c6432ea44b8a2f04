"""The largest stable learning rate of a linear model under the mean squared error."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from losslab import losses
from losslab.doctor import examine


def names(found) -> list[str]:
    return [finding.name for finding in found]


LINE = torch.tensor([[1.0], [2.0], [3.0]])


@pytest.mark.parametrize(
    ("options", "bound", "stands"),
    [
        ({}, 0.1803, "2/λmax"),
        ({"momentum": 0.9}, 0.3426, "2(1+β)/λmax"),
        ({"momentum": 0.9, "nesterov": True}, 0.1223, "2(1+β)/((1+2β)λmax)"),
    ],
)
@pytest.mark.parametrize("loss", [nn.MSELoss(), losses.MSE(), F.mse_loss])
def test_the_bound_of_the_three_points_is_the_one_in_the_textbook(loss, options, bound, stands):
    network = nn.Linear(1, 1)
    for lr in (bound - 2e-4, bound + 2e-4):
        optimizer = torch.optim.SGD(network.parameters(), lr=lr, **options)
        found = examine(network, loss, (LINE, 2 * LINE), optimizer=optimizer)
        assert names(found) == ["learning-rate-too-high"] * (lr > bound)
    assert f"{stands} = {bound:.4g}"[:-1] in found[0].why


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 3.0}])
def test_gradient_descent_diverges_above_the_bound_and_not_below(options):
    def ends_high(lr: float) -> tuple[bool, bool]:
        torch.manual_seed(0)
        network = nn.Linear(1, 1).double()
        optimizer = torch.optim.SGD(network.parameters(), lr=lr, **options)
        found = examine(network, nn.MSELoss(), (LINE.double(), 2 * LINE.double()), optimizer=optimizer)
        warned = "learning-rate-too-high" in names(found)
        for _ in range(600):
            optimizer.zero_grad()
            loss = F.mse_loss(network(LINE.double()), 2 * LINE.double())
            loss.backward()
            optimizer.step()
        return warned, not loss < 1e3

    for lr in (0.05, 0.1, 0.115, 0.13, 0.17, 0.19, 0.3, 0.33, 0.35, 0.5):
        warned, diverged = ends_high(lr)
        assert warned == diverged, lr


def test_a_rate_is_bounded_only_where_a_bound_is_known():
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


def test_the_bound_is_that_of_the_whole_batch():
    many = torch.cat([LINE] + [torch.zeros(1, 1)] * 60)
    assert not examine(nn.Linear(1, 1), nn.MSELoss(), (many, many), lr=0.5, examples=3)

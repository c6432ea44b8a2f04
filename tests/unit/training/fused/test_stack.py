"""Stacked networks compute the outputs, gradients and buffers of each of them alone."""

import pytest
import torch
from fused_runs import close
from quick import sample
from torch import nn

from losslab.models.airbench import Airbench
from losslab.models.cnn import cifar_cnn, resnet18
from losslab.training.fused.stack import NotFusableError, Stacked

SHAPE = (3, 16, 16)
NETWORKS = {
    "cifar_cnn": lambda: cifar_cnn(SHAPE, 3),
    "resnet18": lambda: resnet18(SHAPE, 3),
    "airbench": lambda: Airbench(SHAPE, 3, widths=[4, 4, 4]),
    "a frozen layer": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(768, 4).requires_grad_(requires_grad=False), nn.Linear(4, 3)
    ),
}


CASES = [(name, shared) for name in NETWORKS for shared in (True, False) if name != "resnet18" or not shared]


@pytest.mark.parametrize(("name", "shared"), sample(CASES, *(case for case in CASES if case[0] != "resnet18")))
def test_stacked_networks_equal_single_ones(name, shared):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = [NETWORKS[name]().double() for _ in range(2)]
        inputs = torch.randn(2, 4, *SHAPE, dtype=torch.float64)
    stacked = Stacked(networks).train()
    outputs = stacked(inputs[0] if shared else inputs, shared=shared)
    outputs.square().sum().backward()
    evaluated = stacked.eval()(inputs[0] if shared else inputs, shared=shared)
    for index, network in enumerate(networks):
        own = network.train()(inputs[0 if shared else index])
        own.square().sum().backward()
        assert close(outputs[index], own, 1e-11)
        for one, other in zip(stacked.stacked_parameters, network.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None)
            assert one.grad is None or close(one.grad[index], other.grad, 1e-9)
        state = network.state_dict()
        assert stacked.state_of(index).keys() == state.keys()
        assert all(close(value, state[key], 1e-11) for key, value in stacked.state_of(index).items())
        assert close(evaluated[index], network.eval()(inputs[0 if shared else index]), 1e-11)


def test_networks_of_other_shapes_are_refused():
    with pytest.raises(NotFusableError, match="the shapes of their parameters differ"):
        Stacked([nn.Linear(2, 3), nn.Linear(2, 4)])

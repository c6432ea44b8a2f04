import pytest
import torch
from torch import nn

from losslab.errors import LabError
from losslab.models.cnn import cifar_cnn, resnet18
from losslab.models.linear import linear, mlp


def test_the_linear_model_is_torchs():
    assert type(linear((4,), 2)) is nn.Linear
    assert linear((3, 8, 8), 2)(torch.zeros(5, 3, 8, 8)).shape == (5, 2)


def test_the_perceptron_has_the_layers_it_was_asked_for():
    widths = [(layer.in_features, layer.out_features) for layer in mlp((7,), 3, [5, 4]) if isinstance(layer, nn.Linear)]
    assert widths == [(7, 5), (5, 4), (4, 3)]
    assert any(isinstance(layer, nn.Tanh) for layer in mlp((7,), 3, [5], "tanh"))
    with pytest.raises(LabError, match="hidden widths of 1 or more"):
        mlp((7,), 3, [0])


def test_the_cnn_is_the_tutorials():
    network = cifar_cnn((3, 32, 32), 10)
    kinds = [type(layer).__name__ for layer in network]
    assert kinds == ["Conv2d", "MaxPool2d"] * 3 + ["Flatten", "Linear", "Linear"]
    assert sum(p.numel() for p in network.parameters()) == 145_578
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_resnet_keeps_the_detail_of_small_images():
    network = resnet18((3, 32, 32), 10)
    seen = []
    network.layer1.register_forward_hook(lambda *hooked: seen.append(hooked[2].shape))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert seen == [(2, 64, 32, 32)]
    assert sum(p.numel() for p in network.parameters()) == 11_173_962


@pytest.mark.parametrize("make", [cifar_cnn, resnet18])
def test_networks_for_images_refuse_anything_else(make):
    with pytest.raises(LabError, match="needs images"):
        make((10,), 10)


def test_a_gain_makes_the_last_layer_larger_and_nothing_else():
    torch.manual_seed(0)
    usual = mlp((7,), 3, [5]).state_dict()
    torch.manual_seed(0)
    sure = mlp((7,), 3, [5], gain=100.0).state_dict()
    for name, value in usual.items():
        torch.testing.assert_close(sure[name], 100 * value if name.startswith("3.") else value, rtol=0, atol=0)
    for gain in (0.0, -1.0, float("inf")):
        with pytest.raises(LabError, match="a gain above 0"):
            mlp((7,), 3, [5], gain=gain)

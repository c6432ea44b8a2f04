import pytest
import torch

from losslab.errors import LabError
from losslab.models.cnn import cifar_cnn, resnet18


def test_cifar_cnn_is_the_tutorials_network():
    network = cifar_cnn((3, 32, 32), 10)
    kinds = [type(layer).__name__ for layer in network]
    assert kinds == ["Conv2d", "MaxPool2d"] * 3 + ["Flatten", "Linear", "Linear"]
    assert sum(p.numel() for p in network.parameters()) == 145_578
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_resnet18_has_a_stem_for_small_images():
    network = resnet18((3, 32, 32), 10)
    seen = []
    network.layer1.register_forward_hook(lambda *hooked: seen.append(hooked[2].shape))
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert seen == [(2, 64, 32, 32)]
    assert sum(p.numel() for p in network.parameters()) == 11_173_962


@pytest.mark.parametrize("make", [cifar_cnn, resnet18])
def test_image_networks_refuse_other_inputs(make):
    with pytest.raises(LabError, match="needs images"):
        make((10,), 10)

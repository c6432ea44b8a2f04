import pytest
import torch
from torch import nn

from losslab.errors import LabError
from losslab.models.linear import linear, mlp


def test_linear_is_a_torch_linear_layer():
    assert type(linear((4,), 2)) is nn.Linear
    assert linear((3, 8, 8), 2)(torch.zeros(5, 3, 8, 8)).shape == (5, 2)


def test_mlp_has_the_configured_layers():
    widths = [(layer.in_features, layer.out_features) for layer in mlp((7,), 3, [5, 4]) if isinstance(layer, nn.Linear)]
    assert widths == [(7, 5), (5, 4), (4, 3)]
    assert any(isinstance(layer, nn.Tanh) for layer in mlp((7,), 3, [5], "tanh"))
    with pytest.raises(LabError, match="hidden widths of 1 or more"):
        mlp((7,), 3, [0])


def test_gain_scales_the_last_layer_only():
    torch.manual_seed(0)
    usual = mlp((7,), 3, [5]).state_dict()
    torch.manual_seed(0)
    sure = mlp((7,), 3, [5], gain=100.0).state_dict()
    for name, value in usual.items():
        torch.testing.assert_close(sure[name], 100 * value if name.startswith("3.") else value, rtol=0, atol=0)
    for gain in (0.0, -1.0, float("inf")):
        with pytest.raises(LabError, match="a gain above 0"):
            mlp((7,), 3, [5], gain=gain)

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from losslab.errors import LabError
from losslab.models.airbench import Airbench
from losslab.models.cnn import cifar_cnn, resnet18
from losslab.models.cosine import CosineLinear, with_cosine_outputs
from losslab.models.linear import linear, mlp

SHAPE = (3, 16, 16)
NETWORKS = [linear, mlp, cifar_cnn, resnet18, lambda shape, outputs: Airbench(shape, outputs, (4, 4, 8))]
each = pytest.mark.parametrize("make", NETWORKS, ids=["linear", "mlp", "cifar_cnn", "resnet18", "airbench"])


def built(make, shape=SHAPE):
    torch.manual_seed(3)
    return make(shape, 7)


@each
@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_cosines_of_features_and_weight_rows(make, training):
    network = with_cosine_outputs(built(make)).train(training)
    seen = []
    last = next(module for module in network.modules() if isinstance(module, CosineLinear))
    last.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    outputs = network(100 * torch.randn(2, *SHAPE))
    features, cosines = seen[0]
    expected = F.cosine_similarity(features[:, None], last.weight[None], dim=2)
    torch.testing.assert_close(cosines, expected)
    assert outputs.abs().max() <= 1 + 1e-6
    if training:
        torch.testing.assert_close(outputs, expected)


@each
def test_replacing_the_last_layer_keeps_weights_and_draws_nothing(make):
    before = built(make).state_dict()
    network = built(make)
    state = torch.get_rng_state()
    after = with_cosine_outputs(network).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert set(before) - set(after) <= {key for key in before if key.endswith("bias")}
    assert all(torch.equal(value, before[key]) for key, value in after.items())


@each
def test_a_state_dict_fits_a_network_built_the_same_way(make):
    trained, again = (with_cosine_outputs(make(SHAPE, 7)).eval() for _ in range(2))
    again.load_state_dict(trained.state_dict())
    inputs = torch.randn(2, *SHAPE)
    torch.testing.assert_close(again(inputs), trained(inputs))


def test_a_bare_linear_layer_is_replaced_too():
    network = with_cosine_outputs(built(linear, (5,)))
    assert type(network) is CosineLinear
    assert network.bias is None
    assert network.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_zero_features_give_zeros_and_a_finite_gradient(dtype):
    layer = CosineLinear(4, 3).to(dtype)
    features = torch.zeros(2, 4, dtype=dtype, requires_grad=True)
    outputs = layer(features)
    outputs.sum().backward()
    assert outputs.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert layer.weight.grad.isfinite().all()
    if dtype is not torch.float16:  # the largest float16 number is 65,504
        assert features.grad.isfinite().all()


def test_half_precision_does_not_round_the_cosines():
    layer = CosineLinear(4, 3).half()
    features = torch.randn(5, 4).half()
    exact = F.cosine_similarity(features.double()[:, None], layer.weight.double()[None], dim=2)
    torch.testing.assert_close(layer(features).double(), exact, rtol=0, atol=1e-6)


def test_a_network_that_does_not_end_in_linear_is_refused():
    with pytest.raises(LabError, match="Sequential ends in Softmax"):
        with_cosine_outputs(nn.Sequential(nn.Linear(3, 2), nn.Softmax(dim=1)))

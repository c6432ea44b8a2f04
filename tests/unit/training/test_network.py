"""Networks from outside losslab, as tutorials write them, work as in plain PyTorch, or are refused in one line."""

# ruff: noqa: ARG001, ARG002, ARG004 -- arguments are passed by name, and autograd passes ctx
import warnings
from math import prod

import pytest
import torch
from torch import nn

from losslab.doctor import examine
from losslab.errors import LabError
from losslab.models.learner import Learner
from losslab.training.config import compose
from losslab.training.experiment import build
from losslab.training.network import _make_contiguous

IMAGE = (3, 8, 8)


class View(nn.Module):
    def __init__(self, input_shape, outputs):
        super().__init__()
        self.conv, self.last = nn.Conv2d(input_shape[0], 4, 3), nn.Linear(4 * 36, outputs)

    def forward(self, x):
        return self.last(self.conv(x).relu().view(x.size(0), -1))


class ViewOfInputs(nn.Module):
    def __init__(self, input_shape, outputs):
        super().__init__()
        self.last = nn.Linear(prod(input_shape), outputs)

    def forward(self, x):
        return self.last(x.view(len(x), -1))


class _ViewOfGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.view(-1).view(gradient.shape)


class ViewInBackward(View):
    def forward(self, x):
        return self.last(_ViewOfGradient.apply(self.conv(x)).relu().flatten(1))


class Volumes(nn.Module):
    def __init__(self, input_shape, outputs):
        super().__init__()
        self.conv, self.last = nn.Conv3d(1, 4, 3), nn.Linear(4 * 36, outputs)

    def forward(self, x):
        return self.last(self.conv(x.unsqueeze(1)).flatten(1))


class Strided(ViewOfInputs):
    def forward(self, x):
        return self.last(torch.as_strided(x, (len(x), 192), (192, 1)))


class NoSizes(ViewOfInputs):
    def __init__(self, features=192, classes=10):
        super().__init__((features,), classes)

    def forward(self, x):
        return self.last(x.flatten(1))


class Keywords(NoSizes):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)


class Lazy(nn.Sequential):
    def __init__(self, input_shape, outputs):
        super().__init__(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(outputs))


class MadeInForward(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.norm, self.outputs, self.fc = nn.BatchNorm2d(3), outputs, None

    def forward(self, x):
        x = self.norm(x).flatten(1)
        if self.fc is None:
            self.fc = nn.Linear(x.shape[1], self.outputs)
        return self.fc(x)


class MadeAnew(MadeInForward):
    def forward(self, x):
        self.fc = nn.Linear(192, self.outputs)
        return self.fc(x.flatten(1))


class Double(NoSizes):
    def __init__(self, outputs):
        super().__init__()
        self.double()


class Pair(ViewOfInputs):
    def forward(self, x):
        return self.last(x.flatten(1)), x


class Rectified(NoSizes):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x))


class Squeezed(ViewOfInputs):
    def forward(self, x):
        return super().forward(x).squeeze()


class ViewOfPermuted(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.last = nn.Linear(prod(IMAGE), outputs)

    def forward(self, x):
        return self.last(x.permute(0, 2, 3, 1).view(len(x), -1))


class FixedBatch(ViewOfPermuted):
    def forward(self, x):
        return self.last(x.reshape(32, -1, prod(IMAGE))[0])


def scripted(outputs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        return torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(prod(IMAGE), outputs)))


def data_parallel(input_shape, outputs):
    return nn.DataParallel(View(input_shape, outputs))


def compiled(input_shape, outputs):
    return torch.compile(ViewOfInputs(input_shape, outputs), backend="eager")


def weight_norm(input_shape, outputs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(prod(input_shape), outputs)))


def function(input_shape, outputs):
    return lambda x: x


def raising(input_shape, outputs):
    return {}["missing"]


def learner(target: str, *overrides: str) -> Learner:
    """Build a learner with a network of this module."""
    name = target if "." in target else f"{__name__}.{target}"
    digits = () if any(each.startswith("data=") for each in overrides) else ("data=digits", "data.size=8")
    chosen = ("model=mlp", *digits, "loss=cross_entropy", "trainer=cpu", "logger=none", "callbacks=none")
    config = compose([*chosen, *overrides], "unused")
    added = {key.partition("=")[0].rpartition(".")[2] for key in overrides if key.startswith("+model.")}
    config["model"] = {"_target_": name} | {key: value for key, value in config["model"].items() if key in added}
    return build(config).learner


def gradients_of_training_batch(built: Learner) -> list[torch.Tensor]:
    images = torch.rand(4, *IMAGE).contiguous(memory_format=torch.channels_last)
    built.network(images).square().sum().backward()
    return [p.grad for p in built.network.parameters()]


@pytest.mark.parametrize(
    "name",
    ["View", "ViewOfInputs", "ViewInBackward", "Volumes", "Strided", "data_parallel", "compiled"],
)
def test_network_that_fails_in_channels_last_gets_contiguous_images(caplog, name):
    with caplog.at_level("INFO", "losslab"):
        built = learner(name)
    assert "the network gets contiguous images: in the memory format channels_last" in caplog.text
    assert all(gradient is not None for gradient in gradients_of_training_batch(built))
    images = torch.rand(4, *IMAGE)
    expected = built.network(images)
    assert torch.equal(built.network(images.contiguous(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("name", ["NoSizes", "Lazy", "MadeInForward", "Rectified", "weight_norm", "Keywords"])
def test_other_networks_stay_in_channels_last(caplog, name):
    with caplog.at_level("INFO", "losslab"):
        built = learner(name)
    assert not caplog.text
    assert _make_contiguous not in built.network._forward_pre_hooks.values()
    gradients_of_training_batch(built)


@pytest.mark.parametrize("name", ["Lazy", "MadeInForward"])
def test_weights_of_the_first_call_exist_before_training_and_follow_the_seed(name):
    first, again, other = learner(name, "seed=1"), learner(name, "seed=1"), learner(name, "seed=2")
    names = [key for key, _ in first.network.named_parameters()]
    assert len(names) == {"Lazy": 6, "MadeInForward": 4}[name]
    optimizer = first.optimizer(first.parameters())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    for key, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])
    weight = {"Lazy": "3.weight", "MadeInForward": "fc.weight"}[name]
    assert not torch.equal(first.network.state_dict()[weight], other.network.state_dict()[weight])
    norm = next(module for module in first.network.modules() if isinstance(module, nn.BatchNorm2d))
    assert not norm.running_mean.any()
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("Squeezed", ()),
        ("Squeezed", ("data=breast_cancer", "loss=bce")),
        ("Squeezed", ("data=diabetes", "loss=mse")),
    ],
)
def test_squeezed_outputs_get_their_dimensions_back(name, overrides):
    built = learner(name, *overrides)
    for examples in (1, 3):
        shape = (examples, built.loss.outputs(built.spec.targets))
        assert built.network(torch.rand(examples, *built.spec.input_shape)).shape == shape


def test_torchscript_network_has_no_findings():
    built = learner("scripted")
    assert not examine(built.network, built.loss, (torch.rand(32, *IMAGE), torch.arange(32) % 10), lr=0.01)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("NoSizes", ("+model.features=192", "+model.classes=7"), r"has 7 outputs, .* need 10: set model\.classes=10"),
        ("NoSizes", ("+model.features=64",), r"example of shape \(3, 8, 8\) .*: set model\.features=192"),
        ("NoSizes", ("data.size=4",), r"it has features, classes"),
        ("torchvision.models.resnet18", (), r"has 1000 outputs, .* need 10: set \+model\.num_classes=10"),
        ("Double", (), r"weights of torch\.float64 .* set trainer\.precision=64-true"),
        ("Pair", (), r"returns a tuple, but a loss needs one tensor \(N, 10\)"),
        ("MadeAnew", (), r"makes fc\.weight anew in each call"),
        ("ViewOfPermuted", (), r"test_network\.py:\d+, in forward: .*: write reshape instead of view"),
        ("FixedBatch", (), r"test_network\.py:\d+, in forward: .*: write sizes in forward that follow from the inputs"),
        ("function", (), r"gives a function, not a torch\.nn\.Module"),
        ("raising", (), r"test_network\.py:\d+, in raising: KeyError: 'missing'"),
    ],
)
def test_network_that_does_not_fit_is_refused_in_one_line(name, overrides, message):
    with pytest.raises(LabError, match=message) as error:
        learner(name, *overrides)
    assert "\n" not in str(error.value)

"""The declarations of hyperparameters determine the constructor, its signature and its checks."""

import copy
import inspect
import pickle
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from typing import ClassVar

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses import (
    GJS,
    JS,
    LDAM,
    NFL,
    ClassLoss,
    CrossEntropy,
    Distillation,
    Focal,
    GaussianNLL,
    Huber,
    Loss,
    Parameter,
    ResidualLoss,
    Smoothed,
    WeightedSum,
    argument,
    base,
    catalog,
    hyperparameter,
)
from losslab.losses.hyperparameters import HasHyperparameters, find_hyperparameter
from losslab.losses.imbalance import balanced
from losslab.targets import Kind

Z = torch.randn(8, 5, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 4, 2, 1, 1, 3, 0, 2])


def defaults(loss):
    return {name: each.default for name, each in inspect.signature(loss).parameters.items()}


@cache
def losses():
    return [catalog.make(name) for name in catalog.names()]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (Focal, {"gamma": 2.0, "weight": None, "ignore_index": -100}),
        (CrossEntropy, {"weight": None, "label_smoothing": 0.0, "ignore_index": -100}),
        (LDAM, {"max_m": 0.5, "s": 30.0, "counts": None, "weight": None, "ignore_index": -100}),
        (JS, {"pi1": 0.7, "ignore_index": -100}),
        (GJS, {"pi1": 0.9, "view": None, "ignore_index": -100}),
        (NFL, {"gamma": 0.5, "weight": None, "ignore_index": -100, "detach_focus": False}),
        (GaussianNLL, {"eps": 1e-6, "full": False}),
        (Huber, {"delta": 1.0}),
        (Smoothed, {"loss": inspect.Parameter.empty, "epsilon": 0.1}),
        (Distillation, {"temperature": 4.0, "teacher": None}),
    ],
)
def test_the_signature_lists_own_arguments_and_then_those_of_the_base_class(loss, expected):
    assert defaults(loss) == expected
    assert list(defaults(loss)) == list(expected)


def test_an_argument_can_be_taken_by_name_only():
    assert inspect.signature(NFL).parameters["detach_focus"].kind is inspect.Parameter.KEYWORD_ONLY
    assert inspect.signature(NFL).parameters["weight"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def test_the_signature_has_the_annotations_of_the_declarations():
    hints = typing.get_type_hints(CrossEntropy.__init__)
    assert hints["label_smoothing"] == float | Tensor
    assert Sequence[float] in typing.get_args(hints["weight"])
    assert hints["return"] is type(None)


def test_arguments_are_taken_by_position_and_by_name():
    loss = Focal(3, [1.0, 2.0, 3.0, 4.0, 5.0], 7)
    again = Focal(gamma=3, weight=[1.0, 2.0, 3.0, 4.0, 5.0], ignore_index=7)
    assert (loss.gamma, loss.ignore_index) == (again.gamma, again.ignore_index) == (3.0, 7)
    assert isinstance(loss.gamma, float)
    assert torch.equal(loss.weight, again.weight)
    assert Focal(weight=balanced).weight_rule is balanced


def test_hydra_instantiates_from_names():
    loss = instantiate({"_target_": "losslab.losses.focal.Focal", "gamma": 1.5, "weight": [1.0] * 5})
    assert (loss.gamma, loss.weight.tolist()) == (1.5, [1.0] * 5)
    assert instantiate({"_target_": "losslab.losses.Focal", "_partial_": True})(gamma=1.0).gamma == 1.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Focal(gama=2.0), r"Focal\.__init__\(\) got an unexpected keyword argument 'gama'"),
        (lambda: Focal(1, None, -1, 2), r"Focal\.__init__\(\) too many positional arguments"),
        (Smoothed, r"Smoothed\.__init__\(\) missing a required argument: 'loss'"),
        (lambda: JS(weight=[1.0]), r"JS\.__init__\(\) got an unexpected keyword argument 'weight'"),
        (lambda: GaussianNLL(1e-6, 1), r"GaussianNLL\.__init__\(\) too many positional arguments"),
    ],
)
def test_arguments_that_are_not_declared_are_an_error(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("value", [-0.5, float("nan"), float("inf"), True, "2", None])
def test_a_number_outside_the_declared_range_is_an_error(value):
    with pytest.raises(LabError, match=r"Focal: gamma must be a number in \[0, inf\), got"):
        Focal(value)
    with pytest.raises(LabError, match=r"Focal: gamma must be a number in \[0, inf\), got"):
        Focal().set_hyperparameter("gamma", value)


def test_ranges_include_and_exclude_their_ends_as_declared():
    closed, half_open = (Parameter("", text, "", ()) for text in ("[0, 1]", "(-inf, 0)"))
    assert [closed.contains(value) for value in (-0.1, 0, 0.5, 1, 1.1)] == [False, True, True, True, False]
    assert [half_open.contains(value) for value in (-1e300, -1e-300, 0)] == [True, True, False]
    assert not closed.contains(float("nan"))


def test_every_default_is_in_its_range_and_every_hyperparameter_is_an_attribute_and_an_argument():
    for loss in losses():
        for name, declared in loss.hyperparameters.items():
            assert declared.contains(float(getattr(loss, name)))
            assert all(declared.contains(value) for value in declared.tried)
            assert declared.contains(defaults(type(loss))[name])
            assert name in defaults(type(loss))


def test_help_lists_the_hyperparameters():
    assert (
        "gamma: γ, how strongly easy examples are down-weighted; in [0, inf). Default: 2 (the paper's)."
        in Focal.__doc__
    )
    assert Focal.__doc__.startswith("Focal loss on softmax probabilities")


def test_a_tensor_is_a_buffer_that_follows_the_module_and_is_not_saved():
    loss = Focal(torch.tensor(2.0))
    assert dict(loss.named_buffers())["gamma"] == 2.0
    assert loss.double().gamma.dtype == torch.float64
    assert not loss.state_dict()
    loss.set_hyperparameter("gamma", 1.0)
    assert loss.gamma == 1.0
    assert "gamma" not in dict(loss.named_buffers())
    loss.set_hyperparameter("gamma", torch.tensor(3.0))
    assert loss.gamma == 3.0


def test_losses_are_copied_and_pickled():
    for loss in (*losses(), Focal(torch.tensor(2.0), weight=[1.0] * 5)):
        for again in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
            assert type(again) is type(loss)
            assert all(getattr(again, name) == getattr(loss, name) for name in loss.hyperparameters)


def test_a_hyperparameter_is_found_by_its_path():
    loss = WeightedSum({"focal": {"loss": Focal(), "weight": 2.0}, "ce": {"loss": CrossEntropy()}})
    assert find_hyperparameter(loss, "terms.focal.weight") == (loss.terms["focal"], "weight")
    assert find_hyperparameter(loss, "terms.focal.loss.gamma") == (loss.terms["focal"].loss, "gamma")
    with pytest.raises(LabError, match=r"gamma is not a hyperparameter of this loss: it has terms\.focal\.weight, "):
        find_hyperparameter(loss, "gamma")
    with pytest.raises(LabError, match="it has none"):
        find_hyperparameter(nn.Linear(1, 1), "gamma")


def test_a_declaration_may_be_extended_narrowed_and_checked_by_a_subclass():
    class Power(ClassLoss):
        power: float | Tensor = hyperparameter("p, the power", "(0, inf)", "a guess", (1.0, 2.0), default=2.0)

        def classwise(self, outputs):
            return (1 - outputs.softmax(dim=1)) ** self.power

    class Offset(Power):
        offset: float | Tensor = hyperparameter("b", "[0, 1]", "a guess", (0.0,), default=0.0)
        power: float | Tensor = hyperparameter("p", "[1, 2]", "a guess", (1.0,), default=1.0)
        limit: int = argument(default=1)

        def __post_init__(self):
            if self.limit < self.offset:
                raise LabError("limit must be at least offset")

    assert list(defaults(Offset)) == ["offset", "power", "limit", "weight", "ignore_index"] or True
    assert list(defaults(Offset)) == ["offset", "power", "limit", "weight", "ignore_index"]
    assert defaults(Power) == {"power": 2.0, "weight": None, "ignore_index": -100}
    assert list(Offset.hyperparameters) == ["offset", "power"]
    assert list(Power.hyperparameters) == ["power"]
    with pytest.raises(LabError, match=r"Offset: power must be a number in \[1, 2\], got 3"):
        Offset(limit=1, power=3)
    with pytest.raises(LabError, match="limit must be at least offset"):
        Offset(offset=0.5, limit=0)
    assert Offset(limit=4).limit == 4


def test_a_plain_constructor_is_kept():
    class Mine(ClassLoss):
        def __init__(self, power=2.0):
            super().__init__()
            self.power = power

        def classwise(self, outputs):
            return (1 - outputs.softmax(dim=1)) ** self.power

    assert defaults(Mine) == {"power": 2.0}
    torch.testing.assert_close(Mine(1.0)(Z, Y), 1 - Z.softmax(1).gather(1, Y[:, None]).mean())
    assert Mine().hyperparameters == {}


def test_a_subclass_of_a_loss_may_write_its_own_constructor():
    class Clipped(Focal):
        def __init__(self, gamma=1.0, limit=5.0):
            super().__init__(gamma, ignore_index=3)
            self.limit = limit

        def score(self, outputs, target):
            return super().score(outputs, target).clamp(max=self.limit)

    loss = Clipped(limit=0.5)
    assert (loss.gamma, loss.ignore_index, loss.weight) == (1.0, 3, None)
    assert loss.per_example(Z, Y).max() <= 0.5


def test_a_loss_written_in_the_former_style_still_works():
    class Former(ResidualLoss):
        hyperparameters: ClassVar[Mapping[str, Parameter]] = {"c": Parameter("c", "(0, inf)", "a guess", (1.0, 2.0))}
        c: float | Tensor

        def __init__(self, c: float | Tensor = 1.0) -> None:
            super().__init__()
            self.hold("c", c)

        def penalty(self, residual):
            return residual.abs() / self.c

    assert defaults(Former) == {"c": 1.0}
    assert Former(2.0)(torch.ones(3, 1), torch.zeros(3, 1)) == 0.5
    assert find_hyperparameter(Former(), "c")[1] == "c"
    with pytest.raises(LabError, match=r"Former: c must be a number in \(0, inf\), got 0"):
        Former(0)
    with pytest.raises(LabError, match="c must be a number"):
        Former().hold("c", -1.0)


def test_former_names_of_the_methods_for_several_views_still_work():
    class Former(Loss):
        wants = (Kind.INDEX,)
        views = 2

        def seen(self, outputs, inputs, network):
            return torch.cat([outputs, network(inputs)], 1)

        def score(self, outputs, target):  # noqa: ARG002
            first, second = outputs.chunk(2, 1)
            return (first - second).square().mean(1)

    loss = Former()
    assert loss.n_views == 2
    assert loss(loss.loss_inputs(Z, Z, nn.Identity()), Y) == 0
    assert Loss.n_views == 1


def test_the_base_classes_are_exported():
    assert ClassLoss is base.ClassLoss
    assert ResidualLoss is base.ResidualLoss
    assert issubclass(Loss, HasHyperparameters)

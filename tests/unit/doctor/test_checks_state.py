"""The state of a loss is named if checkpoints lack it. A saved or harmless state gives no warning."""

import random
from collections import deque
from itertools import count

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losslab.doctor import Finding, examine
from losslab.losses import catalog
from losslab.losses.adapter.adapted import adapt
from losslab.targets import Kind

pytestmark = pytest.mark.usefixtures("no_check_fails")

N, C = 24, 5
INPUTS, LABELS = torch.randn(N, 6, generator=torch.Generator().manual_seed(0)), torch.arange(N) % C
calls_of_all = 0
remembered: list[int] = []


class Memory:
    """An object with a state, as a meter of another library."""

    def __init__(self) -> None:
        self.calls = 0


class Stateful(nn.Module):
    """A cross-entropy that calls `change` with its value. `STATEFUL` sets its attributes."""

    def __init__(self, change, **attributes) -> None:
        super().__init__()
        self.change = change
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        value = F.cross_entropy(outputs, target)
        factor = self.change(self, outputs.detach(), value.detach())
        return value * factor if isinstance(factor, float) else value


class ClassAttribute(nn.Module):
    calls = 0

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        type(self).calls += 1
        return F.cross_entropy(outputs, target)


class WithBuffer(nn.Module):
    """Subtracts a running mean of the outputs, which it changes in training only unless `always`."""

    def __init__(self, *, persistent: bool = True, always: bool = False) -> None:
        super().__init__()
        self.always = always
        self.register_buffer("mean", torch.zeros(C), persistent=persistent)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        if self.training or self.always:
            self.mean.mul_(0.9).add_(0.1 * outputs.detach().mean(0))
        return F.cross_entropy(outputs - self.mean, target)


class WithExtraState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        self.calls += self.training
        return F.cross_entropy(outputs, target) * min(1.0, self.calls / 100)

    def get_extra_state(self) -> int:
        return self.calls

    def set_extra_state(self, state: int) -> None:
        self.calls = state


class Centres(nn.Module):
    """Moves the centres of the classes in every call, as the first implementations of the center loss did."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(C, C), requires_grad=False)

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        distance = outputs - self.centres[target]
        self.centres.data.index_add_(0, target, 0.1 * distance.detach())
        return distance.square().mean()


def closure():
    calls = 0

    def loss(outputs, target):
        nonlocal calls
        calls += 1
        return F.cross_entropy(outputs, target)

    return loss


def of_global_variable(outputs, target):
    global calls_of_all  # noqa: PLW0603
    calls_of_all += 1
    return F.cross_entropy(outputs, target)


def of_global_list(outputs, target):
    _remember()
    return F.cross_entropy(outputs, target)


def _remember() -> None:
    remembered.append(1)


def of_function_attribute(outputs, target):
    of_function_attribute.calls += 1
    return F.cross_entropy(outputs, target)


of_function_attribute.calls = 0


def of_default_argument(outputs, target, memory=[]):  # noqa: B006
    memory.append(1)
    return F.cross_entropy(outputs, target)


def set_mean(self, outputs, _):
    self.mean = 0.9 * self.mean + outputs.mean(0)


def set_first(self, _, value):
    self.first = value if self.first is None else self.first


def use_previous(self, _, value):
    previous, self.previous = self.previous, float(value)
    return previous


STATEFUL = {
    "a count": (lambda: Stateful(lambda self, *_: setattr(self, "calls", self.calls + 1), calls=0), "calls"),
    "a list": (lambda: Stateful(lambda self, _, value: self.values.append(value), values=[]), "values"),
    "a deque": (lambda: Stateful(lambda self, o, _: self.memory.append(o), memory=deque(maxlen=2)), "memory"),
    "a dict": (lambda: Stateful(lambda self, *_: self.seen.update({len(self.seen): 1}), seen={}), "seen"),
    "a set": (lambda: Stateful(lambda self, *_: self.seen.add(len(self.seen)), seen=set()), "seen"),
    "a running mean": (lambda: Stateful(set_mean, mean=torch.zeros(C)), "mean"),
    "a tensor in place": (lambda: Stateful(lambda self, *_: self.n.add_(1) and None, n=torch.zeros(())), "n"),
    "an array": (lambda: Stateful(lambda self, *_: self.calls.__iadd__(1) is None, calls=np.zeros(1)), "calls"),
    "a counter": (lambda: Stateful(lambda self, *_: next(self.counter) and None, counter=count(1)), "counter"),
    "the first value": (lambda: Stateful(set_first, first=None), "first"),
    "the previous value": (lambda: Stateful(use_previous, previous=1.0), "previous"),
    "an object": (lambda: Stateful(lambda self, *_: setattr(self.m, "calls", self.m.calls + 1), m=Memory()), "m.calls"),
    "a torch generator": (
        lambda: Stateful(lambda self, *_: torch.rand((), generator=self.g), g=torch.Generator()),
        "g (random generator)",
    ),
    "a NumPy generator": (
        lambda: Stateful(lambda self, *_: self.g.random(), g=np.random.default_rng(0)),
        "g (random generator)",
    ),
    "a Python generator": (
        lambda: Stateful(lambda self, *_: self.g.random(), g=random.Random(0)),  # noqa: S311
        "g (random generator)",
    ),
    "a buffer that is not saved": (lambda: WithBuffer(persistent=False), "mean (persistent=False)"),
    "a class attribute": (ClassAttribute, "ClassAttribute.calls (class attribute)"),
    "a closure": (closure, "calls"),
    "a global variable": (lambda: of_global_variable, "calls_of_all (global variable)"),
    "a global list": (lambda: of_global_list, "remembered (global variable)"),
    "a function attribute": (lambda: of_function_attribute, "of_function_attribute.calls"),
    "a default argument": (lambda: of_default_argument, "of_default_argument (default argument)"),
}  # fmt: skip
SILENT = {
    "none": nn.CrossEntropyLoss,
    "a saved buffer": WithBuffer,
    "an extra state": WithExtraState,
    "the last value": lambda: Stateful(lambda self, _, value: setattr(self, "last", value), last=None),
    "a cache": lambda: Stateful(lambda self, *_: setattr(self, "eye", torch.eye(C)), eye=None),
    "BatchNorm": lambda: InLoss(nn.BatchNorm1d(C)),
    "dropout": lambda: InLoss(nn.Dropout(0.4)),
    "parameters": lambda: InLoss(nn.Linear(C, C)),
}


class InLoss(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(self.layer(outputs), target)


def findings(loss) -> list[Finding]:
    """Examine the loss with a network that fits, and return the findings on state and random numbers."""
    network = nn.Linear(6, C)
    names = ("loss-keeps-state", "loss-learns-in-evaluation", "loss-random")
    return [finding for finding in examine(network, loss, (INPUTS, LABELS)) if finding.name in names]


@pytest.mark.parametrize("adapted", [False, True], ids=["as it is", "adapted"])
@pytest.mark.parametrize("case", STATEFUL)
def test_state_outside_saved_buffers_is_named(case, adapted):
    make, name = STATEFUL[case]
    loss = adapt(make(), Kind.INDEX, C) if adapted else make()
    (finding,) = findings(loss)
    assert finding.name == "loss-keeps-state"
    assert f"the loss changes {name} with each call" in finding.problem
    assert ("register_buffer" in finding.fix) != ("generator" in name)


@pytest.mark.parametrize("make", SILENT.values(), ids=SILENT)
def test_saved_or_harmless_state_gives_no_warning(make):
    assert not findings(make())


def test_neither_adapt_nor_the_examination_advances_a_state():
    stateful = Stateful(lambda self, o, _: self.memory.append(o), memory=deque(maxlen=2))
    centres = Centres()
    for loss in (stateful, centres, of_global_variable, of_global_list, of_default_argument):
        adapt(loss, Kind.INDEX, C)
        findings(loss)
    assert not stateful.memory
    assert not centres.centres.any()
    assert (calls_of_all, remembered, of_default_argument.__defaults__) == (0, [], ([],))


def test_value_that_changes_from_call_to_call_for_an_unknown_reason_is_reported():
    steps = iter(range(1, 1000))  # an iterator does not show its position
    (finding,) = findings(lambda outputs, target: F.cross_entropy(outputs, target) * next(steps))
    assert finding.name == "loss-keeps-state"
    assert "depending on the calls before it" in finding.problem


@pytest.mark.parametrize(("loss", "name"), [(WithBuffer(always=True), "mean"), (Centres(), "centres")])
def test_saved_state_that_changes_in_evaluation_mode_is_reported(loss, name):
    (finding,) = findings(loss)
    assert finding.name == "loss-learns-in-evaluation"
    assert name in finding.problem


def test_evaluation_mode_is_mentioned_if_it_changes_the_state():
    always, training = (
        Stateful(lambda self, *_, always=always: setattr(self, "n", self.n + (always or self.training)), n=0)
        for always in (1, 0)
    )
    assert "also in evaluation mode" in findings(always)[0].problem
    assert "also in evaluation mode" not in findings(training)[0].problem


RANDOM = {
    "Python": (lambda o, t: F.cross_entropy(o * random.random(), t), "Python or NumPy"),  # noqa: S311
    "NumPy": (lambda o, t: F.cross_entropy(o * np.random.rand(), t), "Python or NumPy"),  # noqa: NPY002
    "torch": (lambda o, t: F.cross_entropy(o + torch.randn_like(o), t), "random in evaluation mode"),
}


@pytest.mark.parametrize("case", RANDOM)
def test_random_numbers_that_are_not_repeated_are_reported(case):
    loss, problem = RANDOM[case]
    (finding,) = findings(loss)
    assert finding.name == "loss-random"
    assert problem in finding.problem


@pytest.mark.parametrize("name", catalog.names())
def test_no_loss_of_this_package_has_a_state_of_its_own(name):
    loss = catalog.make(name)
    loss.set_class_counts(torch.ones(C, dtype=torch.int64))
    hot = F.one_hot(LABELS, C).float()
    target = LABELS if loss.wants[0] is Kind.INDEX else hot
    if loss.n_views == 1:
        outputs = torch.randn(N, loss.outputs(C), generator=torch.Generator().manual_seed(1))
        found = examine(nn.Linear(loss.outputs(C), loss.outputs(C)), loss, (outputs, target))
        assert not [
            each for each in found if each.name in ("loss-keeps-state", "loss-learns-in-evaluation", "loss-random")
        ]

"""Every loss gives stacked members the weights and metrics that each member has alone."""

import copy
from collections.abc import Sequence
from functools import cache, partial

import pytest
import torch
from fused_runs import close
from quick import sample
from torch import Tensor, nn

from losslab.data.batch import DataSpec
from losslab.losses import Loss, catalog
from losslab.losses.hyperparameters import find_hyperparameter
from losslab.models.cosine import CosineLinear
from losslab.models.learner import Learner, learner_for
from losslab.targets import Kind, Task, choose_kind
from losslab.training.fused.optimizers import StackedOptimizer
from losslab.training.fused.stack import LossStack, NotFusableError, Stacked, hyperparameter_paths, structure

REFUSED = ("distillation", "gjs")  # they score outputs of a teacher or of other views of the inputs
NAMES = [name for name in catalog.names() if name not in REFUSED]
STEPS, EXAMPLES, FEATURES = 5, 40, 6
SPECS = {
    "values": DataSpec(Task.REGRESSION, Kind.VALUES, (FEATURES,), 2),
    "counts": DataSpec(Task.REGRESSION, Kind.VALUES, (FEATURES,), 1),
    "classes": DataSpec(Task.MULTICLASS, Kind.INDEX, (FEATURES,), 4),
    "one label": DataSpec(Task.BINARY, Kind.BINARY, (FEATURES,), 1),
    "labels": DataSpec(Task.MULTILABEL, Kind.BINARY, (FEATURES,), 3),
}


@cache
def data_of(kind: str) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    inputs = torch.randn(EXAMPLES, FEATURES, generator=random, dtype=torch.float64)
    columns = SPECS[kind].targets
    scores = inputs[:, :columns] + 0.3 * torch.randn(EXAMPLES, columns, generator=random, dtype=torch.float64)
    targets = {"values": scores, "counts": scores.exp().round(), "classes": scores.argmax(1)}
    return inputs, targets.get(kind, (scores > 0).double())


@cache
def made(name: str) -> Loss:
    return catalog.make(name)


@cache
def kinds_of(name: str) -> list[str]:
    """The data on which a loss can be trained."""
    wants = made(name).wants
    return [kind for kind, spec in SPECS.items() if choose_kind(spec.kind, wants) is not None]


CASES = [(name, kind) for name in NAMES for kind in kinds_of(name)]


def variants(name: str, spec: DataSpec) -> list[Loss]:
    """Return the configured loss, and one with another value of each hyperparameter."""
    losses = [copy.deepcopy(made(name))]
    paths = hyperparameter_paths(losses[0])
    for shift in (0, 1) if paths else ():
        loss = copy.deepcopy(made(name))
        for path in paths:
            owner, attribute = find_hyperparameter(loss, path)
            tried = owner.hyperparameters[attribute].tried or (0.5, 1.5)  # such as the weight of a term
            owner.set_hyperparameter(attribute, float(tried[shift % len(tried)]))
        losses.append(loss)
    for loss in losses:
        if spec.kind is not Kind.VALUES:
            loss.set_class_counts(torch.arange(1, spec.targets + 1) * 7)
    return losses


def network_for(loss: Loss, spec: DataSpec, seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        last = CosineLinear if loss.cosine_outputs else nn.Linear
        layers = [nn.Linear(FEATURES, 8), nn.Tanh(), last(8, loss.outputs(spec.targets))]
        return nn.Sequential(*layers).double()


def trained_alone(losses: Sequence[Loss], networks: Sequence[nn.Module], kind: str) -> list[tuple[Learner, Tensor]]:
    """Train an ordinary learner of each loss, and return it with its losses, (steps,)."""
    inputs, target = data_of(kind)
    results = []
    for index, (loss, network) in enumerate(zip(losses, networks, strict=True)):
        learner = learner_for(SPECS[kind].task)(network, loss, SPECS[kind])
        optimizer = torch.optim.SGD(learner.parameters(), lr=0.02 * (index + 1), momentum=0.5)
        history = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            total = loss.total(network(inputs), learner.encode_target(target, torch.float64))
            (total.value / total.weight).backward()
            optimizer.step()
            history.append(torch.stack([total.value, total.weight, *total.terms.values()]).detach())
        results.append((learner, torch.stack(history)))
    return results


@pytest.mark.parametrize(("name", "kind"), sample(CASES, *((name, kinds_of(name)[0]) for name in NAMES)))
def test_stacked_losses_train_like_single_ones(name, kind):
    spec = SPECS[kind]
    losses = variants(name, spec) * 2
    for path in hyperparameter_paths(losses[0]):
        assert len({float(getattr(*find_hyperparameter(loss, path))) for loss in losses}) > 1, "the values do not vary"
    networks = [network_for(loss, spec, seed) for seed, loss in enumerate(losses)]
    stacked, stack = Stacked(networks), LossStack(losses, spec, torch.float64)
    assert len(stack.groups) == len({structure(loss) for loss in losses})
    factories = [partial(torch.optim.SGD, lr=0.02 * (index + 1), momentum=0.5) for index in range(len(losses))]
    optimizer = StackedOptimizer([*stacked.stacked_parameters], factories, [1] * len(losses))
    inputs, target = data_of(kind)
    targets = target.expand(len(losses), *target.shape)
    history = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        values, weights, terms = stack.totals(stacked(inputs, shared=True), targets)
        (values / weights).sum().backward()
        optimizer.step()
        history.append(torch.stack([values, weights, *terms.values()]).detach())
    outputs = stacked(inputs, shared=True).detach()
    for index, (learner, alone) in enumerate(trained_alone(losses, networks, kind)):
        assert close(torch.stack(history)[:, :, index], alone, 1e-12)
        for one, other in zip(stacked.stacked_parameters, learner.network.parameters(), strict=True):
            assert close(one[index], other, 1e-12)
        own = outputs[index]
        assert close(stack.predictions(outputs)[index], learner.predictions(own), 1e-12)
        if spec.task is not Task.REGRESSION:
            assert close(stack.probabilities(outputs)[index], learner.probabilities(own), 1e-12)


@pytest.mark.parametrize("name", ["gjs"])
def test_a_loss_of_several_sets_of_outputs_is_refused(name):
    with pytest.raises(NotFusableError, match="GJS scores several sets of outputs"):
        LossStack([catalog.make(name)] * 2, SPECS["classes"], torch.float64)


def test_a_loss_with_parameters_that_are_learned_is_refused():
    loss = catalog.make("mse")
    loss.scale = nn.Parameter(torch.ones(()))
    with pytest.raises(NotFusableError, match="parameters that are learned"):
        LossStack([loss] * 2, SPECS["values"], torch.float64)


def test_losses_of_other_classes_and_terms_are_called_in_groups():
    losses = [catalog.make(name) for name in ("sce", "mse", "nce_mae", "sce", "mse")]
    stack = LossStack(losses, SPECS["classes"], torch.float64)
    assert [[*group.members] for group in stack.groups] == [[0, 3], [1, 4], [2]]
    outputs = torch.randn(5, EXAMPLES, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = data_of("classes")[1]
    values, weights, terms = stack.totals(outputs, target.expand(5, EXAMPLES))
    for index, loss in enumerate(losses):
        learner = learner_for(Task.MULTICLASS)(nn.Identity(), loss, SPECS["classes"])
        expected = loss.total(outputs[index], learner.encode_target(target, torch.float64))
        assert close(values[index], expected.value, 1e-12)
        assert close(weights[index], expected.weight, 1e-12)
        assert {name for name in terms if not terms[name][index].isnan()} == {*expected.terms}
        assert all(close(terms[name][index], value, 1e-12) for name, value in expected.terms.items())


def test_setting_a_hyperparameter_leaves_members_whose_value_is_nan():
    losses = [catalog.make("focal") for _ in range(3)]
    stack = LossStack(losses, SPECS["classes"], torch.float64, ["gamma"])
    stack.set_hyperparameter("gamma", torch.tensor([0.0, torch.nan, 5.0], dtype=torch.float64))
    outputs = torch.randn(3, EXAMPLES, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = data_of("classes")[1]
    values = stack.totals(outputs, target.expand(3, EXAMPLES))[0]
    for index, gamma in enumerate((0.0, 2.0, 5.0)):
        losses[index].set_hyperparameter("gamma", gamma)
        assert close(values[index], losses[index].total(outputs[index], target).value, 1e-12)

"""The gradient that each loss of the catalogue gives the same untrained network on the same examples."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from losslab.data.batch import Batch
from losslab.losses import Distillation, catalog
from losslab.losses.base import Loss
from losslab.losses.contract.sample_inputs import is_classification
from losslab.models.learner import Learner
from losslab.models.linear import mlp
from losslab.targets import encode
from losslab.training import experiment as lab
from losslab.training.config import compose
from losslab.training.preflight import first_batch

_ALIKE = ("model=mlp", "data.batch_size=null", "trainer=cpu", "trainer.precision=64-true")


@dataclass(frozen=True)
class Place:
    """A data set on which losses are compared, and the loss they are compared with."""

    title: str
    overrides: tuple[str, ...]
    reference: str


DIGITS = Place("digits", ("data=digits", "data.size=8"), "cross_entropy")
DIABETES = Place("diabetes", ("data=diabetes",), "mse")
COUNTS = Place("counts", ("data=counts",), "mse")


@dataclass(frozen=True)
class Initial:
    """The first gradient of one loss."""

    place: str
    reference: str
    loss: str
    norm: float
    """Of the gradient of the mean loss over all training examples, by all parameters."""
    ratio: float
    """To the norm under the reference."""


def measure() -> list[Initial]:
    """Every loss of the catalogue, from the longest gradient to the shortest in each place."""
    grouped: dict[Place, dict[str, Any]] = {DIGITS: {}, DIABETES: {}, COUNTS: {}}
    for name in catalog.names():
        config = catalog.config(name)
        grouped[_place(instantiate(config))][name] = config
    return [initial for place, losses in grouped.items() for initial in _compared(place, losses)]


def _place(loss: Loss) -> Place:
    if is_classification(loss):
        return DIGITS
    outputs = torch.ones(1, loss.outputs(1))
    return DIABETES if torch.equal(loss.to_predictions(outputs), outputs[:, :1]) else COUNTS


def _compared(place: Place, losses: dict[str, Any]) -> Iterator[Initial]:
    """The losses of one place, and the reference, on the same examples."""
    config = compose([*_ALIKE, *place.overrides, f"loss={place.reference}"], run_dir="nowhere")
    data = lab.build_to_look_at(config).data
    data.setup()
    batch, counts, norms = first_batch(data), data.class_counts, {}
    for name, loss in ({place.reference: config["loss"]} | losses).items():
        learner = lab.build_to_look_at(config | {"loss": loss}).learner
        if counts is not None:
            learner.loss.set_class_counts(counts)
        norms[name] = _norm(learner, batch)
    for name in sorted(norms, key=lambda name: -norms[name]):
        yield Initial(place.title, place.reference, name, norms[name], norms[name] / norms[place.reference])


def _norm(learner: Learner, batch: Batch) -> float:
    """‖∂ mean loss / ∂ parameters‖."""
    inputs = batch.inputs.double()
    target = encode(batch.target, learner.facts.kind, learner.kind, learner.facts.targets, torch.float64)
    for part in learner.loss.modules():
        if isinstance(part, Distillation):
            part._teacher = (_teacher(inputs, batch.target),)  # noqa: SLF001 -- a run folder would be the other way
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the views that gjs draws
        seen = learner.loss.loss_inputs(learner.network(inputs), inputs, learner.network)
        gradients: Any = torch.autograd.grad(learner.loss(seen, target), list(learner.network.parameters()))
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


def _teacher(inputs: Tensor, target: Tensor) -> nn.Module:
    """A network that knows the examples: an untrained one has nothing to teach."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = mlp(tuple(inputs.shape[1:]), 10).double()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), target).backward()
        optimizer.step()
    return network.requires_grad_(requires_grad=False)

"""Optimizers that evaluate the loss several times in a step, and optimizers with a mode of their own."""

from functools import partial

import pytest
import torch
from modes import Modal
from torch import nn

from losslab.errors import LabError
from losslab.io import torch_files
from losslab.models.optimizers import set_mode
from losslab.training import experiment as lab
from losslab.training import preflight
from losslab.training.callbacks.gradient_norms import GradientNorms

QUICK = ("model=mlp", "model.hidden=[4]", "data=diabetes", "trainer.max_epochs=2", "logger=none")


class Twice(torch.optim.SGD):
    """SGD that evaluates the loss twice in each step."""

    def step(self, closure):
        first = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(1)
        closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(1)
        return first


def run(build, optimizer, *overrides, network=None, **arguments):
    """Run an experiment with an optimizer and perhaps another network, and return it."""
    experiment = build(*QUICK, "examine=false", *overrides)
    experiment.learner.optimizer = lambda parameters: optimizer(parameters, **arguments)
    experiment.learner.network = network or experiment.learner.network
    lab.run(experiment)
    return experiment


@pytest.mark.parametrize("optimizer", [torch.optim.LBFGS, Twice])
def test_several_evaluations_in_a_step_are_refused_with_accumulation(build, optimizer):
    experiment = build(*QUICK, "trainer.accumulate_grad_batches=2")
    experiment.learner.optimizer = optimizer
    with pytest.raises(LabError, match=r"several times in a step.*set trainer\.accumulate_grad_batches=1"):
        preflight.check_optimizer(experiment.learner, experiment.trainer)


def test_accumulation_that_was_not_known_before_is_refused_in_the_first_step(build):
    with pytest.raises(LabError, match="Twice evaluates the loss several times"):
        run(build, Twice, "trainer.accumulate_grad_batches=2", lr=0.0)


def test_training_averages_count_the_first_evaluation_of_each_step(build):
    once = run(build, torch.optim.SGD, lr=0.0).learner.values
    twice = run(build, Twice, lr=0.0).learner.values
    assert twice["train/loss"] == pytest.approx(once["train/loss"])
    assert twice["train/mse"] == pytest.approx(once["train/mse"])


class Recorder(nn.Module):
    """Records the random numbers that its layers draw."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(10, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
        self.draws = []

    def forward(self, inputs):
        if self.training:
            self.draws.append(torch.rand(1).item())
        return self.layers(inputs)


def test_evaluations_of_a_step_draw_the_same_numbers_and_count_once_in_batch_norm(build):
    networks = []
    for optimizer in (torch.optim.SGD, Twice):
        torch.manual_seed(0)
        networks.append(Recorder())
        run(build, optimizer, network=networks[-1], lr=0.0)
    once, twice = networks
    assert once.draws == twice.draws[::2] == twice.draws[1::2]
    assert int(once.layers[1].num_batches_tracked) == int(twice.layers[1].num_batches_tracked) > 0
    torch.testing.assert_close(once.layers[1].running_mean, twice.layers[1].running_mean)


def test_gradient_norms_are_those_of_the_first_evaluation(build, monkeypatch):
    steps = []
    monkeypatch.setattr(GradientNorms, "_compare", lambda _self, _rms, step: steps.append(step))
    run(build, Twice, "trainer.log_every_n_steps=1", lr=0.0)
    assert steps == sorted(set(steps))


def test_evaluated_weights_are_validated_tested_and_saved(build):
    experiment = run(build, Modal, lr=1e-3)
    sgd = run(build, torch.optim.SGD, lr=1e-3)
    optimizer = experiment.trainer.optimizers[0]
    assert not optimizer.param_groups[0]["training"]
    last = torch_files.load(experiment.folder.last)
    best = torch_files.load(experiment.folder.weights)
    assert last["learner"].keys() >= {"training_weights"}
    for name, weight in last["state_dict"].items():
        torch.testing.assert_close(weight * 3, last["learner"]["training_weights"][name])
    assert best.keys() == torch_files.load(sgd.folder.weights).keys()
    assert experiment.learner.values["val/mse"] < 1e6


def test_batch_norm_with_other_weights_is_reported(build, caplog):
    experiment = build(*QUICK)
    experiment.learner.optimizer, experiment.learner.network = Modal, Recorder()
    preflight.check_optimizer(experiment.learner, experiment.trainer)
    assert "running statistics of BatchNorm (network.layers.1)" in caplog.text


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_fused_optimizer_is_clipped_or_refused(build, precision):
    experiment = build(*QUICK, f"trainer.precision={precision}", "trainer.gradient_clip_val=1")
    experiment.learner.optimizer = partial(torch.optim.AdamW, fused=True)
    if precision == "32-true":
        assert "test/mse" in lab.run(experiment)
    else:
        with pytest.raises(LabError, match="leave out optimizer"):
            preflight.check_optimizer(experiment.learner, experiment.trainer)


class OneDimensional(torch.optim.SGD):
    """Refuses biases, as optimizers of other libraries do, which only their step can say."""

    def step(self, closure):
        if any(parameter.ndim < 2 for group in self.param_groups for parameter in group["params"]):
            raise ValueError("2-D parameters only")
        return super().step(closure)


class WithoutRate(torch.optim.SGD):
    def __init__(self, params):
        super().__init__(params, lr=0.01)
        self.rate = self.param_groups[0].pop("lr")

    def step(self, closure):
        self.param_groups[0]["lr"] = self.rate
        loss = super().step(closure)
        del self.param_groups[0]["lr"]
        return loss


def test_optimizer_without_a_learning_rate_is_trained(build):
    assert "val/mse" in run(build, WithoutRate).learner.values


class NeedsGradients(torch.optim.SGD):
    def step(self, closure):
        torch.stack([each.grad for group in self.param_groups for each in group["params"] if each.ndim == 1][:1])
        return super().step(closure)


class NoClosure(torch.optim.SGD):
    def step(self, closure=None):  # noqa: ARG002
        return None


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [(OneDimensional, "OneDimensional with its defaults cannot be used: 2-D parameters only"),
     (NeedsGradients, r"NeedsGradients.step\(closure\) must call the closure first"),
     (NoClosure, "does not call the closure"), (torch.optim.SparseAdam, "does not support dense gradients"),
     (torch.optim.Muon, "only supports 2D parameters")],
)  # fmt: skip
def test_optimizer_that_cannot_take_a_step_is_refused(build, optimizer, message):
    experiment = build(*QUICK)
    before = [parameter.clone() for parameter in experiment.learner.parameters()]
    experiment.learner.optimizer = optimizer
    with pytest.raises(LabError, match=message):
        preflight.check_optimizer(experiment.learner, experiment.trainer)
    assert all(map(torch.equal, before, experiment.learner.parameters()))


def test_checkpoint_between_two_steps_changes_nothing(build):
    seen = []
    for every in (0.0, 1e9):
        experiment = run(build, Modal, f"callbacks.checkpoints.every_seconds={every}", lr=1e-3)
        seen.append(experiment.learner.values)
    assert seen[0] == seen[1]


def test_set_mode_needs_both_methods():
    assert set_mode(Modal([nn.Parameter(torch.zeros(1))]), training=True)
    assert not set_mode(torch.optim.SGD([nn.Parameter(torch.zeros(1))]), training=True)

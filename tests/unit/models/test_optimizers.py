"""Optimizers that evaluate the loss several times in a step, and optimizers with a mode of their own."""

import pytest
import torch
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


class Modal(torch.optim.SGD):
    """Trains weights that are larger by 1 than those to evaluate, as schedule-free optimizers train others."""

    training = False

    def train(self):
        self._switch(to_training=True)

    def eval(self):
        self._switch(to_training=False)

    def _switch(self, *, to_training):
        if to_training is not self.training:
            self.training = to_training
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.add_(1 if to_training else -1)

    def step(self, closure):
        if not self.training:
            raise RuntimeError("call train() first")
        return super().step(closure)


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
    assert not optimizer.training
    last = torch_files.load(experiment.folder.last)
    best = torch_files.load(experiment.folder.weights)
    assert last["learner"].keys() >= {"training_weights"}
    for name, weight in last["state_dict"].items():
        torch.testing.assert_close(weight + 1, last["learner"]["training_weights"][name])
    assert best.keys() == torch_files.load(sgd.folder.weights).keys()
    assert experiment.learner.values["val/mse"] < 1e6


def test_checkpoint_between_two_steps_changes_nothing(build):
    seen = []
    for every in (0.0, 1e9):
        experiment = run(build, Modal, f"callbacks.checkpoints.every_seconds={every}", lr=1e-3)
        seen.append(experiment.learner.values)
    assert seen[0] == seen[1]


def test_set_mode_needs_both_methods():
    assert set_mode(Modal([nn.Parameter(torch.zeros(1))]), training=True)
    assert not set_mode(torch.optim.SGD([nn.Parameter(torch.zeros(1))]), training=True)

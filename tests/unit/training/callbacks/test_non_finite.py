import re
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from losslab.data.batch import Batch
from losslab.errors import NonFiniteError
from losslab.training import experiment as lab
from losslab.training.callbacks.non_finite import EvaluationGuard, FiniteGuard, locate_non_finite


def test_diverging_run_stops_and_names_step_and_loss(train):
    with pytest.raises(NonFiniteError, match=r"step (\d+) \(epoch \1, batch 1\): a \w+ became .* with loss MSE"):
        train("optimizer.lr=0.5", "trainer.max_epochs=1000")


def test_gradient_ascent_is_stopped(train):
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        train("optimizer.maximize=true", "optimizer.lr=0.1", "trainer.max_epochs=2000")


def test_without_the_guard_the_weights_become_non_finite(train):
    experiment, _ = train("optimizer.lr=0.5", "callbacks=none", "test=false")
    assert not torch.isfinite(experiment.learner.network.weight).all()


def test_only_finite_weights_are_saved(build):
    experiment = build("optimizer.lr=0.5", "callbacks.checkpoints.every_seconds=0")
    with pytest.raises(NonFiniteError):
        lab.run(experiment)
    for path in (experiment.folder.best, experiment.folder.last):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values())


def stopped_by(build, where: str):
    """Train with one non-finite number in a tensor, and return the error message of the guard."""
    experiment = build("model=mlp", "data=diabetes", "trainer.max_epochs=3", "logger=none")
    network = experiment.learner.network

    def poison(*_):
        if experiment.trainer.global_step == 5:
            if where == "weight":
                network[3].weight.data[0, 0] = torch.inf
            elif where == "gradient":
                network[1].weight.grad[0, 0] = torch.nan
                network[3].weight.grad[0, 0] = torch.nan
            else:
                experiment.data.splits["train"].inputs[:] = torch.nan

    hook = {"weight": "on_after_backward", "gradient": "on_after_backward", "input": "on_before_zero_grad"}[where]
    setattr(experiment.learner, hook, poison)
    with pytest.raises(NonFiniteError) as error:
        experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    return str(error.value)


def test_bad_weight_is_reported_with_layer_and_step(build):
    assert (
        "step 6 (epoch 1, batch 6): a weight became NaN or infinite with loss MSE, first in the weights of network.3"
        in stopped_by(build, "weight")
    )


def test_bad_gradient_is_reported_with_layer_and_step(build):
    message = stopped_by(build, "gradient")
    assert "step 6 (epoch 1, batch 6): a gradient became" in message
    assert "the gradient of network.3" in message


def test_bad_inputs_are_reported_with_their_examples(build):
    message = stopped_by(build, "input")
    assert re.search(r"batch 7\): a loss .* the inputs of the batch \(examples (\d+, ){4}\d+ and \d+ more\)", message)


class Logarithm(nn.Module):
    def forward(self, x):
        return x.log()


def test_first_layer_with_a_bad_output_is_named(build):
    learner = build("model=mlp", "data=diabetes").learner
    learner.network = nn.Sequential(nn.Linear(10, 4), Logarithm(), nn.Linear(4, 1))
    nn.init.constant_(learner.network[0].weight, -1.0)
    batch = Batch(torch.ones(2, 10), torch.ones(2, 1), torch.ones(2, 1), torch.arange(2))
    assert locate_non_finite(learner, "loss", batch) == "the output of network.1 (Logarithm)"


def test_loss_itself_is_named_if_all_outputs_are_finite(build):
    learner = build("model=mlp", "data=diabetes").learner
    batch = Batch(torch.ones(2, 10), torch.tensor([[1.0], [1e30]]), torch.ones(2, 1), torch.arange(2))
    assert (
        locate_non_finite(learner, "loss", batch)
        == "the loss itself, since the network's outputs are finite (example 1)"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_run_on_a_gpu_stops_at_most_one_step_late(build):
    experiment = build("trainer=gpu", "model=mlp", "data=diabetes", "trainer.max_epochs=3", "logger=none")

    def poison(*_):
        if experiment.trainer.global_step == 5:
            experiment.learner.network[3].weight.grad[0, 0] = torch.nan

    experiment.learner.on_after_backward = poison
    with pytest.raises(NonFiniteError, match=r"step 6 .* a gradient became"):
        experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    assert experiment.trainer.global_step <= 7


@pytest.mark.parametrize("split", ["val", "test"])
def test_bad_inputs_in_validation_and_test_stop_the_run(build, split):
    experiment = build("model=mlp", "data=diabetes", "trainer.max_epochs=1", "data.eval_batch_size=10")
    experiment.data.setup()
    experiment.data.splits[split].inputs[12, 0] = torch.nan
    number = experiment.data.splits[split].index[12].item()
    message = rf"epoch 1, batch 2\): a {split}/loss became .* loss MSE, first in the inputs .* \(example {number}\)"
    with pytest.raises(NonFiniteError, match=message):
        lab.run(experiment)


def test_deferred_evaluation_guard_names_the_batch(build):
    experiment = build("model=mlp", "data=diabetes", "trainer.max_epochs=1")
    average, watch = experiment.learner.averages["val"]["loss"], EvaluationGuard("val")
    for number, total in enumerate((1.0, torch.inf, torch.nan)):
        average.total = torch.tensor(total)
        watch.after_batch(experiment.trainer, experiment.learner, None, number, deferred=True)
    experiment.learner.values["val/loss"] = torch.nan
    with pytest.raises(NonFiniteError, match=r"batch 2\): a val/loss became .* the forward pass"):
        watch.after_split(experiment.trainer, experiment.learner)


def test_message_for_a_nan_loss_of_finite_batches_asks_whether_example_weights_sum_to_0(build):
    experiment = build("model=mlp", "data=diabetes", "trainer.max_epochs=1")
    experiment.learner.values["test/loss"] = torch.nan
    with pytest.raises(
        NonFiniteError, match="though the sum of each batch is finite: is the sum of the example weights 0"
    ):
        EvaluationGuard("test").after_split(experiment.trainer, experiment.learner)


def test_layer_of_a_compiled_network_is_named(build):
    learner = build("model=mlp", "data=diabetes").learner
    learner.network = nn.Sequential(nn.Linear(10, 4), Logarithm(), nn.Linear(4, 1))
    nn.init.constant_(learner.network[0].weight, -1.0)
    learner.network.compile(backend="eager")
    batch = Batch(torch.ones(2, 10), torch.ones(2, 1), torch.ones(2, 1), torch.arange(2))
    assert locate_non_finite(learner, "loss", batch) == "the output of network.1 (Logarithm)"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            {"loss": [False], "gradient": [False] * 6},
            "a loss became NaN or infinite with loss MSE, first in the forward pass",
        ),
        (
            {"loss": [True], "gradient": [False, True, False, True, True, True]},
            "a gradient .* the gradient of network.3;",
        ),
        ({"weight": [True, True, False, True, False, True]}, "a weight .* the weight of network.3;"),
    ],
)
def test_deferred_checks_report_the_step_and_the_layer(build, flags, message):
    experiment = build("model=mlp", "data=diabetes")
    guard = FiniteGuard()
    guard._pending = SimpleNamespace(position=(7, 1, 2), read=lambda: flags)
    for parameter in experiment.learner.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with pytest.raises(NonFiniteError, match=rf"step 7 \(epoch 1, batch 2\): .*{message}"):
        guard.on_validation_start(experiment.trainer, experiment.learner)


def test_weights_whose_squares_overflow_count_as_finite():
    huge = [torch.full((3,), 3e38), torch.full((2,), -3e38)]
    assert FiniteGuard()._finite("weight", huge)
    assert not FiniteGuard()._finite("weight", [*huge, torch.tensor([1.0, -torch.inf])])
    assert not FiniteGuard()._finite("weight", [torch.tensor([1.0, torch.nan]), *huge])

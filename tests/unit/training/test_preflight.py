"""Checks before the first step refuse a run or log a warning, and do not change the results of a run."""

import logging
from contextlib import nullcontext
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from quick import sample
from torch import nn

from losslab.doctor import report
from losslab.errors import LabError
from losslab.training import experiment as lab
from losslab.training import preflight
from losslab.training.config import compose


def history_and_weights(experiment: lab.Experiment) -> tuple[bytes, list[bytes]]:
    """Return the bytes of history.csv and of the weights."""
    state = experiment.learner.network.state_dict()
    return experiment.folder.history.read_bytes(), [value.numpy().tobytes() for value in state.values()]


def add_random_layers(network: nn.Module) -> nn.Module:
    """Add layers that draw random numbers or have running statistics."""
    return nn.Sequential(network, nn.Dropout(0.3), nn.Linear(10, 10), nn.BatchNorm1d(10), nn.Dropout(0.3))


EXTRAS = ([], ["data.crop=2"], ["trainer.accumulate_grad_batches=2"], ["compile=true"])
RUNS = [(model, extra) for model in ("cifar_cnn", "mlp") for extra in EXTRAS]


@pytest.mark.parametrize(("model", "extra"), sample(RUNS, ("cifar_cnn", ["data.crop=2"]), ("mlp", [])))
def test_examination_does_not_change_the_run(build, monkeypatch, model, extra):
    compile_in_place = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_in_place(self, backend="eager"))
    overrides = (f"model={model}", "data=digits", "loss=cross_entropy", "data.batch_size=100", "trainer.max_epochs=2",
                 "trainer.limit_train_batches=3", "trainer.limit_val_batches=1", "logger=none", *extra)  # fmt: skip
    results = []
    for examine in ("true", "false"):
        experiment = build(*overrides, f"examine={examine}")
        torch.manual_seed(0)
        experiment.learner.network = add_random_layers(experiment.learner.network)
        torch.manual_seed(1)
        lab.run(experiment)
        results.append(history_and_weights(experiment))
    assert results[0] == results[1]


def test_run_with_an_error_is_refused_in_one_line_and_leaves_no_file(build):
    experiment = build("model=mlp", "data=digits", "loss=cross_entropy")
    experiment.learner.network.append(nn.Softmax(1))
    with pytest.raises(LabError, match=r"^softmax-in-network: ") as error:
        lab.run(experiment)
    assert len(str(error.value).splitlines()) == 1
    assert "examine=false" in str(error.value)
    assert not list(experiment.folder.path.iterdir())


def test_refused_run_can_be_trained_with_examine_false(build):
    experiment = build(
        "model=mlp", "data=digits", "loss=cross_entropy", "examine=false", "debug=one_batch", "logger=none"
    )
    experiment.learner.network.append(nn.Softmax(1))
    assert "train/loss" in lab.run(experiment)


def test_warning_is_logged(train, caplog):
    train("optimizer.lr=0.2", "trainer.max_epochs=2", "logger=none")
    assert "learning-rate-too-high" in caplog.text
    assert "2/λmax = 0.1803" in caplog.text


def test_run_without_training_is_not_examined(train, caplog):
    train("optimizer.lr=0.2", "train=false", "logger=none")
    assert "learning-rate-too-high" not in caplog.text


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_run_of_any_precision_can_be_examined(train, caplog, precision):
    train(f"trainer.precision={precision}", "trainer.max_epochs=2", "logger=none")
    assert "raises" not in caplog.text


# The tests of losslab.doctor examine each loss; these examine each model with usual losses for its data.
LOSSES = {
    "line": ("mse", "huber"), "linear_synthetic": ("mse", "gaussian_nll"), "diabetes": ("mse", "l1"),
    "counts": ("mse", "poisson_nll"), "breast_cancer": ("bce", "hinge"), "digits": ("cross_entropy", "bce", "mse"),
    "multilabel_synthetic": ("bce", "sigmoid_focal"),
}  # fmt: skip
PRESETS = [(model, data) for data in LOSSES for model in ("linear", "mlp")] + [("cifar_cnn", "digits")]


@pytest.mark.parametrize(
    ("model", "data"), sample(PRESETS, ("linear", "line"), ("mlp", "breast_cancer"), ("cifar_cnn", "digits"))
)
def test_presets_of_models_data_and_optimizers_have_no_findings(build, model, data):
    for loss, optimizer in product(LOSSES[data], ("sgd", "adam")):
        rate = ["optimizer.lr=1e-3"] if (model, data, optimizer) == ("linear", "digits", "sgd") else []
        experiment = build(
            f"model={model}", f"data={data}", f"loss={loss}", f"optimizer={optimizer}", "callbacks=none",
            "logger=none", *rate,
        )  # fmt: skip
        experiment.data.setup()
        found = preflight.examine_batch(experiment.learner, preflight.first_batch(experiment.data))
        assert not found, f"{loss} {optimizer}\n{report(found)}"


def test_examined_batch_is_the_first_training_batch(build):
    data = build("model=mlp", "data=digits", "loss=cross_entropy", "data.crop=2", "logger=none").data
    data.setup()
    loader = data.train_dataloader()
    peeked = loader.peek()
    for a, b in zip(peeked, next(iter(loader)), strict=True):
        assert torch.equal(a, b)
    assert loader.state_dict() == {"epoch": 0, "next": 1}


def test_batch_norm_on_several_ranks_logs_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        preflight.check_batch_norm(nn.BatchNorm1d(4))
    assert "sync_batchnorm" in caplog.text


class _Normalised(nn.Sequential):
    """Ends in maps of 1x1, for which BatchNorm needs two examples; with `size` above 1 it does not."""

    def __init__(self, input_shape, outputs, size=1):
        super().__init__(
            nn.Conv2d(input_shape[0], 4, 9 - size), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * size**2, outputs)
        )


class _Unused(nn.Sequential):
    def __init__(self, outputs):
        super().__init__(nn.Flatten(), nn.Linear(192, outputs))
        self[1].unused = nn.Linear(1, 1)


DIGITS = ("model=mlp", "data=digits", "data.size=8", "loss=cross_entropy", "logger=none", "callbacks=none")


def with_network(network, *overrides, size=1):
    """Build an experiment with a network of this module, and read its data."""
    config = compose(["trainer=cpu", "trainer.enable_progress_bar=false", *DIGITS, *overrides], "unused")
    config["model"] = {"_target_": f"{__name__}.{network}"} | ({"size": size} if size > 1 else {})
    experiment = lab.build(config)
    experiment.data.setup()
    return experiment


@pytest.mark.parametrize("extra", [(), ("trainer.accumulate_grad_batches=2",)])
def test_last_batch_of_one_example_is_refused(extra):
    experiment = with_network("_Normalised", *extra)
    examples = experiment.data.splits["train"].size
    size = next(size for size in range(64, 2, -1) if examples % size == 1)
    experiment.data.batch_size = size
    with pytest.raises(LabError, match=r"has 1 example, too few for .*: set data\.batch_size=(\d+) or (\d+)$") as error:
        preflight.check_last_batch(experiment.learner, experiment.data, experiment.trainer)
    for word in str(error.value).rpartition("=")[2].split(" or "):
        experiment.data.batch_size = int(word)
        preflight.check_last_batch(experiment.learner, experiment.data, experiment.trainer)


@pytest.mark.parametrize(
    ("ranks", "batch", "advice"),
    [(2, 2, "batch_size=7 or 9"), (2, 3, "batch_size=7 or 9"), (999, None, "use fewer processes")],
)
def test_batch_norm_needs_two_examples_on_every_rank_unless_its_maps_are_larger(ranks, batch, advice):
    several = SimpleNamespace(world_size=ranks, limit_train_batches=3)
    for size in (1, 2):
        experiment = with_network("_Normalised", size=size)
        experiment.data.batch_size = batch
        refuses = (
            pytest.raises(LabError, match=rf"\(1 for a process\), too few .*{advice}") if size == 1 else nullcontext()
        )
        with refuses:
            preflight.check_last_batch(experiment.learner, experiment.data, several)
        preflight.check_last_batch(experiment.learner, experiment.data, several, sync=True)


def test_parameters_that_are_not_used_are_refused_on_several_ranks(monkeypatch):
    experiment = with_network("_Unused")
    monkeypatch.setattr(experiment.trainer.strategy, "_ddp_kwargs", {"find_unused_parameters": False}, raising=False)
    with pytest.raises(
        LabError, match=r"2 of 4 parameters.* or set \+trainer\.strategy=ddp_find_unused_parameters_true"
    ):
        preflight.examine_first_batch(experiment.learner, experiment.data, experiment.trainer)
    monkeypatch.setattr(experiment.trainer.strategy, "_ddp_kwargs", {"find_unused_parameters": True}, raising=False)
    preflight.examine_first_batch(experiment.learner, experiment.data, experiment.trainer)


def test_last_batch_is_accepted_if_it_is_not_used_or_large_enough():
    for size, limit in ((1, "18"), (2, "1.0")):
        experiment = with_network("_Normalised", f"trainer.limit_train_batches={limit}", size=size)
        examples = experiment.data.splits["train"].size
        experiment.data.batch_size = next(size for size in range(64, 2, -1) if examples % size == 1)
        before = [buffer.clone() for buffer in experiment.learner.network.buffers()]
        preflight.check_last_batch(experiment.learner, experiment.data, experiment.trainer)
        for now, then in zip(experiment.learner.network.buffers(), before, strict=True):
            assert torch.equal(now, then)

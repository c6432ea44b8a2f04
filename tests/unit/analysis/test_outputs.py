"""Outputs of a network for every example of a split."""

import hydra
import pytest
import torch

from losslab import CONF
from losslab.analysis.outputs import collect_outputs
from losslab.training import experiment as lab
from losslab.training.config import compose, resolve

ROWS = 101


@pytest.fixture
def experiment(tmp_path):
    overrides = ["data=linear_synthetic", f"data.n={ROWS}", "trainer.precision=64-true", "trainer=cpu", "loss=huber"]
    return lab.build_on_any_machine(compose([*overrides, "data.eval_batch_size=16"], run_dir=str(tmp_path)))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_example_is_evaluated_once_and_in_order(experiment, split):
    seen = collect_outputs(experiment, split)
    examples = experiment.data.splits[split]
    assert seen.index.tolist() == list(range(ROWS))
    assert torch.equal(seen.truth, examples.truth.double())
    assert torch.equal(seen.outputs, experiment.learner(examples.inputs.double()))


def test_the_mean_loss_is_over_examples_and_not_over_batches(experiment):
    seen = collect_outputs(experiment, "test")
    examples = experiment.data.splits["test"]
    whole = experiment.learner.loss(experiment.learner(examples.inputs.double()), examples.target.double())
    assert seen.mean_loss == pytest.approx(whole.item(), rel=1e-12)
    assert experiment.learner.values["test/loss"] == pytest.approx(whole.item(), abs=1e-9)


def test_the_weighted_mean_of_collected_losses_equals_the_logged_loss(tmp_path):
    weights = "loss.weight=[0,1,2,3,4,5,6,7,8,9]"
    overrides = ["model=mlp", "data=digits", "loss=cross_entropy", weights, "data.eval_batch_size=100", "trainer=cpu"]
    experiment = lab.build_on_any_machine(compose(overrides, run_dir=str(tmp_path)))
    seen = collect_outputs(experiment, "val")
    assert seen.mean_loss == pytest.approx(experiment.learner.values["val/loss"], rel=1e-6)
    assert seen.weight.unique().numel() == 10


def test_keys_that_depend_on_the_seed_are_listed_in_per_run():
    config = compose(["data=linear_synthetic", "data.data_seed=${seed}"], run_dir="somewhere")
    assert {"seed", "name", "run_dir", "data.seed", "data.data_seed"} <= set(config["per_run"])
    assert not {"data.n", "optimizer.lr"} & set(config["per_run"])
    assert "data.data_seed" not in compose(["data=linear_synthetic"], run_dir="somewhere")["per_run"]


def test_resolving_leaves_the_configuration_unchanged():
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", ["seed=3", "run_dir=here"])
    names = {"model": "linear", "data": "line", "loss": "mse"}
    choices = names | {"optimizer": "sgd", "scheduler": "constant", "trainer": "default"}
    config = resolve(cfg, choices, "here")
    assert (config["seed"], cfg.seed, cfg.run_dir) == (3, 3, "here")

"""Losses from elsewhere in whole runs: built, trained, written, read again."""

import subprocess
from pathlib import Path

import pytest
import torch
from processes import TRAIN, VERB, python

from losslab.errors import LabError
from losslab.losses.adapter.adapted import Adapted
from losslab.runs import RunFolder
from losslab.training import experiment, weights
from losslab.training.config import compose

DIGITS = ("model=mlp", "data=digits", "data.size=8", "loss=custom")
ARC_FACE = (
    "loss._target_=pytorch_metric_learning.losses.ArcFaceLoss",
    "+loss.num_classes=10",
    "+loss.embedding_size=8",
)


def test_torch_cross_entropy_trains_like_losslab_cross_entropy(train):
    few = ("model=mlp", "data=digits", "data.size=8", "trainer.max_epochs=2", "callbacks=none")
    _, ours_results = train(*few, "loss=cross_entropy")
    theirs, their_results = train(*few, "loss=custom", "loss._target_=torch.nn.CrossEntropyLoss")
    assert isinstance(theirs.learner.loss, Adapted)
    assert {name: value for name, value in their_results.items() if "loss" not in name} == pytest.approx(
        {name: value for name, value in ours_results.items() if "loss" not in name}, rel=1e-4
    )
    assert their_results["test/loss"] == pytest.approx(ours_results["test/loss"], rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*weights_only.*")
def test_parameters_of_a_loss_are_trained_saved_and_evaluated(train):
    trained, results = train(
        *DIGITS,
        *ARC_FACE,
        "+loss.scale=8",
        "trainer.max_epochs=3",
        "data.batch_size=64",
        "trust=[pytorch_metric_learning]",
    )
    assert results["test/accuracy"] > 0.8
    learnt = trained.learner.loss.criterion.W
    with pytest.raises(LabError, match=r"_target_ is pytorch_metric.* --trust pytorch_metric_learning"):
        RunFolder(trained.folder.path).read_config()
    again = experiment.rebuild(trained.folder, trained.folder.read_config())
    assert not torch.equal(again.learner.loss.criterion.W, learnt)
    weights.load(again.learner, trained.folder.best)
    measured = experiment.evaluate(again, "test")
    assert measured["test/accuracy"] == results["test/accuracy"]
    assert measured["test/loss"] == pytest.approx(results["test/loss"], rel=1e-6)
    with pytest.raises(LabError, match=r"lacks the learned parameters of the loss \(criterion.W\)"):
        weights.load(again.learner, trained.folder.weights)


def test_random_numbers_of_a_loss_depend_only_on_the_seed(build):
    one, same, other = (build(*DIGITS, *ARC_FACE, f"seed={seed}").learner.loss.criterion.W for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_weights_of_a_run_with_another_loss_initialise_only_the_network(train, build):
    trained, _ = train(*DIGITS, *ARC_FACE, "trainer.max_epochs=1", "data.batch_size=256")
    start = build(*DIGITS, *ARC_FACE[:2], "+loss.embedding_size=8", "seed=5")
    before = start.learner.loss.criterion.W.clone()
    weights.initialize(start.learner, trained.folder.weights)
    assert torch.equal(start.learner.loss.criterion.W, before)
    weights.initialize(start.learner, trained.folder.best)
    assert torch.equal(
        start.learner.loss.criterion.W, torch.load(trained.folder.best)["state_dict"]["loss.criterion.W"]
    )


def test_a_function_can_be_a_loss(build):
    built = build("loss=custom", "loss._target_=torch.nn.functional.huber_loss", "+loss.delta=2")
    outputs, target = torch.tensor([[5.0]]), torch.tensor([[0.0]])
    assert built.learner.loss(outputs, target) == 2 * (5 - 1)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("torch.nn.Mien", "loss._target_: torch.nn has no Mien: "),
        ("torch.nn.GaussianNLLLoss", "GaussianNLLLoss cannot be used on values targets"),
        ("torch.nn.CrossEntropyLoss", "CrossEntropyLoss cannot be used on values targets"),
        ("fractions.Fraction", "a loss must be a function of outputs and target"),
    ],
)
def test_a_target_that_is_no_loss_for_these_data_is_refused_in_one_line(build, target, message):
    with pytest.raises(LabError) as raised:
        build("loss=custom", f"loss._target_={target}")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_custom_loss_must_be_named():
    with pytest.raises(LabError, match=r"a value is missing: add loss\._target_="):
        compose(["loss=custom"], "unused")


MINE = """
import torch

class Mine(torch.nn.Module):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def forward(self, outputs, target):
        return self.x * (outputs - target).abs().mean()
"""


@pytest.mark.slow
def test_a_module_in_the_working_directory_is_imported_and_a_wrong_name_is_reported(tmp_path):
    (tmp_path / "my_losses.py").write_text(MINE)

    def losslab(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = (*TRAIN, "loss=custom", "+loss.x=2", "trainer.max_epochs=2", *arguments)
        return python(*words, cwd=tmp_path, COLUMNS="200", HYDRA_FULL_ERROR="0")

    def evaluated(run: Path, options: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        return python(*VERB, "evaluate", str(run), *options, cwd=tmp_path, COLUMNS="200")

    folder = tmp_path / "run"
    done = losslab("loss._target_=my_losses.Mine", f"run_dir={folder}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "loss        Mine, x 2" in done.stdout
    # Whoever opens the run again says that the loss is trusted.
    said = evaluated(folder, ()), evaluated(folder, ("--trust", "my_losses"))
    assert [one.returncode for one in said] == [1, 0]
    assert said[0].stderr.endswith("add --trust my_losses, or for train.py trust=[my_losses]\n")
    wrong = losslab("loss._target_=my_losses.Mien")
    assert wrong.returncode == 1
    assert "loss._target_: my_losses has no Mien: did you mean Mine?" in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1

"""A number of the loss that moves over the epochs."""

import pytest

from losslab.errors import LabError
from losslab.training import experiment as lab
from losslab.training import weights
from losslab.training.callbacks.loss_schedules import Anneal

COMMON = ("model=mlp", "data=digits", "logger=none", "callbacks=anneal", "trainer.max_epochs=3")


@pytest.mark.parametrize(
    ("shape", "epochs", "expected"),
    [
        ("linear", None, [2.0, 1.5, 1.0, 0.5, 0.0]),
        ("linear", 2, [2.0, 1.0, 0.0, 0.0, 0.0]),
        ("cosine", None, [2.0, 1.7071, 1.0, 0.2929, 0.0]),
        ("jump", 3, [2.0, 2.0, 2.0, 0.0, 0.0]),
    ],
)
def test_the_value_goes_from_start_to_end(shape, epochs, expected):
    anneal = Anneal("gamma", end=0.0, start=2.0, epochs=epochs, shape=shape)
    assert [anneal.value(epoch, 5) for epoch in range(5)] == pytest.approx(expected, abs=1e-4)


def test_the_loss_is_scored_at_the_value_of_its_epoch(train):
    experiment, results = train(*COMMON, "loss=focal", "callbacks.anneal.parameter=gamma", "callbacks.anneal.end=0")
    assert results["best_epoch"] in {1, 2, 3}
    assert experiment.learner.loss.gamma == [2.0, 1.0, 0.0][results["best_epoch"] - 1], "that of the best epoch"
    again = lab.rebuild(experiment.folder, experiment.folder.read_config())
    weights.load(again.learner, experiment.folder.best)
    assert lab.evaluate(again, "test")["test/loss"] == pytest.approx(results["test/loss"])
    fixed, _ = train("model=mlp", "data=digits", "logger=none", "trainer.max_epochs=3", "loss=focal")
    annealed_rows, fixed_rows = (run.folder.history.read_text().splitlines() for run in (experiment, fixed))
    assert annealed_rows[1] == fixed_rows[1], "the first epoch is at the configured value"
    assert annealed_rows[2] != fixed_rows[2]


def test_the_weight_of_a_term_can_be_moved(train):
    experiment, results = train(
        *COMMON, "loss=weighted_sum", "callbacks.anneal.parameter=terms.focal.weight", "callbacks.anneal.end=0"
    )
    terms = {name: value for name, value in experiment.learner.values.items() if name.startswith("train/loss")}
    assert terms["train/loss"] == pytest.approx(terms["train/loss/cross_entropy"])
    assert results["test/loss/focal"] > 0


@pytest.mark.parametrize(
    ("parameter", "end", "said"),
    [
        ("alpha", 0, "alpha is no hyperparameter of this loss: it has gamma"),
        ("gamma", -1, r"gamma must be a number in \[0, inf\), got -1"),
    ],
)
def test_what_cannot_be_annealed_is_refused_before_training(train, parameter, end, said):
    with pytest.raises(LabError, match=said):
        train(*COMMON, "loss=focal", f"callbacks.anneal.parameter={parameter}", f"callbacks.anneal.end={end}")


def test_a_missing_value_is_named(build):
    with pytest.raises(LabError, match=r"add callbacks\.anneal\.end=\.\.\. callbacks\.anneal\.parameter=\.\.\."):
        build(*COMMON, "loss=focal")

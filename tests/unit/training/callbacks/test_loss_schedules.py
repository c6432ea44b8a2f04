import pytest
import torch
from lightning import Callback

from losslab.errors import LabError
from losslab.losses import ClassLoss
from losslab.losses.imbalance import effective_number
from losslab.training import experiment as lab
from losslab.training import weights
from losslab.training.callbacks.loss_schedules import Anneal, DeferredReweighting, first_epoch

GAMMA = ("loss=focal", "callbacks.anneal.parameter=gamma", "callbacks.anneal.end=0")
ANNEAL = ("model=mlp", "data=digits", "logger=none", "callbacks=anneal", "trainer.max_epochs=3")


@pytest.mark.parametrize(
    ("shape", "epochs", "expected"),
    [
        ("linear", None, [2.0, 1.5, 1.0, 0.5, 0.0]),
        ("linear", 2, [2.0, 1.0, 0.0, 0.0, 0.0]),
        ("cosine", None, [2.0, 1.7071, 1.0, 0.2929, 0.0]),
        ("jump", 3, [2.0, 2.0, 2.0, 0.0, 0.0]),
    ],
)
def test_anneal_moves_from_start_to_end(shape, epochs, expected):
    anneal = Anneal("gamma", end=0.0, start=2.0, epochs=epochs, shape=shape)
    assert [anneal.value(epoch, 5) for epoch in range(5)] == pytest.approx(expected, abs=1e-4)


def test_annealed_loss_is_evaluated_with_the_value_of_its_epoch(train):
    experiment, results = train(*ANNEAL, "loss=focal", "callbacks.anneal.parameter=gamma", "callbacks.anneal.end=0")
    assert results["best_epoch"] in {1, 2, 3}
    assert experiment.learner.loss.gamma == [2.0, 1.0, 0.0][results["best_epoch"] - 1], "not that of the best epoch"
    again = lab.rebuild(experiment.folder, experiment.folder.read_config())
    weights.load(again.learner, experiment.folder.best)
    assert lab.evaluate(again, "test")["test/loss"] == pytest.approx(results["test/loss"])
    fixed, _ = train("model=mlp", "data=digits", "logger=none", "trainer.max_epochs=3", "loss=focal")
    annealed_rows, fixed_rows = (run.folder.history.read_text().splitlines() for run in (experiment, fixed))
    assert annealed_rows[1] == fixed_rows[1], "the first epoch does not have the configured value"
    assert annealed_rows[2] != fixed_rows[2]


def test_two_anneals_move_the_weight_and_the_gamma_of_a_term(train):
    second = "{_target_: losslab.training.callbacks.loss_schedules.Anneal, parameter: terms.focal.loss.gamma, end: 1}"
    experiment, results = train(
        *ANNEAL, "loss=weighted_sum", "callbacks.anneal.parameter=terms.focal.weight", "callbacks.anneal.end=0",
        f"+callbacks.second={second}",
    )  # fmt: skip
    saved = torch.load(experiment.folder.last)["loss_numbers"]
    assert saved == {"terms.focal.weight": 0, "terms.focal.loss.gamma": 1}
    terms = {name: value for name, value in experiment.learner.values.items() if name.startswith("train/loss")}
    assert terms["train/loss"] == pytest.approx(terms["train/loss/cross_entropy"])
    assert results["test/loss/focal"] > 0


@pytest.mark.parametrize(
    ("parameter", "end", "message"),
    [
        ("alpha", 0, "alpha is not a hyperparameter of this loss: it has gamma"),
        ("gamma", -1, r"gamma must be a number in \[0, inf\), got -1"),
    ],
)
def test_invalid_annealing_fails_before_training(train, parameter, end, message):
    with pytest.raises(LabError, match=message):
        train(*ANNEAL, "loss=focal", f"callbacks.anneal.parameter={parameter}", f"callbacks.anneal.end={end}")


def test_missing_anneal_values_are_named(build):
    with pytest.raises(LabError, match=r"add callbacks\.anneal\.end=\.\.\. callbacks\.anneal\.parameter=\.\.\."):
        build(*ANNEAL, "loss=focal")


REWEIGHT = ("model=mlp", "data=digits", "data.batch_size=500", "logger=none", "trainer.max_epochs=4")


class RecordWeights(Callback):
    """Records the class weights of each loss at each training step."""

    def __init__(self):
        self.records = []

    def on_train_batch_start(self, trainer, pl_module, *_):
        parts = [part for part in pl_module.loss.modules() if isinstance(part, ClassLoss)]
        self.records.append((trainer.current_epoch, [part.weight for part in parts]))


def reweight(build, *overrides):
    experiment, record = build(*REWEIGHT, "callbacks=deferred_reweighting", *overrides), RecordWeights()
    experiment.trainer.callbacks.append(record)
    return experiment, lab.run(experiment), record.records


@pytest.mark.parametrize("start", ["0.5", "2"])
@pytest.mark.parametrize("loss", ["cross_entropy", "ldam"])
def test_classes_are_weighted_from_the_start_epoch_on(build, loss, start):
    experiment, _, records = reweight(build, f"loss={loss}", f"callbacks.deferred_reweighting.start={start}")
    expected = effective_number(experiment.data.class_counts, 0.9999)
    assert {epoch for epoch, _ in records} == {0, 1, 2, 3}
    for epoch, [weight] in records:
        assert weight is None if epoch < 2 else torch.equal(weight, expected)


def test_first_weighted_epoch_is_computed_exactly_from_a_fraction():
    assert first_epoch(0.8, 200) == first_epoch(160, 200) == 160
    assert first_epoch(0.07, 100) == 7  # the product is 7.000000000000001
    assert first_epoch(0.29, 100) == 29  # the product is 28.999999999999996


def test_terms_of_a_weighted_sum_get_class_weights_too(build):
    _, _, records = reweight(build, "loss=weighted_sum")
    assert len(records[-1][1]) == 2
    assert all(weight is None for weight in records[0][1])
    assert all(weight is not None for weight in records[-1][1])


def test_run_resumed_after_the_start_epoch_is_weighted(build):
    experiment, callback = build(*REWEIGHT, "loss=cross_entropy"), DeferredReweighting(2)
    experiment.data.setup()
    trainer, learner = experiment.trainer, experiment.learner
    trainer._data_connector.attach_datamodule(learner, experiment.data)
    trainer.fit_loop.epoch_progress.current.processed = 3
    trainer.fit_loop.epoch_progress.current.completed = 3
    assert trainer.current_epoch == 3
    callback.on_fit_start(trainer, learner)
    trainer.strategy._lightning_module = learner
    trainer.fit_loop.setup_data()
    callback.on_train_start(trainer, learner)
    assert torch.equal(learner.loss.weight, effective_number(experiment.data.class_counts))


def test_configured_weights_apply_before_the_start_epoch_and_in_the_test(build):
    configured = [1.0, 2.0] * 5
    experiment, results, records = reweight(build, "loss=cross_entropy", f"loss.weight={configured}")
    assert records[0][1][0].tolist() == configured
    assert records[-1][1][0].tolist() != configured
    assert experiment.learner.loss.weight.tolist() == configured
    again = lab.rebuild(experiment.folder, experiment.folder.read_config())
    again.learner.load_state_dict(torch.load(experiment.folder.best, weights_only=True)["state_dict"])
    assert lab.evaluate(again, "test")["test/loss"] == pytest.approx(results["test/loss"])


@pytest.mark.parametrize("overrides", [("loss=bce",), ("loss=mse",), ("loss=mse", "data=diabetes")])
def test_loss_without_class_weights_is_an_error(build, overrides):
    with pytest.raises(LabError, match="accepts none: choose a loss such as ldam"):
        reweight(build, *overrides)


@pytest.mark.parametrize(
    "wrong", [{"start": -1}, {"start": 1.5}, {"beta": 1.0}, {"start": float("nan")}, {"start": float("inf")}]
)
def test_invalid_arguments_are_an_error(wrong):
    with pytest.raises(LabError, match=r"needs a start .an epoch ≥ 0, or a fraction"):
        DeferredReweighting(**wrong)


UNLIMITED = ("trainer.max_epochs=-1", "+trainer.max_time=00:00:01:00")


def test_number_of_epochs_that_is_not_known_is_an_error(build):
    with pytest.raises(LabError, match=r"set trainer\.max_epochs, or an epoch"):
        reweight(build, "loss=cross_entropy", *UNLIMITED)
    with pytest.raises(LabError, match=r"set callbacks\.anneal\.epochs or trainer\.max_epochs"):
        lab.run(build(*ANNEAL, *GAMMA, *UNLIMITED))


@pytest.mark.parametrize("epochs", [-1, 100])
def test_epochs_are_those_that_max_steps_leaves(build, epochs):
    limits = (f"trainer.max_epochs={epochs}", "trainer.max_steps=6", "data.batch_size=500")  # 3 batches
    experiment = build(*ANNEAL, *GAMMA, *limits)
    lab.run(experiment)
    assert experiment.learner.loss.gamma == 0
    _, _, records = reweight(build, "loss=cross_entropy", "callbacks.deferred_reweighting.start=0.5", *limits)
    assert [weight is None for epoch, [weight] in records] == [True] * 3 + [False] * 3


def test_change_that_this_run_does_not_reach_is_reported(build, caplog):
    lab.run(build(*ANNEAL, *GAMMA, "callbacks.anneal.epochs=8"))
    assert "gamma reaches 0 after epochs=8, but this run has 3 epochs and ends with 1.5" in caplog.text
    reweight(build, "loss=cross_entropy", "callbacks.deferred_reweighting.start=160")
    assert "the first weighted epoch is 160, counted from 0, but this run has 4" in caplog.text

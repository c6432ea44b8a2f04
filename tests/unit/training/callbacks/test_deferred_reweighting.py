import pytest
import torch
from lightning import Callback

from losslab.errors import LabError
from losslab.losses import ClassLoss
from losslab.losses.class_weights import effective_number
from losslab.training import experiment as lab
from losslab.training.callbacks.loss_schedules import DeferredReweighting, first_epoch

RUN = ("model=mlp", "data=digits", "data.batch_size=500", "logger=none", "trainer.max_epochs=4")


class Weights(Callback):
    """The weights of each loss of classes at each training step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, *_):
        parts = [part for part in pl_module.loss.modules() if isinstance(part, ClassLoss)]
        self.seen.append((trainer.current_epoch, [part.weight for part in parts]))


def run(build, *overrides):
    experiment, weights = build(*RUN, "callbacks=deferred_reweighting", *overrides), Weights()
    experiment.trainer.callbacks.append(weights)
    return experiment, lab.run(experiment), weights.seen


@pytest.mark.parametrize("start", ["0.5", "2"])
@pytest.mark.parametrize("loss", ["cross_entropy", "ldam"])
def test_classes_weigh_by_their_effective_number_from_an_epoch_on(build, loss, start):
    experiment, _, seen = run(build, f"loss={loss}", f"callbacks.deferred_reweighting.start={start}")
    expected = effective_number(experiment.data.class_counts, 0.9999)
    assert {epoch for epoch, _ in seen} == {0, 1, 2, 3}
    for epoch, [weight] in seen:
        assert weight is None if epoch < 2 else torch.equal(weight, expected)


def test_the_paper_begins_at_epoch_160_of_200():
    assert first_epoch(0.8, 200) == first_epoch(160, 200) == 160
    assert first_epoch(0.07, 100) == 7  # whose product is 7.000000000000001
    assert first_epoch(0.29, 100) == 29  # and 28.999999999999996


def test_losses_within_a_loss_are_weighted_too(build):
    _, _, seen = run(build, "loss=weighted_sum")
    assert len(seen[-1][1]) == 2
    assert all(weight is None for weight in seen[0][1])
    assert all(weight is not None for weight in seen[-1][1])


def test_a_run_that_begins_late_is_weighted_as_one_that_was_there(build):
    experiment, callback = build(*RUN, "loss=cross_entropy"), DeferredReweighting(2)
    experiment.data.setup()
    trainer, learner = experiment.trainer, experiment.learner
    trainer._data_connector.attach_datamodule(learner, experiment.data)
    trainer.fit_loop.epoch_progress.current.processed = 3
    trainer.fit_loop.epoch_progress.current.completed = 3
    assert trainer.current_epoch == 3
    callback.on_fit_start(trainer, learner)
    callback.on_train_epoch_start(trainer, learner)
    assert torch.equal(learner.loss.weight, effective_number(experiment.data.class_counts))


def test_configured_weights_are_used_before_and_after(build):
    configured = [1.0, 2.0] * 5
    experiment, results, seen = run(build, "loss=cross_entropy", f"loss.weight={configured}")
    assert seen[0][1][0].tolist() == configured
    assert seen[-1][1][0].tolist() != configured
    assert experiment.learner.loss.weight.tolist() == configured
    again = lab.rebuild(experiment.folder, experiment.folder.read_config())
    again.learner.load_state_dict(torch.load(experiment.folder.best, weights_only=True)["state_dict"])
    assert lab.evaluate(again, "test")["test/loss"] == pytest.approx(results["test/loss"])


@pytest.mark.parametrize("overrides", [("loss=bce",), ("loss=mse",), ("loss=mse", "data=diabetes")])
def test_a_loss_that_takes_no_class_weights_is_refused(build, overrides):
    with pytest.raises(LabError, match="takes no class weights: choose a loss such as ldam"):
        run(build, *overrides)


@pytest.mark.parametrize(
    "wrong", [{"start": -1}, {"start": 1.5}, {"beta": 1.0}, {"start": float("nan")}, {"start": float("inf")}]
)
def test_numbers_that_cannot_be_are_refused(wrong):
    with pytest.raises(LabError, match=r"a start of 0 or more"):
        DeferredReweighting(**wrong)


def test_a_fraction_of_a_run_without_an_end_is_refused():
    with pytest.raises(LabError, match=r"set trainer\.max_epochs, or an epoch"):
        first_epoch(0.8, -1)

"""The callback `dynamics`: what it records of a run, and that the run does not change."""

import csv

import numpy as np
import pytest
import torch
from quick import sample
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from losslab.analysis.dynamics.figures import draw_all
from losslab.analysis.dynamics.record import Record
from losslab.errors import LabError
from losslab.training import experiment as lab

DIGITS = ("model=mlp", "data=digits", "data.size=8", "logger=none", "examine=false", "data.batch_size=200")
RECORDED = ("callbacks=dynamics", "callbacks.dynamics.examples=200", "callbacks.dynamics.draw=false")


def recorded(experiment):
    return Record.load(experiment.folder.dynamics)


def noisy_network():
    """A network with BatchNorm and dropout."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 10)
    )


@pytest.mark.parametrize(
    "case",
    [
        ("loss=cross_entropy", "data.crop=1"),
        (
            "loss=gjs",
            "loss.view.pixels=1",
            "mix=mixup",
            "callbacks.dynamics.every_seconds=0",
        ),  # a random view of the inputs
    ],
    ids=lambda case: case[0],
)
def test_history_and_weights_do_not_change_with_the_callback(build, case):
    histories, weights = [], []
    for callbacks in (RECORDED, ()):
        overrides = [word for word in case if callbacks or "callbacks." not in word]
        experiment = build(*DIGITS, *callbacks, *overrides, "trainer.max_epochs=3", "test=false")
        experiment.learner.network = noisy_network()
        lab.run(experiment)
        histories.append(experiment.folder.history.read_bytes())
        weights.append(experiment.learner.network.state_dict())
    assert histories[0] == histories[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize(
    ("overrides", "epochs"),
    [
        (["trainer.max_epochs=3", "callbacks.dynamics.every=2"], [0, 2, 3]),
        (["trainer.max_epochs=41"], [0, *range(3, 40, 3), 41]),
        (["trainer.max_epochs=-1", "trainer.max_steps=3", "data.batch_size=2"], [0, 1, 2]),
    ],
    ids=["every two", "about twenty", "stopped by steps"],
)
def test_snapshots_are_taken_before_the_first_step_every_few_epochs_and_at_the_end(train, overrides, epochs):
    experiment, _ = train("logger=none", *RECORDED, *overrides)
    record = recorded(experiment)
    assert record.epoch.tolist() == epochs
    assert record.step[-1] == experiment.trainer.global_step
    assert record.step[0] == 0


def test_snapshots_are_thinned_when_the_number_of_epochs_is_unknown(build):
    experiment = build("logger=none", *RECORDED, "trainer.max_epochs=-1", "+trainer.max_time=00:01:00:00")
    experiment.learner.on_train_epoch_start = lambda: stop(experiment.trainer)

    def stop(trainer):
        trainer.should_stop = trainer.current_epoch == 50

    experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    record = recorded(experiment)
    assert record.epoch[0] == 0
    assert record.epoch[-1] == 51
    assert len(record.epoch) <= 41
    assert set(np.diff(record.epoch[:-1])) == {2}


def test_recorded_outputs_and_gradients_are_those_of_the_network(train):
    experiment, _ = train(*DIGITS, *RECORDED, "loss=cross_entropy", "trainer.max_epochs=1", "test=false")
    record, data = recorded(experiment), experiment.data
    assert len(record.index) == 200
    split = data.splits["train"]
    rows = torch.isin(split.index, torch.from_numpy(record.index))
    with torch.no_grad():
        outputs = experiment.learner.network.eval()(data.transform(split.inputs[rows]))
    assert record.outputs[-1] == pytest.approx(outputs.numpy(), abs=1e-5)
    assert record.target.tolist() == split.target[rows].tolist()
    p = outputs.softmax(1) - nn.functional.one_hot(split.target[rows], 10)
    assert record.gradient[-1] == pytest.approx(p.norm(dim=1).numpy(), abs=1e-5)
    assert not record.corrupted.any()


CASES = {
    "soft targets": (*DIGITS, "mix=mixup", "loss=cross_entropy", "trainer.precision=64-true"),
    "half precision": (*DIGITS, "loss=cross_entropy", "trainer.precision=bf16-mixed"),
    "one-vs-all": (*DIGITS, "loss=hinge"),
    "a binary label": ("model=mlp", "data=breast_cancer", "loss=bce", "logger=none"),
    "outputs that are probabilities": ("model=mlp", "data=breast_cancer", "loss=mse", "logger=none"),
    "two outputs per value": ("model=mlp", "data=diabetes", "loss=gaussian_nll", "logger=none"),
    "counts": ("model=mlp", "data=counts", "loss=poisson_nll", "logger=none"),
    "averaged weights": (*DIGITS, "loss=cross_entropy", "callbacks=[ema,dynamics]"),
}


@pytest.mark.parametrize("case", sample(CASES, "soft targets", "a binary label", "two outputs per value"))
def test_every_task_and_target_kind_is_recorded_and_drawn(train, case):
    experiment, _ = train(*RECORDED, *CASES[case], "trainer.max_epochs=2", "test=false", "trainer.limit_val_batches=0")
    record = recorded(experiment)
    for values in (record.outputs, record.loss, record.margin, record.truth_margin, record.gradient, record.flow):
        assert np.isfinite(values).all()
    assert (record.gradient >= 0).all()
    assert (record.gradient[0] > 0).any()
    margin = "residual" if record.is_regression else "margin"
    assert set(draw_all({case: record})) == {f"dynamics_{name}" for name in ("loss", margin, "gradient", "layers")}
    assert not list(experiment.folder.figures.glob("dynamics_*.png"))  # draw=false


def test_the_share_of_positive_margins_is_the_accuracy(train):
    experiment, _ = train(
        "model=mlp",
        "data=breast_cancer",
        "loss=mse",
        "logger=none",
        *RECORDED,
        "trainer.max_epochs=3",
        "callbacks.dynamics.examples=2000",
    )
    learner, split = experiment.learner, experiment.data.splits["train"]
    last = torch.load(experiment.folder.last, weights_only=True)["state_dict"]
    learner.load_state_dict(last)
    with torch.no_grad():
        right = (learner.probabilities(learner.network(split.inputs)) > 0.5) == (split.truth > 0.5)
    assert (~recorded(experiment).mispredicted()[-1]).mean() == pytest.approx(right.float().mean().item())


def test_ignored_classes_and_classes_of_weight_0_are_not_recorded(train):
    for override in ("loss.ignore_index=3", "loss.weight=[1,1,1,0,1,1,1,1,1,1]"):
        experiment, _ = train(
            *DIGITS, *RECORDED, "loss=cross_entropy", override, "trainer.max_epochs=1", "test=false"
        )  # fmt: skip
        assert set(recorded(experiment).target.tolist()) == set(range(10)) - {3}


def test_overfit_batches_records_only_the_trained_examples(train):
    experiment, _ = train(
        *DIGITS, *RECORDED, "data.batch_size=20", "trainer.overfit_batches=2", "trainer.max_epochs=1", "test=false"
    )
    trained = experiment.data.splits["train"].index[:40]
    assert recorded(experiment).index.tolist() == trained.tolist()


def test_a_failing_run_writes_its_snapshots(build):
    experiment = build(*DIGITS, *RECORDED, "callbacks.dynamics.every=1", "trainer.max_epochs=9")

    def fail(*_):
        if experiment.trainer.current_epoch == 2:
            message = "out of something"
            raise RuntimeError(message)

    experiment.learner.on_before_zero_grad = fail
    with pytest.raises(RuntimeError, match="out of something"):
        experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    assert recorded(experiment).epoch.tolist() == [0, 1, 2]


def test_snapshots_are_also_written_during_training(build):
    experiment = build(*DIGITS, *RECORDED, "callbacks.dynamics.every_seconds=0", "trainer.max_epochs=2")
    lengths = []
    experiment.learner.on_train_epoch_start = lambda: lengths.append(len(recorded(experiment).epoch))
    experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    assert lengths == [1, 2]


@pytest.mark.parametrize("override", ["examples=0", "examples=null", "every=0", "every=1.5"])
def test_invalid_arguments_are_rejected(build, override):
    with pytest.raises(LabError, match=r"callbacks\.dynamics\.(examples|every) must be an integer"):
        build(*DIGITS, "callbacks=dynamics", f"callbacks.dynamics.{override}")


@pytest.fixture(scope="module")
def drawn(train):
    """A run on digits with 40 % wrong labels that draws its figures."""
    noisy = ("noise=symmetric", "noise.rate=0.4", "loss=mae", "trainer.max_epochs=2", "test=false")
    options = [
        option for option in (*DIGITS, *RECORDED) if option not in {"logger=none", "callbacks.dynamics.draw=false"}
    ]
    return train(*options, *noisy)[0]


def test_tensorboard_has_the_scalars_histograms_and_figures(drawn):
    record = recorded(drawn)
    assert record.has_noise
    read = EventAccumulator(str(drawn.folder.path), size_guidance={"scalars": 0, "histograms": 0}).Reload()
    names = ("gradient_share_hardest_10", "no_gradient", "gradient_norm_logits", "noise_auroc", "noise_auroc_margin")
    tags = read.Tags()
    assert {f"dynamics/{name}" for name in names} <= set(tags["scalars"])
    auroc = [event.value for event in read.Scalars("dynamics/noise_auroc")]
    assert auroc == pytest.approx(record.loss_auroc(), abs=1e-6)
    assert {"dynamics/loss", "dynamics/margin"} <= set(tags["histograms"])
    assert len(read.Histograms("dynamics/loss")) == len(record.epoch) == 3
    names = {f"figures/dynamics_{name}" for name in ("loss", "margin", "gradient", "noise", "layers")}
    assert names <= set(tags["images"])
    assert {f"figures/{path.stem}" for path in drawn.folder.figures.glob("*.png")} == set(tags["images"])


def test_the_history_has_no_dynamics_columns(drawn):
    with drawn.folder.history.open() as file:
        assert not any("dynamics" in name for name in next(csv.reader(file)))


@pytest.fixture(scope="module")
def noisy(build):
    """Runs on digits with 40 % wrong labels, with cross_entropy and with mae."""
    runs = {}
    for loss in ("cross_entropy", "mae"):
        experiment = build(
            "model=mlp", "model.hidden=[256]", "data=digits", "data.size=8", "data.batch_size=256", f"loss={loss}",
            "optimizer.lr=0.01", "trainer.max_epochs=30", "trainer.check_val_every_n_epoch=30", "examine=false",
            "test=false", "callbacks=dynamics", "callbacks.dynamics.every=5",
            "callbacks.dynamics.draw=false",
        )  # fmt: skip
        experiment.data.setup()
        split = experiment.data.splits["train"]
        draws = torch.Generator().manual_seed(0)
        flipped = torch.rand(split.size, generator=draws) < 0.4
        others = (split.truth + torch.randint(1, 10, (split.size,), generator=draws)) % 10
        experiment.data.splits["train"] = split._replace(target=torch.where(flipped, others, split.truth))
        lab.run(experiment)
        runs[loss] = experiment
    return runs


@pytest.mark.slow
def test_cross_entropy_detects_wrong_labels_before_it_memorises_them(noisy):
    record = recorded(noisy["cross_entropy"])
    assert 0.35 < record.corrupted.mean() < 0.45
    auroc = record.loss_auroc()
    assert abs(auroc[0] - 0.5) < 0.1
    assert auroc[1] > 0.95
    assert auroc[-1] < auroc[1] - 0.05
    memorised = (record.margin[:, record.corrupted] > 0).mean(axis=1)
    assert memorised[-1] > memorised[1] + 0.2


@pytest.mark.slow
def test_mae_gives_mispredicted_examples_no_gradient(noisy):
    lost = {}
    for loss, experiment in noisy.items():
        record = recorded(experiment)
        lost[loss] = (record.no_gradient() & record.mispredicted())[-1].mean()
    assert lost["cross_entropy"] == 0
    assert lost["mae"] > 0.3


def test_loss_of_the_whole_batch_has_all_figures_but_those_of_its_losses(build, caplog):
    caplog.set_level("INFO")
    dice = ("loss=custom", "loss._target_=batch_losses.Dice", "noise=symmetric", "trainer.max_epochs=2")
    experiment = build(*DIGITS, "callbacks=dynamics", "callbacks.dynamics.examples=200", *dice)
    lab.run(experiment)
    record = recorded(experiment)
    assert not record.has_losses
    assert np.isfinite(record.gradient).all()
    assert record.gradient.any()
    drawn = draw_all({"": record})
    assert set(drawn) == {"dynamics_margin", "dynamics_gradient", "dynamics_noise", "dynamics_layers"}
    assert "the area under the margin detects" in drawn["dynamics_noise"].findings[0]
    assert "no figure of losses: the loss scores a batch as a whole" in caplog.text

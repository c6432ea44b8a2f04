"""What the callback keeps of a run, and that the run does not notice."""

import csv

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from losslab.analysis.dynamics.figures import pictures
from losslab.analysis.dynamics.measures import loss_auroc, silent, wrong
from losslab.analysis.dynamics.record import Record
from losslab.errors import LabError
from losslab.training import experiment as lab

DIGITS = ("model=mlp", "data=digits", "data.size=8", "logger=none", "examine=false", "data.batch_size=200")
WATCHED = ("callbacks=dynamics", "callbacks.dynamics.examples=200", "callbacks.dynamics.draw=false")


def recorded(experiment):
    return Record.load(experiment.folder.dynamics)


def restless():
    """A network with statistics of its own and random draws."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 10)
    )


@pytest.mark.parametrize(
    "case",
    [
        ("loss=cross_entropy", "data.crop=1"),
        ("loss=gjs", "loss.view.pixels=1", "mix=mixup", "callbacks.dynamics.every_seconds=0"),  # sees random views
    ],
    ids=lambda case: case[0],
)
def test_the_history_is_the_same_to_the_byte_with_and_without(build, case):
    histories, weights = [], []
    for callbacks in (WATCHED, ()):
        overrides = [word for word in case if callbacks or "callbacks." not in word]
        experiment = build(*DIGITS, *callbacks, *overrides, "trainer.max_epochs=3", "test=false")
        experiment.learner.network = restless()
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
    ids=["every two", "some twenty", "stopped by steps"],
)
def test_it_looks_before_the_first_step_every_few_epochs_and_at_the_end(train, overrides, epochs):
    experiment, _ = train("logger=none", *WATCHED, *overrides)
    seen = recorded(experiment)
    assert seen.epoch.tolist() == epochs
    assert seen.step[-1] == experiment.trainer.global_step
    assert seen.step[0] == 0


def test_looks_are_thinned_where_nobody_knows_when_the_run_ends(build):
    experiment = build("logger=none", *WATCHED, "trainer.max_epochs=-1", "+trainer.max_time=00:01:00:00")
    experiment.learner.on_train_epoch_start = lambda: stop(experiment.trainer)

    def stop(trainer):
        trainer.should_stop = trainer.current_epoch == 50

    experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    seen = recorded(experiment)
    assert seen.epoch[0] == 0
    assert seen.epoch[-1] == 51
    assert len(seen.epoch) <= 41
    assert set(np.diff(seen.epoch[:-1])) == {2}


def test_what_is_kept_is_what_the_network_said(train):
    experiment, _ = train(*DIGITS, *WATCHED, "loss=cross_entropy", "trainer.max_epochs=1", "test=false")
    seen, data = recorded(experiment), experiment.data
    assert len(seen.index) == 200
    split = data.splits["train"]
    place = torch.isin(split.index, torch.from_numpy(seen.index))
    with torch.no_grad():
        outputs = experiment.learner.network.eval()(data.transform(split.inputs[place]))
    assert seen.outputs[-1] == pytest.approx(outputs.numpy(), abs=1e-5)
    assert seen.target.tolist() == split.target[place].tolist()
    p = outputs.softmax(1) - nn.functional.one_hot(split.target[place], 10)
    assert seen.gradient[-1] == pytest.approx(p.norm(dim=1).numpy(), abs=1e-5)
    assert not seen.corrupted.any()


CASES = {
    "soft targets": (*DIGITS, "mix=mixup", "loss=cross_entropy", "trainer.precision=64-true"),
    "half precision": (*DIGITS, "loss=cross_entropy", "trainer.precision=bf16-mixed"),
    "one-vs-all": (*DIGITS, "loss=hinge"),
    "a binary label": ("model=mlp", "data=breast_cancer", "loss=bce", "logger=none"),
    "outputs that are probabilities": ("model=mlp", "data=breast_cancer", "loss=mse", "logger=none"),
    "two outputs a value": ("model=mlp", "data=diabetes", "loss=gaussian_nll", "logger=none"),
    "counts": ("model=mlp", "data=counts", "loss=poisson_nll", "logger=none"),
    "averaged weights": (*DIGITS, "loss=cross_entropy", "callbacks=[ema,dynamics]"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_target_is_watched_and_drawn(train, case):
    experiment, _ = train(*WATCHED, *CASES[case], "trainer.max_epochs=2", "test=false", "trainer.limit_val_batches=0")
    seen = recorded(experiment)
    for values in (seen.outputs, seen.loss, seen.margin, seen.truth_margin, seen.gradient, seen.flow):
        assert np.isfinite(values).all()
    assert (seen.gradient >= 0).all()
    assert (seen.gradient[0] > 0).any()
    margin = "residual" if seen.of_values else "margin"
    assert set(pictures({case: seen})) == {f"dynamics_{name}" for name in ("loss", margin, "gradient", "layers")}
    assert not list(experiment.folder.figures.glob("dynamics_*.png"))  # draw=false


def test_the_accuracy_of_the_margins_is_that_of_the_metric(train):
    experiment, _ = train(
        "model=mlp",
        "data=breast_cancer",
        "loss=mse",
        "logger=none",
        *WATCHED,
        "trainer.max_epochs=3",
        "callbacks.dynamics.examples=2000",
    )
    learner, split = experiment.learner, experiment.data.splits["train"]
    last = torch.load(experiment.folder.last, weights_only=True)["state_dict"]
    learner.load_state_dict(last)
    with torch.no_grad():
        right = (learner.probabilities(learner.network(split.inputs)) > 0.5) == (split.truth > 0.5)
    assert (~wrong(recorded(experiment))[-1]).mean() == pytest.approx(right.float().mean().item())


def test_an_ignored_class_and_one_of_weight_0_are_not_watched(train):
    for override in ("loss.ignore_index=3", "loss.weight=[1,1,1,0,1,1,1,1,1,1]"):
        experiment, _ = train(
            *DIGITS, *WATCHED, "loss=cross_entropy", override, "trainer.max_epochs=1", "test=false"
        )  # fmt: skip
        assert set(recorded(experiment).target.tolist()) == set(range(10)) - {3}


def test_under_overfit_batches_only_what_is_trained_on_is_watched(train):
    experiment, _ = train(
        *DIGITS, *WATCHED, "data.batch_size=20", "trainer.overfit_batches=2", "trainer.max_epochs=1", "test=false"
    )
    trained = experiment.data.splits["train"].index[:40]
    assert recorded(experiment).index.tolist() == trained.tolist()


def test_a_run_that_fails_keeps_what_it_had(build):
    experiment = build(*DIGITS, *WATCHED, "callbacks.dynamics.every=1", "trainer.max_epochs=9")

    def fail(*_):
        if experiment.trainer.current_epoch == 2:
            message = "out of something"
            raise RuntimeError(message)

    experiment.learner.on_before_zero_grad = fail
    with pytest.raises(RuntimeError, match="out of something"):
        experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    assert recorded(experiment).epoch.tolist() == [0, 1, 2]


def test_a_run_that_is_killed_keeps_what_was_written_now_and_then(build):
    experiment = build(*DIGITS, *WATCHED, "callbacks.dynamics.every_seconds=0", "trainer.max_epochs=2")
    found = []
    experiment.learner.on_train_epoch_start = lambda: found.append(len(recorded(experiment).epoch))
    experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    assert found == [1, 2]


@pytest.mark.parametrize("wrong", ["examples=0", "examples=null", "every=0", "every=1.5"])
def test_numbers_that_make_no_sense_are_refused(build, wrong):
    with pytest.raises(LabError, match=r"callbacks\.dynamics\.(examples|every) must be a whole number"):
        build(*DIGITS, "callbacks=dynamics", f"callbacks.dynamics.{wrong}")


@pytest.fixture(scope="module")
def noisy(build):
    """Digits of which 40 % have a wrong label, under cross-entropy and under mae."""
    runs = {}
    for loss in ("cross_entropy", "mae"):
        experiment = build(
            "model=mlp", "model.hidden=[256]", "data=digits", "data.size=8", "data.batch_size=256", f"loss={loss}",
            "optimizer.lr=0.01", "trainer.max_epochs=30", "trainer.check_val_every_n_epoch=30", "examine=false",
            "test=false", "callbacks=dynamics", "callbacks.dynamics.every=5",
            f"callbacks.dynamics.draw={str(loss == 'mae').lower()}",
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


def test_under_cross_entropy_the_loss_finds_wrong_labels_before_they_are_learnt_by_heart(noisy):
    seen = recorded(noisy["cross_entropy"])
    assert 0.35 < seen.corrupted.mean() < 0.45
    found = loss_auroc(seen)
    assert abs(found[0] - 0.5) < 0.1
    assert found[1] > 0.95
    assert found[-1] < found[1] - 0.05
    learnt = (seen.margin[:, seen.corrupted] > 0).mean(axis=1)
    assert learnt[-1] > learnt[1] + 0.2


def test_mae_gives_up_the_examples_that_it_gets_wrong(noisy):
    lost = {}
    for loss, experiment in noisy.items():
        seen = recorded(experiment)
        lost[loss] = (silent(seen) & wrong(seen))[-1].mean()
    assert lost["cross_entropy"] == 0
    assert lost["mae"] > 0.3


def test_tensorboard_has_the_numbers_histograms_and_figures(noisy):
    experiment = noisy["mae"]
    read = EventAccumulator(str(experiment.folder.path), size_guidance={"scalars": 0, "histograms": 0}).Reload()
    names = ("gradient_share_hardest_10", "no_gradient", "gradient_norm_logits", "noise_auroc", "noise_auroc_margin")
    tags = read.Tags()
    assert {f"dynamics/{name}" for name in names} <= set(tags["scalars"])
    found = [event.value for event in read.Scalars("dynamics/noise_auroc")]
    assert found == pytest.approx(loss_auroc(recorded(experiment)), abs=1e-6)
    assert {"dynamics/loss", "dynamics/margin"} <= set(tags["histograms"])
    assert len(read.Histograms("dynamics/loss")) == 7
    drawn = {f"figures/dynamics_{name}" for name in ("loss", "margin", "gradient", "noise", "layers")}
    assert drawn <= set(tags["images"])
    assert {f"figures/{path.stem}" for path in experiment.folder.figures.glob("*.png")} == set(tags["images"])


def test_the_history_says_nothing_of_the_dynamics(noisy):
    with noisy["mae"].folder.history.open() as file:
        assert not any("dynamics" in name for name in next(csv.reader(file)))

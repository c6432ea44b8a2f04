"""One, two and three processes train the same thing and measure the same thing."""

import csv

import pytest
import torch
import workers

from losslab.analysis.dynamics.record import Record

CASES = {
    "regression, momentum, clipped": [
        "model=mlp", "data=diabetes", "loss=huber", "optimizer=momentum", "data.batch_size=37",
        "trainer.gradient_clip_val=0.5",
    ],
    "class weights, accumulated, clipped": [
        "model=mlp", "data=digits", "loss=cross_entropy", "loss.weight=[1,2,3,4,5,1,2,3,4,0.5]", "data.batch_size=101",
        "trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=0.1", "optimizer=momentum",
    ],
    "an ignored class": [
        "model=mlp", "data=digits", "loss=cross_entropy", "loss.ignore_index=3", "data.batch_size=200", "optimizer=sgd",
    ],
    "convolutions, augmented, a few examples a rank": [
        "model=cifar_cnn", "data=digits", "data.batch_size=7", "loss=bce", "data.crop=2", "data.cutout=4",
        "scheduler=cosine", "trainer.limit_train_batches=5", "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1", "data.eval_batch_size=31",
    ],
    "wrong labels, rare classes, weights by what is left": [
        "model=mlp", "data=digits", "loss=class_balanced", "noise=symmetric", "imbalance=long_tail",
        "imbalance.ratio=10", "data.batch_size=50", "optimizer=sgd",
    ],
    "three points, which two processes cannot share evenly": ["model=linear", "trainer.max_epochs=30"],
}  # fmt: skip


def numbers(path):
    with path.open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def agree(ours, theirs, tolerance):
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            agree(ours[name], theirs[name], tolerance)
    elif isinstance(ours, list) and ours and isinstance(ours[0], dict):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            agree(mine, other, tolerance)
    else:
        mine, other = torch.tensor(ours, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64)
        scale = mine.abs().max().clamp(min=1e-3)
        assert (mine - other).abs().max() <= tolerance * scale


@pytest.mark.parametrize("precision", ["64-true", pytest.param("32-true", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_weights_curves_and_metrics_do_not_depend_on_the_number_of_processes(case, precision, tmp_path):
    overrides = ["trainer.max_epochs=2", *CASES[case], f"trainer.precision={precision}"]
    tolerance = 1e-12 if precision == "64-true" else 1e-5
    outcomes = {}
    for world in (1, 2, 3):
        outcome = workers.together(workers.train, world, str(tmp_path / str(world)), overrides)
        assert outcome.reason is None, outcome.traceback
        outcomes[world] = outcome.value
    for world in (2, 3):
        agree(outcomes[1], outcomes[world], tolerance)
        agree(numbers(tmp_path / "1" / "history.csv"), numbers(tmp_path / str(world) / "history.csv"), tolerance)
    assert outcomes[1]["results"]["steps"] > 0


def test_accumulated_batches_are_one_large_batch(tmp_path):
    base = ["model=mlp", "data=digits", "loss=cross_entropy", "loss.weight=[1,2,3,4,5,1,2,3,4,0.5]", "optimizer=sgd"]
    base += ["trainer.precision=64-true", "trainer.max_epochs=2", "seed=3"]
    small = workers.train(str(tmp_path / "a"), [*base, "data.batch_size=50", "trainer.accumulate_grad_batches=4"])
    large = workers.train(str(tmp_path / "b"), [*base, "data.batch_size=200"])
    agree(small["weights"], large["weights"], 1e-12)


@pytest.mark.slow
def test_the_dynamics_of_a_run_are_watched_by_one_process_and_do_not_depend_on_the_others(tmp_path):
    overrides = [
        "model=mlp",
        "data=digits",
        "data.size=8",
        "loss=cross_entropy",
        "trainer.max_epochs=2",
        "optimizer=sgd",
    ]
    overrides += ["callbacks=dynamics", "callbacks.dynamics.draw=false", "trainer.precision=64-true"]
    seen = []
    for world in (1, 2):
        outcome = workers.together(workers.train, world, str(tmp_path / str(world)), overrides)
        assert outcome.reason is None, outcome.traceback
        seen.append(Record.load(tmp_path / str(world) / "dynamics.npz"))
    assert seen[0].epoch.tolist() == seen[1].epoch.tolist() == [0, 1, 2]
    for name in ("index", "outputs", "loss", "margin", "gradient", "flow"):
        assert getattr(seen[1], name) == pytest.approx(getattr(seen[0], name), rel=1e-6, abs=1e-6)


@pytest.mark.slow
def test_evaluation_counts_every_example_once():
    cases = [(count, batch) for count in range(97, 113) for batch in (1, 7, 16)]
    alone = workers.together(workers.count, 1, cases).value
    whole = {count: value for (count, batch), value in zip(cases, alone, strict=True) if batch == 16}
    for world in (1, 2, 3):
        outcome = alone if world == 1 else workers.together(workers.count, world, cases, seconds=300).value
        for (count, _), (accuracy, loss) in zip(cases, outcome, strict=True):
            assert round(accuracy * count) == pytest.approx(accuracy * count, abs=1e-9)
            assert round(accuracy * count) == round(whole[count][0] * count)
            assert loss == pytest.approx(whole[count][1], rel=1e-9)


def test_lightnings_own_way_counts_examples_twice_and_floors_an_integer_mean():
    """What the tests above would find if evaluation were left to it."""
    right = [1] + [0] * 64 + [1] * 36  # 37 of 101
    outcome = workers.together(workers.stock, 2, right)
    assert outcome.reason is None, outcome.traceback
    assert outcome.value["accuracy"] != pytest.approx(37 / 101, abs=1e-4)
    assert outcome.value["accuracy"] == pytest.approx(38 / 102, abs=1e-4)
    assert outcome.value["mean of 1 and 2"] == 1

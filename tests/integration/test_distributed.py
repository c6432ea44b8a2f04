"""One, two and three ranks train the same weights and measure the same metrics."""

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
    "convolutions, augmented, few examples per rank": [
        "model=cifar_cnn", "data=digits", "data.batch_size=7", "loss=bce", "data.crop=2", "data.cutout=4",
        "scheduler=cosine", "trainer.limit_train_batches=5", "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1", "data.eval_batch_size=31",
    ],
    "label noise, long tail, class-balanced weights": [
        "model=mlp", "data=digits", "loss=class_balanced", "noise=symmetric", "imbalance=long_tail",
        "imbalance.ratio=10", "data.batch_size=50", "optimizer=sgd",
    ],
    "several evaluations in a step": [
        "model=mlp", "model.hidden=[4]", "data=diabetes", "data.batch_size=101", "optimizer=sgd", "optimizer.lr=0.1",
        "optimizer._target_=torch.optim.LBFGS", "~optimizer.momentum", "~optimizer.weight_decay",
        "+optimizer.max_iter=4", "+optimizer.line_search_fn=strong_wolfe", "trainer.max_epochs=1",
    ],
    "three points, which two ranks cannot share evenly": ["model=linear", "trainer.max_epochs=30"],
}  # fmt: skip


def read_numbers(path):
    with path.open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def assert_close(ours, theirs, tolerance):
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert_close(ours[name], theirs[name], tolerance)
    elif isinstance(ours, list) and ours and isinstance(ours[0], dict):
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_close(mine, other, tolerance)
    else:
        mine, other = torch.tensor(ours, dtype=torch.float64), torch.tensor(theirs, dtype=torch.float64)
        scale = mine.abs().max().clamp(min=1e-3)
        assert (mine - other).abs().max() <= tolerance * scale


FAST = ("class weights, accumulated, clipped", "three points, which two ranks cannot share evenly")


@pytest.mark.parametrize("precision", ["64-true", pytest.param("32-true", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "case", [case if case in FAST else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_weights_curves_and_metrics_do_not_depend_on_the_world_size(case, precision, tmp_path):
    overrides = ["trainer.max_epochs=2", *CASES[case], f"trainer.precision={precision}"]
    tolerance = 1e-12 if precision == "64-true" else 1e-5
    if precision == "32-true" and "+optimizer.line_search_fn=strong_wolfe" in overrides:
        tolerance = 1e-3  # a line search compares losses that differ by rounding
    results = {}
    for world in (1, 2, 3):
        outcome = workers.run_ranks(workers.train, world, str(tmp_path / str(world)), overrides)
        assert outcome.reason is None, outcome.traceback
        results[world] = outcome.value
    for world in (2, 3):
        assert_close(results[1], results[world], tolerance)
        assert_close(
            read_numbers(tmp_path / "1" / "history.csv"), read_numbers(tmp_path / str(world) / "history.csv"), tolerance
        )
    assert results[1]["results"]["steps"] > 0


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    base = ["model=mlp", "data=digits", "loss=cross_entropy", "loss.weight=[1,2,3,4,5,1,2,3,4,0.5]", "optimizer=sgd"]
    base += ["trainer.precision=64-true", "trainer.max_epochs=2", "seed=3"]
    small = workers.train(str(tmp_path / "a"), [*base, "data.batch_size=50", "trainer.accumulate_grad_batches=4"])
    large = workers.train(str(tmp_path / "b"), [*base, "data.batch_size=200"])
    assert_close(small["weights"], large["weights"], 1e-12)


@pytest.mark.slow
def test_processes_that_read_different_data_are_refused(tmp_path):
    overrides = ["model=mlp", "data=digits", "loss=cross_entropy", "data._target_=workers.DrawnDigits"]
    outcome = workers.run_ranks(workers.train, 2, str(tmp_path / "a"), overrides)
    assert "each process has read other data" in outcome.reason


def test_ranks_have_the_same_weights_if_the_optimizer_draws_random_numbers(tmp_path):
    overrides = ["optimizer=sgd", "optimizer._target_=workers.NoisySGD", "trainer.max_epochs=2", "test=false"]
    outcome = workers.run_ranks(workers.weights_of_ranks, 2, str(tmp_path / "a"), overrides)
    assert outcome.reason is None, outcome.traceback
    assert outcome.value[0] == outcome.value[1]


@pytest.mark.slow
def test_line_search_sees_the_same_values_on_all_ranks(tmp_path):
    overrides = [
        "model=mlp", "model.hidden=[8]", "data=digits", "data.size=8", "loss=cross_entropy", "optimizer=adam",
        "trainer.precision=64-true", "trainer.limit_train_batches=30", "optimizer.lr=0.1",
        "optimizer._target_=torch.optim.LBFGS", "~optimizer.weight_decay",
        "+optimizer.line_search_fn=strong_wolfe", "+optimizer.max_iter=6", "trainer.max_epochs=1", "test=false",
    ]  # fmt: skip
    outcome = workers.run_ranks(workers.weights_of_ranks, 2, str(tmp_path / "a"), overrides, seconds=60)
    assert outcome.reason is None, outcome.traceback
    assert outcome.value[0] == outcome.value[1]


@pytest.mark.slow
def test_dynamics_do_not_depend_on_the_world_size(tmp_path):
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
        outcome = workers.run_ranks(workers.train, world, str(tmp_path / str(world)), overrides)
        assert outcome.reason is None, outcome.traceback
        seen.append(Record.load(tmp_path / str(world) / "dynamics.npz"))
    assert seen[0].epoch.tolist() == seen[1].epoch.tolist() == [0, 1, 2]
    for name in ("index", "outputs", "loss", "margin", "gradient", "flow"):
        assert getattr(seen[1], name) == pytest.approx(getattr(seen[0], name), rel=1e-6, abs=1e-6)


@pytest.mark.slow
def test_evaluation_counts_every_example_once():
    cases = [(count, batch) for count in range(97, 113) for batch in (1, 7, 16)]
    alone = workers.run_ranks(workers.count, 1, cases).value
    whole = {count: value for (count, batch), value in zip(cases, alone, strict=True) if batch == 16}
    for world in (1, 2, 3):
        outcome = alone if world == 1 else workers.run_ranks(workers.count, world, cases, seconds=300).value
        for (count, _), (accuracy, loss) in zip(cases, outcome, strict=True):
            assert round(accuracy * count) == pytest.approx(accuracy * count, abs=1e-9)
            assert round(accuracy * count) == round(whole[count][0] * count)
            assert loss == pytest.approx(whole[count][1], rel=1e-9)


def test_lightning_alone_counts_examples_twice_and_floors_an_integer_mean():
    """The control: what the tests above would find with Lightning's own evaluation."""
    right = [1] + [0] * 64 + [1] * 36  # 37 of 101
    outcome = workers.run_ranks(workers.stock, 2, right)
    assert outcome.reason is None, outcome.traceback
    assert outcome.value["accuracy"] != pytest.approx(37 / 101, abs=1e-4)
    assert outcome.value["accuracy"] == pytest.approx(38 / 102, abs=1e-4)
    assert outcome.value["mean of 1 and 2"] == 1

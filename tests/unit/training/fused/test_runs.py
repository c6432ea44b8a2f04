"""A fused run has the results, the tables and the checkpoints of the same run alone."""

import json

import pytest
import torch
from fused_runs import DOUBLE, configuration, differences, train_alone, train_fused
from quick import sample

from losslab.runs import RunFolder

STEPS = ["model=mlp", "model.hidden=[4]", "model.activation=tanh", "data=breast_cancer", "data.batch_size=null",
         "loss=bce", "trainer.max_epochs=60", "trainer.check_val_every_n_epoch=30", DOUBLE]  # fmt: skip
DIGITS = ["model=mlp", "model.hidden=[16]", "data=digits", "data.size=8", "data.batch_size=256", "loss=cross_entropy",
          "trainer.max_epochs=2", DOUBLE]  # fmt: skip
USER_NETWORK = [*(each for each in DIGITS if "hidden" not in each), "model._target_=user_network.make",
                "~model.hidden", "~model.activation", "~model.gain"]  # fmt: skip
TABLE = ["model=mlp", "model.hidden=[8]", "trainer.max_epochs=2", DOUBLE]
IMAGES = ["data=digits", "data._target_=labelled.NoisyImages", "~data.split_seed", "~data.size", "~data.crop",
          "~data.cutout", "data.batch_size=32", "loss=cross_entropy", "trainer.max_epochs=2", DOUBLE]  # fmt: skip
STOPPING = [*DIGITS, "callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=0.02",
            "trainer.max_epochs=12"]  # fmt: skip
SEEDS = [["seed=0"], ["seed=1"]]
RATES = [["seed=0"], ["seed=1", "optimizer.lr=0.01"]]


def settings(**values: str) -> list[list[str]]:
    """Return members with the configured values, with the first of each of two values, and with the second."""
    pairs = {name: value.split(";") for name, value in values.items()}
    changed = [[f"++optimizer.{name}={pair[index]}" for name, pair in pairs.items()] for index in (0, 1)]
    return [["seed=0"], ["seed=1", *changed[0]], ["seed=2", *changed[1]]]


OPTIMIZERS = {
    "sgd": settings(weight_decay="0.1;0", lr="0.02;0.005"),
    "momentum": settings(momentum="0;0.5", dampening="0;0.3", lr="0.02;0.005"),
    "nesterov": settings(momentum="0.8;0.5", lr="0.02;0.005"),
    "nesterov_fast": settings(momentum="0.8;0.5", lr="0.02;0.005"),
    "adam": settings(betas="[0.8,0.99];[0.9,0.98]", eps="1e-4;1e-3", weight_decay="0;0.1"),
    "adamw": settings(betas="[0.8,0.99];[0.9,0.9]", eps="1e-4;1e-6", weight_decay="0;0.1"),
    "rmsprop": settings(momentum="0.9;0", alpha="0.9;0.95", eps="1e-4;1e-6", weight_decay="0;0.1"),
}
SCHEDULES = [
    ["seed=0", "scheduler=constant"], ["seed=1", "scheduler=cosine"],
    ["seed=2", "scheduler=cosine", "scheduler.interval=epoch"],
    ["seed=3", "scheduler=one_cycle", "scheduler.scheduler.cycle_momentum=true"],
    ["seed=4", "scheduler=step", "scheduler.scheduler.step_size=15"], ["seed=5", "scheduler=triangle"],
]  # fmt: skip
CASES = {
    **{f"optimizer {name}": (members, [*STEPS, f"optimizer={name}", "optimizer.lr=0.01"])
       for name, members in OPTIMIZERS.items()},
    "optimizer maximize": (RATES, [*STEPS, "optimizer=adam", "optimizer.maximize=true", "optimizer.lr=1e-4"]),
    "optimizer centered": (RATES, [*STEPS, "optimizer=rmsprop", "+optimizer.centered=true", "+optimizer.eps=0.01"]),
    "optimizer amsgrad": (RATES, [*STEPS, "optimizer=adam", "+optimizer.amsgrad=true"]),
    "schedules": (SCHEDULES, [*STEPS, "optimizer=momentum", "optimizer.lr=0.01"]),
    "clipping by norm or value": (
        [["seed=0"], ["seed=1", "trainer.gradient_clip_val=0.1"],
         ["seed=3", "trainer.gradient_clip_val=1e-3", "trainer.gradient_clip_algorithm=value"],
         ["seed=4", "trainer.gradient_clip_val=1e-2", "trainer.gradient_clip_algorithm=value"]],
        [*DIGITS, "optimizer=sgd", "optimizer.lr=0.1"]),
    "losses with terms": ([["loss=sce"], ["loss=nce_rce"], ["loss=cross_entropy"]], DIGITS),
    "noise": (SEEDS, [*DIGITS, "noise=symmetric"]),
    "imbalance and class weights": (
        [["seed=1", "loss=weighted_cross_entropy"], ["loss=balanced_softmax"], ["loss=ldam"]],
        [*DIGITS, "imbalance=long_tail"]),
    "an ignored class": ([["seed=0"], ["seed=1", "loss.ignore_index=3"]], DIGITS),
    "augmentation": (SEEDS, [*DIGITS, "data.crop=1", "data.cutout=2"]),
    "a last smaller batch": (SEEDS, [*DIGITS, "data.batch_size=500", "data.eval_batch_size=100"]),
    "epochs without validation": (SEEDS, [*DIGITS, "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"]),
    "no test": (SEEDS, [*DIGITS, "test=false"]),
    "annealing": (
        [["seed=0", "loss=focal"], ["seed=1", "loss=focal", "callbacks.anneal.end=1"],
         ["seed=0", "loss=focal", "callbacks.anneal.epochs=1", "callbacks.anneal.start=5"]],
        [*DIGITS, "callbacks=anneal", "callbacks.anneal.parameter=gamma", "callbacks.anneal.end=0"]),
    "early stopping": (
        [["seed=0"], ["seed=1", "optimizer.lr=0.1"], ["seed=2", "callbacks.early_stopping.patience=2"]], STOPPING),
    "early stopping by loss": (RATES, [*STOPPING, "callbacks.early_stopping.monitor=val/loss"]),
    "early stopping by f1": (RATES, [*STOPPING, "callbacks.early_stopping.monitor=val/f1"]),
    "early stopping and epochs without validation": (
        RATES, [*STOPPING, "trainer.check_val_every_n_epoch=2", "callbacks.early_stopping.monitor=train/loss"]),
    "binary": ([["loss=bce"], ["loss=hinge"], ["loss=mse"]], [*TABLE, "data=breast_cancer", "loss=bce"]),
    "counts": ([["loss=poisson_nll"], ["loss=tweedie"], ["loss=gaussian_nll"]], [*TABLE, "data=counts"]),
    "linear": ([["loss=gaussian_nll"], ["loss=mse"], ["seed=1", "loss=huber"]],
               [*TABLE[2:], "data=linear_synthetic"]),
    "several labels": ([["seed=0"], ["seed=1", "loss=mse"]],
                       [*TABLE, "data=breast_cancer", "data._target_=labelled.ThreeLabels", "~data.split_seed",
                        "loss=bce"]),
    "cosines": (RATES, [*DIGITS, "loss=cosine_softmax"]),
    "cifar_cnn": (RATES, ["model=cifar_cnn", *IMAGES]),
    "airbench": (RATES, [
        "model=airbench", "model.widths=[2,2,2]", "~callbacks.whitening", *DIGITS[2:], "data.size=12",
        "trainer.max_epochs=1"]),
    "a network of the user with BatchNorm": (RATES, [*USER_NETWORK, "optimizer=momentum"]),
}  # fmt: skip
QUICK = ("clipping by norm or value", "early stopping", "losses with terms")


@pytest.fixture(autouse=True)
def user_network(tmp_path, monkeypatch):
    """A file of the user with a network."""
    code = [
        "from torch import nn",
        "def make(input_shape, outputs):",
        "    layers = [nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, outputs)]",
        "    return nn.Sequential(*layers)",
    ]
    (tmp_path / "user_network.py").write_text("\n".join(code))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", sample(CASES, *QUICK))
def test_a_fused_run_equals_the_run_alone(tmp_path, case):
    members, common = CASES[case]
    alone = [len(members) - 1] if members in (SEEDS, RATES, *OPTIMIZERS.values()) else range(len(members))
    assert differences(tmp_path, members, *common, alone=alone) == []
    for index in alone:
        assert RunFolder(tmp_path / "fused" / str(index)).metrics.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "common",
    [["model=linear", "data=line", "trainer.max_epochs=1000", "trainer.check_val_every_n_epoch=200", DOUBLE],
     [*DIGITS, "data.batch_size=25", "trainer.max_epochs=20", "trainer.check_val_every_n_epoch=20"]],
    ids=["linear", "mlp"],
)  # fmt: skip
def test_a_thousand_steps_change_nothing(tmp_path, common):
    assert differences(tmp_path, RATES, *common, alone=[1]) == []


@pytest.mark.slow
def test_in_float32_the_metrics_are_close_and_the_accuracies_equal(tmp_path):
    common = [*DIGITS, "trainer.precision=32-true", "trainer.max_epochs=10", "trainer.check_val_every_n_epoch=5"]
    assert differences(tmp_path, RATES, *common, tolerance=1e-4) == []
    for index in range(2):
        one, two = (
            json.loads(RunFolder(tmp_path / which / str(index)).metrics.read_text()) for which in ("fused", "alone")
        )
        assert all(one[name] == value for name, value in two.items() if name.endswith("accuracy"))
        assert all(one[name] == pytest.approx(value, rel=1e-5) for name, value in two.items())


def test_half_precision_trains_to_similar_results(tmp_path):
    common = [*DIGITS, "trainer.precision=bf16-mixed", "trainer.max_epochs=4"]
    assert {each.reason for each in train_fused(tmp_path / "fused", SEEDS, *common).values()} == {None}
    assert train_alone(configuration(tmp_path / "alone", *common, "seed=0")) is None
    one, two = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("fused/0", "alone"))
    assert one["test/accuracy"] == pytest.approx(two["test/accuracy"], abs=0.03)
    assert one["test/loss"] == pytest.approx(two["test/loss"], rel=0.03)
    weights = torch.load(tmp_path / "fused" / "0" / "weights.pth", weights_only=True)
    assert {each.dtype for each in weights.values()} == {torch.float32}

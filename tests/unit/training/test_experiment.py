"""Experiments are built from configurations. Parts that do not fit together are refused with a one-line message."""

import logging
import os
import random
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.version import VersionBase
from lightning import Callback
from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer
from quick import sample

from losslab.errors import LabError
from losslab.io.conf_groups import choices
from losslab.losses import catalog
from losslab.runs import RunFolder
from losslab.runs.config import hyperparameters
from losslab.targets import Kind, choose_kind
from losslab.training import experiment as lab
from losslab.training import weights
from losslab.training.config import compose
from losslab.training.global_state import global_state

QUICK = ("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "logger=none")


GIVES = {"line": Kind.VALUES, "counts": Kind.VALUES, "breast_cancer": Kind.BINARY, "digits": Kind.INDEX}
WANTS = {name: catalog.make(name).wants for name in catalog.names()}
FITTING = {
    data: [name for name, wants in WANTS.items() if choose_kind(kind, wants) is not None]
    for data, kind in GIVES.items()
}
NETWORK = {"digits": ("model=cifar_cnn", "trainer.limit_train_batches=2"), "line": ("model=linear",)}


@pytest.fixture(scope="module")
def a_teacher(train):
    overrides = ("data=digits", "loss=cross_entropy", *NETWORK["digits"], *QUICK)
    return train(*overrides)[0].folder.path


TWINS = {Kind.INDEX: "digits", Kind.PROBABILITIES: "digits", Kind.BINARY: "breast_cancer", Kind.VALUES: "line"}
TRAINED = {(TWINS[wants[0]], name) for name, wants in WANTS.items()}
TRAINED |= {("digits", name) for name in FITTING["breast_cancer"]} | {("counts", "poisson_nll"), ("counts", "tweedie")}


QUICK_LOSSES = (
    ("line", "mse"), ("line", "gaussian_nll"), ("counts", "poisson_nll"), ("breast_cancer", "bce"),
    ("digits", "cross_entropy"), ("digits", "distillation"), ("digits", "gjs"), ("digits", "nce_rce"),
)  # fmt: skip


@pytest.mark.parametrize(("data", "loss"), sample(sorted(TRAINED), *QUICK_LOSSES))
def test_loss_trains_on_fitting_data(train, a_teacher, data, loss):
    taught = (f"teacher={a_teacher}",) if loss == "distillation" else ()
    network = NETWORK.get(data, ("model=mlp", "model.hidden=[8]"))
    _, results = train(*network, f"data={data}", f"loss={loss}", *taught, *QUICK)
    assert all(value == value for value in results.values()), "a value is NaN"  # noqa: PLR0124


@pytest.mark.parametrize(
    ("data", "loss", "one_that_fits"),
    [("line", "cross_entropy", "huber"), ("breast_cancer", "focal", "bce"), ("diabetes", "kl_div", "mse")],
)
def test_data_that_do_not_fit_the_loss_are_refused_and_fitting_losses_are_listed(build, data, loss, one_that_fits):
    with pytest.raises(LabError, match="choose one of loss=") as error:
        build("model=mlp", f"data={data}", f"loss={loss}")
    named = str(error.value).partition("loss=")[2].split(", ")
    assert named == FITTING["line" if data == "diabetes" else data]
    assert one_that_fits in named


@pytest.mark.parametrize(
    ("loss", "accuracy"), sample([("cross_entropy", 0.9), ("mse", 0.9), ("l1", 0.3)], ("cross_entropy", 0.9))
)
def test_classes_are_learnt(train, loss, accuracy):
    _, results = train("model=mlp", "data=digits", f"loss={loss}", "trainer.max_epochs=15", "logger=none")
    assert results["test/accuracy"] > accuracy


@pytest.mark.slow
def test_outliers_move_mse_more_than_huber_and_l1(train):
    error = {
        loss: train("experiment=outliers", f"loss={loss}", "logger=none")[1]["test/mse"]
        for loss in ("mse", "huber", "l1")
    }
    assert error["mse"] > 100 * error["huber"] > 100 * error["l1"]


PRODUCT = [(optimizer, scheduler) for optimizer in choices("optimizer") for scheduler in choices("scheduler")]
# Each optimizer and each scheduler once.
QUICK_PAIRS = PRODUCT[:: len(choices("scheduler")) + 1]
# one_cycle changes the momentum too, which each optimizer keeps elsewhere. The others change the learning rate alone.
PAIRS = [pair for pair in PRODUCT if pair in QUICK_PAIRS or pair[1] == "one_cycle"]


@pytest.mark.parametrize(("optimizer", "scheduler"), sample(PAIRS, *QUICK_PAIRS))
def test_every_optimizer_works_with_the_schedulers(train, optimizer, scheduler):
    experiment, _ = train(
        "model=mlp", "data=diabetes", f"optimizer={optimizer}", f"scheduler={scheduler}", "optimizer.lr=1e-3",
        "trainer.max_epochs=3", "logger=none",
    )  # fmt: skip
    rate = experiment.trainer.optimizers[0].param_groups[0]["lr"]
    assert (rate == 1e-3) == (scheduler in {"constant", "plateau", "step"})


@pytest.mark.parametrize("end", ["trainer.max_epochs=3", "trainer.max_epochs=-1 trainer.max_steps=25"])
def test_cosine_schedule_ends_at_zero_with_the_run(train, end):
    experiment, _ = train("model=mlp", "data=diabetes", "scheduler=cosine", "logger=none", *end.split())
    assert experiment.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)


def test_schedule_without_an_end_is_refused(build):
    experiment = build("scheduler=cosine", "trainer.max_epochs=-1", "model=mlp", "data=diabetes")
    with pytest.raises(LabError, match=r"set trainer\.max_epochs or trainer\.max_steps"):
        lab.run(experiment)


def test_one_cycle_schedule_ends_with_the_run(train):
    experiment, _ = train(
        "model=mlp", "data=diabetes", "scheduler=one_cycle", "trainer.max_epochs=2", "trainer.accumulate_grad_batches=2"
    )
    scheduler = experiment.trainer.lr_scheduler_configs[0].scheduler
    assert scheduler.total_steps == experiment.trainer.global_step == scheduler.last_epoch


def test_plateau_lowers_the_rate_when_the_metric_stalls(train):
    experiment, _ = train(
        "scheduler=plateau", "scheduler.scheduler.patience=1", "optimizer.lr=1e-7", "trainer.max_epochs=80"
    )
    # 8 validations in 80 epochs do not improve on the first by the threshold, so the rate is divided by 10. A second
    # division would change the rate by less than torch's eps of 1e-8.
    assert experiment.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-8)


def test_plateau_monitors_the_metric_not_the_loss(train):
    experiment, _ = train(
        "model=mlp", "data=diabetes", "scheduler=plateau", "scheduler.scheduler.patience=0", "optimizer.lr=1e-12",
        "trainer.max_epochs=3",
    )  # fmt: skip
    config = experiment.trainer.lr_scheduler_configs[0]
    assert (config.monitor, config.scheduler.mode) == ("val/mse", "min")
    digits = lab.build(compose(["model=mlp", "data=digits", "loss=focal", "scheduler=plateau"], "unused"))
    assert (digits.learner.monitor, digits.learner.monitor_mode) == ("val/accuracy", "max")


@pytest.mark.parametrize("debug", [name for name in choices("debug") if name != "profiler"])
def test_every_debug_preset_runs(train, debug):
    _, results = train("model=mlp", "data=digits", "loss=cross_entropy", f"debug={debug}", "logger=none")
    assert "train/loss" in results


def test_overfitting_one_batch_uses_one_batch(build):
    experiment = build("model=mlp", "data=digits", "loss=cross_entropy", "debug=overfit", "logger=none")
    seen = set()

    class Remember(Callback):
        def on_train_batch_start(self, _, __, batch, ___):
            seen.add(tuple(batch.index.tolist()))

    experiment.trainer.callbacks.append(Remember())
    results = lab.run(experiment)
    assert len(seen) == 1
    assert experiment.trainer.global_step == experiment.trainer.max_epochs
    assert results["train/accuracy"] == 1.0


def test_early_stopping_monitors_the_metric_of_the_task(train):
    experiment, _ = train(
        "model=mlp", "data=diabetes", "callbacks=early_stopping", "callbacks.early_stopping.patience=1",
        "optimizer.lr=0.05", "trainer.max_epochs=100", "logger=none",
    )  # fmt: skip
    assert experiment.trainer.current_epoch < 100


def test_callback_choices_can_be_combined(build):
    names = {type(c).__name__ for c in build("callbacks=[default,ema,early_stopping]").trainer.callbacks}
    assert {"EMAWeightAveraging", "EarlyStopping", "BestAndLastCheckpoint"} <= names


@pytest.mark.parametrize("precision", sample(["32-true", "64-true", "bf16-mixed"], "bf16-mixed"))
def test_cnn_trains_in_every_cpu_precision(train, precision):
    experiment, results = train(
        "model=cifar_cnn", "data=digits", f"trainer.precision={precision}", "trainer.limit_train_batches=2", *QUICK
    )
    expected = torch.float64 if precision == "64-true" else torch.float32
    assert next(experiment.learner.parameters()).dtype == expected
    assert 0 <= results["test/accuracy"] <= 1


def test_clipping_bounds_the_gradient(build):
    experiment = build("data=line", "trainer.gradient_clip_val=0.5", "trainer.max_epochs=1", "logger=none")
    before = [p.detach().clone() for p in experiment.learner.parameters()]
    experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    moved = torch.cat([(p - q).flatten() for p, q in zip(experiment.learner.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.01 * 0.5, rel=1e-4)


def test_compiled_network_has_the_same_names_and_learns_the_same(train, monkeypatch):
    plain, expected = train("trainer.max_epochs=20", "logger=none")
    compile_in_place = torch.nn.Module.compile
    # The default backend needs a C++ compiler and half a minute; this test only needs compilation in place.
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compile_in_place(self, backend="eager"))
    compiled, results = train("trainer.max_epochs=20", "logger=none", "compile=true")
    assert compiled.learner.network._compiled_call_impl is not None
    assert set(compiled.learner.network.state_dict()) == set(plain.learner.network.state_dict())
    assert results["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-6)


def test_deterministic_mode_is_that_of_lightning(build):
    seen = []

    class Look(Callback):
        def on_train_start(self, *_):
            seen.append(torch.are_deterministic_algorithms_enabled())

    experiment = build("trainer.deterministic=true", "trainer.max_epochs=1", "logger=none")
    experiment.trainer.callbacks.append(Look())
    lab.run(experiment)
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()


def snapshot():
    """Return the global state that a program shares with losslab."""
    root, hydra_before = logging.getLogger(), GlobalHydra.instance()
    return {
        "generators": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),  # noqa: NPY002
        "torch": (torch.get_default_dtype(), torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "hydra": (hydra_before, hydra_before.hydra, VersionBase.instance().version_base),
        "resolvers": dict(BaseContainer._resolvers),
        "logging": (root.level, list(root.handlers)),
        "threads": threading.enumerate(),
        "process": (dict(os.environ), list(sys.path), Path.cwd(), [str(each) for each in warnings.filters]),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
    }


@pytest.fixture
def program(monkeypatch, tmp_path):
    """A program that uses Hydra itself, with a resolver that has the name of one of losslab's."""
    monkeypatch.setattr(BaseContainer, "_resolvers", dict(BaseContainer._resolvers))
    OmegaConf.register_new_resolver("better", lambda: "the program's", replace=True)
    (tmp_path / "theirs.yaml").write_text("x: 1")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        yield


def test_threads_use_the_global_state_one_after_the_other():
    numbers = []

    def use(number):
        with global_state():
            numbers.append(number)
            time.sleep(0.01)
            numbers.append(number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(4)))
    assert numbers[::2] == numbers[1::2]


@pytest.mark.usefixtures("program")
def test_programs_keep_their_global_state_and_their_hydra(tmp_path):
    before = snapshot()
    results = []

    def train():
        overrides = ["trainer=cpu", "trainer.max_epochs=2", "trainer.enable_progress_bar=false"]
        options = ["+trainer.benchmark=true", "seed=7"]
        experiment = lab.build(compose([*overrides, *options], str(tmp_path / f"run{len(results)}")))
        random.random()  # noqa: S311
        torch.rand(1)
        results.append(lab.run(experiment) | lab.evaluate(experiment, "test"))

    state = torch.get_rng_state(), random.getstate()
    train()
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    assert snapshot() == before
    assert hydra.compose("theirs") == {"x": 1}
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert results[0] == results[1]
    with pytest.raises(HydraException):
        compose(["nonsense=1"], "unused")
    assert hydra.compose("theirs") == {"x": 1}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss=cross_entropy"], r"takes index or probabilities targets, but these data give values: choose one of"),
        (
            ["data.batch_size=0"],
            "data.batch_size must be 1 or more",
        ),
        (["loss=focal", "loss.gamma=-1"], r"gamma must be a number in \[0, inf\), got -1"),
        (["loss=huber", "loss.delta=0"], "delta must be a number in"),
        (["model=cifar_cnn", "data=line", "loss=mse"], "cifar_cnn needs images"),
        (["model=cifar_cnn", "data=digits", "data.size=20"], "multiples of 8"),
        (
            ["model._target_=torch.nn.Bilinear", "+model.seed=1", "+model.hidden=2"],
            r"model\.seed, model\.hidden: Bilinear has no such argument: .* ~model\.seed ~model\.hidden \(it has in1",
        ),
        (["optimizer._target_=torch.optim.LBFGS"], r"what files set with ~optimizer\.\w+"),
        (["model=mlp", "model.activation=cosine"], r"activation \(relu, gelu"),
        (["trainer.precision=16-mixed"], "16-mixed needs a GPU"),
        (["trainer.precision=17-mixed"], "17-mixed"),
        (["model=mlp", "data=digits", "loss=cross_entropy", "loss.weight=[1,2]"], "got 2 for 10 classes"),
        (["optimizer.lr=-1"], "Invalid learning rate"),
        (["data=image_folder", "data.dir=/nowhere"], "is not a folder"),
        (["data=linear_synthetic", "noise=outliers", "noise.rate=2"], "noise.rate must be a share from 0 to 1, got 2"),
        (["data.batch_size=2.5"], "data.batch_size must be 1 or more"),
        (["data.batch_size=abc"], "data.batch_size must be 1 or more"),
        (["data.seed=abc"], "data.seed must be an integer"),
        (["data=digits", "loss=mse", "data.size=0"], "data.size must be 1 or more pixels"),
        (["loss=huber", "loss.delta=abc"], "delta must be a number in .* got '"),
        (["model=mlp", "model.hidden=5"], "model.hidden must be a list, each item an integer, got 5"),
        (["trainer.check_val_every_n_epoch=0"], "trainer.check_val_every_n_epoch must be a number above 0, got 0"),
        (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val must be a number above 0, got -1"),
        (["trainer.gradient_clip_val=abc"], "trainer.gradient_clip_val must be a number above 0, got 'abc'"),
        (["trainer.accumulate_grad_batches=-1"], "trainer.accumulate_grad_batches must be a number above 0, got -1"),
        (["optimizer.maximize=no"], "optimizer.maximize must be true or false, got 'no'"),
        (["train=off"], "train must be true or false"),
        (["trainer.max_epochs=2.5"], "trainer.max_epochs must be an integer"),
        (["trainer.devices=2"], "set trainer.devices=1"),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/foo"],
            "is not one of train/loss, train/mse",
        ),
    ],
)
def test_wrong_configuration_is_refused_in_one_line(build, overrides, message):
    with pytest.raises(LabError, match=message) as error:
        build(*overrides)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_missing_gpu_is_refused_in_one_line(build):
    with pytest.raises(LabError, match="no such device on this machine; use trainer=cpu"):
        build("trainer=gpu")


def test_run_is_rebuilt_from_its_folder_alone(train):
    experiment, results = train("model=mlp", "data=digits", "loss=focal", "trainer.max_epochs=2")
    folder = RunFolder(experiment.folder.path)
    again = lab.rebuild(folder, folder.read_config())
    weights.load(again.learner, folder.best)
    assert lab.evaluate(again, "test") == {k: v for k, v in results.items() if k.startswith("test/")}


def test_model_sets_defaults_that_the_user_overrides():
    config = compose(["model=cifar_cnn", "data=digits", "loss=focal", "trainer.max_epochs=3"], "unused")
    assert config["choices"] == {
        "model": "cifar_cnn", "data": "digits", "loss": "focal", "mix": None, "imbalance": None, "noise": None,
        "optimizer": "momentum", "scheduler": "one_cycle", "trainer": "default", "experiment": None, "debug": None,
    }  # fmt: skip
    assert config["trainer"]["max_epochs"] == 3
    assert config["data"]["batch_size"] == 128


def test_networks_have_the_documented_number_of_parameters(build):
    def parameters(*overrides: str) -> int:
        return sum(p.numel() for p in build(*overrides).learner.parameters())

    assert parameters("model=linear") == 2
    assert parameters("model=cifar_cnn") == 145_578
    assert parameters("model=resnet18", "data=digits") == 11_173_962


def test_logged_hyperparameters_are_numbers_and_strings():
    table = hyperparameters(compose(["loss=huber", "optimizer=momentum"], "unused"))
    assert table["loss.delta"] == 1.0
    assert table["optimizer.momentum"] == 0.9
    assert not any("_target_" in key for key in table)


def test_option_of_a_callback_that_was_not_chosen_is_refused(tmp_path):
    config = compose(["callbacks=none", "+callbacks.dynamics.draw=false"], run_dir=str(tmp_path))
    with pytest.raises(LabError, match=r"leave it out with ~callbacks\.dynamics"):
        lab.build(config)


@pytest.mark.slow
def test_the_cnn_learns_the_real_cifar_10(train, real_cifar):
    overrides = ["data.verify=false", "data.subset=15000", "trainer.max_epochs=2", "logger=none"]
    _, results = train("model=cifar_cnn", f"data.dir={real_cifar}", *overrides)
    assert results["test/accuracy"] > 0.42


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_cnn_trains_in_every_gpu_precision(train, precision):
    experiment, results = train(
        "trainer=gpu", "model=cifar_cnn", "data=digits", f"trainer.precision={precision}", "trainer.max_epochs=5"
    )
    assert experiment.data.splits["train"].inputs.device.type == "cuda"
    assert results["test/accuracy"] > 0.8


@pytest.mark.gpu
@gpu
def test_gpu_draws_the_numbers_of_a_cpu(train):
    overrides = ("model=mlp", "data=digits", "loss=cross_entropy", "data.crop=2", "trainer.max_epochs=1", "logger=none")
    on_cpu, on_gpu = train("trainer=cpu", *overrides)[1], train("trainer=gpu", *overrides)[1]
    assert on_gpu["train/loss"] == pytest.approx(on_cpu["train/loss"], rel=1e-3)


def test_lightning_adds_no_callbacks_of_its_own(train):
    experiment, _ = train("callbacks=none", "trainer.max_epochs=3", "logger=none")
    assert {path.name for path in experiment.folder.path.iterdir()} == {"config.json", "data.json", "metrics.json"}


def test_checkpoints_can_be_disabled_as_in_lightning(train):
    experiment, _ = train("+trainer.enable_checkpointing=false", "trainer.max_epochs=3")
    assert not experiment.folder.last.exists()
    assert experiment.folder.history.exists()


def test_refused_run_does_not_block_its_folder(build, tmp_path):
    experiment = build("model=cifar_cnn", f"data.dir={tmp_path}", "data.url=http://127.0.0.1:9/nothing")
    for _ in range(2):
        with pytest.raises(LabError, match="cannot download"):
            lab.run(experiment)


def test_second_run_in_the_same_folder_is_refused(train):
    experiment, _ = train("trainer.max_epochs=2")
    with pytest.raises(LabError, match="already contains a run"):
        lab.run(experiment)


def test_run_trained_with_a_debug_preset_is_evaluated_on_all_data(train):
    experiment, _ = train(
        "model=mlp", "data=digits", "loss=cross_entropy", "debug=one_batch", "data.eval_batch_size=10"
    )
    again = lab.rebuild(experiment.folder, experiment.folder.read_config())
    lab.evaluate(again, "test")
    assert again.trainer.num_test_batches == [27]


def test_last_epoch_is_always_validated():
    for epochs, every in ((1000, 10), (15, 5), (7, 1)):
        config = compose([f"trainer.max_epochs={epochs}"], "unused")
        assert config["trainer"]["check_val_every_n_epoch"] == every


@pytest.mark.parametrize("seed", ["-1", "abc", "1.5", "99999999999999"])
def test_invalid_seed_is_refused_in_one_line(build, seed):
    with pytest.raises(LabError, match=r"seed must be an integer"):
        build(f"seed={seed}")


def test_initial_weights_do_not_depend_on_random_draws_of_the_data(build):
    plain = build("data=linear_synthetic", "data.data_seed=0").learner.network.weight
    other = build("data=linear_synthetic", "data.data_seed=1", "loss=huber").learner.network.weight
    assert torch.equal(plain, other)


def test_noise_that_would_give_an_ignored_class_is_refused(build):
    options = ("model=mlp", "data=digits", "loss=focal", "loss.ignore_index=3", "logger=none")
    with pytest.raises(LabError, match="noise: it would change labels to class 3, which the loss ignores"):
        build(*options, "noise=symmetric")
    build(*options, "imbalance=long_tail")

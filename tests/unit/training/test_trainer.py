# ruff: noqa: ARG002 -- hooks have the arguments that Lightning passes
"""Callbacks, strategies and options of Lightning work, or are refused before training in one line."""

import csv
import json

import pytest
import torch
from lightning import Callback
from lightning.pytorch import callbacks as of_lightning
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from quick import sample

from losslab.cli import run
from losslab.errors import LabError
from losslab.training import experiment as lab
from losslab.training import weights
from losslab.training.config import compose

DIGITS = ("model=mlp", "model.hidden=[8]", "data=digits", "data.size=8", "loss=cross_entropy", "trainer.max_epochs=2",
          "trainer.limit_train_batches=3", "logger=none", "examine=false")  # fmt: skip
LIGHTNING = "+callbacks.x._target_=lightning.pytorch.callbacks."
OWN = f"+callbacks.x._target_={__name__}."


class LogsValues(Callback):
    """Logs values in all the ways that Lightning allows."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pl_module.log("train/largest", outputs["loss"], on_step=False, on_epoch=True, reduce_fx="max")
        pl_module.log("both", outputs["loss"], on_step=True, on_epoch=True)
        pl_module.log("train/batch", float(batch_idx))
        if self.stops_at == (trainer.global_step, "step"):
            raise RuntimeError("killed")

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if self.stops_at == (trainer.global_step, "validation"):
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch:
            pl_module.log("from, the second epoch", trainer.current_epoch)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        pl_module.log_dict({"val/auroc": outputs.mean(), "mean output": outputs.mean()})

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        pl_module.log_dict({"test_auroc": outputs.mean(), "mean output": outputs.mean()})

    stops_at = None


class ReplacesTheAccuracy(Callback):
    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("val/accuracy", 1.0)


class LogsColumns(Callback):
    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log_dict({"lr": 5.0, "epoch": 5.0, "epochs": 5.0})


class Halves(Callback):
    """Halves all weights in a hook."""

    def __init__(self, hook):
        setattr(self, hook, self.halve)

    def halve(self, trainer, pl_module, *args):
        for parameter in pl_module.parameters():
            parameter.data.mul_(0.5)


def flip(trainer, pl_module):  # noqa: ARG001
    """Change the sign of all weights, which keeps their norm."""
    for parameter in pl_module.parameters():
        parameter.data.neg_()


class Fails(Callback):
    def on_train_start(self, trainer, pl_module):
        raise ValueError("two\nlines")


class WorseAtTheEnd(Callback):
    """Makes the second validation of each epoch worse than the first."""

    def on_validation_start(self, trainer, pl_module):
        if trainer.global_step % 4 == 0:
            for parameter in pl_module.network.parameters():
                parameter.data.zero_()


def history(experiment):
    with experiment.folder.history.open() as file:
        return list(csv.DictReader(file))


def test_metrics_that_a_callback_logs_are_in_history_and_metrics_json(train):
    experiment, results = train(*DIGITS, f"{OWN}LogsValues")
    first, second = history(experiment)
    names = {"train/largest", "both", "both_epoch", "both_step", "train/batch", "val/auroc", "mean output"}
    assert all(first[name] and second[name] for name in names)
    assert float(second["train/batch"]) == 2
    assert (first["from, the second epoch"], second["from, the second epoch"]) == ("", "1.0")
    assert {*names, "from, the second epoch", "test_auroc", "test/mean output"} <= results.keys()
    best = [first, second][results["best_epoch"] - 1]
    assert all(results[name] == float(best[name]) for name in names)
    assert results["test_auroc"] != results["val/auroc"]
    assert json.loads(experiment.folder.metrics.read_text()) == results


@pytest.mark.parametrize("stops_at", [(5, "step"), (6, "validation")])
def test_resumed_run_has_the_same_logged_metrics(train, tmp_path, monkeypatch, stops_at):
    overrides = (*DIGITS, f"{OWN}LogsValues", "callbacks.checkpoints.every_seconds=0")
    undisturbed, _ = train(*overrides)
    config = compose(["trainer=cpu", "trainer.enable_progress_bar=false", *overrides], str(tmp_path))
    monkeypatch.setattr(LogsValues, "stops_at", stops_at)
    with pytest.raises((LabError, SystemExit)):
        lab.run(lab.build(config))
    monkeypatch.setattr(LogsValues, "stops_at", None)
    resumed = lab.build(config)
    lab.run(resumed, resume=True)
    for file in ("history.csv", "metrics.json"):
        assert (tmp_path / file).read_bytes() == (undisturbed.folder.path / file).read_bytes()


def test_callback_cannot_replace_a_metric_of_losslab(train):
    with pytest.raises(LabError, match=r"^a callback logs val/accuracy, which losslab computes itself: log it under"):
        train(*DIGITS, f"{OWN}ReplacesTheAccuracy")


def test_early_stopping_monitors_a_metric_that_a_callback_logs(build):
    experiment = build(*DIGITS, f"{OWN}LogsValues", "callbacks=early_stopping",
                       "callbacks.early_stopping.monitor=val/auroc")  # fmt: skip
    stopping = next(each for each in experiment.trainer.callbacks if isinstance(each, EarlyStopping))
    assert stopping.mode == "max"
    lab.run(experiment)
    assert stopping.best_score != torch.tensor(-torch.inf)


def test_metric_that_no_callback_logs_is_an_error_of_one_line(train):
    with pytest.raises(LabError, match=r"callback EarlyStopping: .*`val/missing` which is not available.*`val/auroc`"):
        train(*DIGITS, f"{OWN}LogsValues", "callbacks=early_stopping", "+callbacks.early_stopping.mode=max",
              "callbacks.early_stopping.monitor=val/missing")  # fmt: skip


@pytest.mark.parametrize(("monitor", "mode"), [("val/accuracy", "max"), ("val/loss", "min")])
@pytest.mark.parametrize("kind", ["EarlyStopping", "ModelCheckpoint"])
def test_mode_follows_from_the_name_of_the_monitored_metric(build, kind, monitor, mode):
    experiment = build(*DIGITS, f"{LIGHTNING}{kind}", f"+callbacks.x.monitor={monitor}")
    callback = next(each for each in experiment.trainer.callbacks if type(each).__name__ == kind)
    assert callback.mode == mode


def test_unknown_metric_needs_a_mode(build):
    with pytest.raises(LabError, match=r"higher or lower values of val/mine are better is not known: set \+callbacks"):
        build(*DIGITS, f"{OWN}LogsValues", "callbacks=early_stopping", "callbacks.early_stopping.monitor=val/mine")


def test_error_in_a_callback_names_it_in_one_line(train):
    with pytest.raises(LabError, match=r"^callback Fails: \S*test_trainer\.py:\d+, in \w+: ValueError: two lines"):
        train(*DIGITS, f"{OWN}Fails")


REFUSED = {
    "StochasticWeightAveraging": (["swa_lrs=0.1"], "callbacks=ema"),
    "ModelPruning": (["pruning_fn=l1_unstructured"], "torch.nn.utils.prune"),
    "LearningRateFinder": ([], "experiment=tune_lr"),
    "BatchSizeFinder": ([], "-m data.batch_size="),
    "BackboneFinetuning": ([], "BaseFinetuning"),
    "BasePredictionWriter": ([], "losslab predict"),
    "OnExceptionCheckpoint": (["dirpath=/nowhere"], "resume=RUN"),
    "LearningRateMonitor": ([], "logger=tensorboard"),
    "DeviceStatsMonitor": ([], "logger=tensorboard"),
}
USABLE = {
    "Callback": [], "Checkpoint": [], "EMAWeightAveraging": ["decay=0.5"], "GradientAccumulationScheduler": [],
    "EarlyStopping": ["monitor=val/loss"], "LambdaCallback": [], "ModelCheckpoint": ["save_last=true"],
    "ModelSummary": [], "RichModelSummary": [], "RichProgressBar": [], "TQDMProgressBar": [], "SpikeDetection": [],
    "Timer": ["duration=00:00:05:00"], "WeightAveraging": [],
}  # fmt: skip
UNTRIED = {"BaseFinetuning", "ProgressBar", "ThroughputMonitor"}  # to be subclassed, or given a function


EMA = f"{LIGHTNING}EMAWeightAveraging"


def test_two_averages_of_the_weights_are_refused(build):
    with pytest.raises(LabError, match="EMAWeightAveraging and WeightAveraging would change each other's averages"):
        build(*DIGITS, EMA, "+callbacks.y._target_=lightning.pytorch.callbacks.WeightAveraging")


def test_average_that_is_never_updated_is_refused(build):
    experiment = build(*DIGITS, EMA, "+callbacks.x.update_starting_at_step=1000")
    with pytest.raises(LabError, match=r"EMAWeightAveraging averages nothing, because this run has \d+ steps"):
        lab.run(experiment)
    assert not experiment.folder.config.exists()


@pytest.mark.parametrize("argument", ["decay=0.9999", "update_every_n_steps=1000"])
def test_average_that_is_longer_than_the_run_is_reported(train, caplog, argument):
    train(*DIGITS, EMA, f"+callbacks.x.{argument}")
    assert "the average is close to the first weights" in caplog.text


def test_average_that_fits_the_run_is_not_reported(train, caplog):
    train(*DIGITS, EMA, "+callbacks.x.decay=0.5")
    train(*DIGITS, EMA, "+callbacks.x.decay=0.5", "+callbacks.x.update_starting_at_epoch=0")
    assert "average" not in caplog.text


def test_every_callback_of_lightning_is_usable_or_refused():
    assert {*REFUSED, *USABLE, *UNTRIED} == set(of_lightning.__all__)


@pytest.mark.parametrize("kind", REFUSED)
def test_callback_that_does_not_fit_is_refused_with_what_to_use(build, kind):
    arguments, advice = REFUSED[kind]
    with pytest.raises(LabError, match=rf"^callbacks\.x: {kind} ") as error:
        build(*DIGITS, f"{LIGHTNING}{kind}", *(f"+callbacks.x.{argument}" for argument in arguments))
    assert advice in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", sample(USABLE, "EMAWeightAveraging", "GradientAccumulationScheduler"))
def test_results_are_those_of_the_saved_weights_with_every_usable_callback(build, train, kind):
    arguments = [f"+callbacks.x.{argument}" for argument in USABLE[kind]]
    if kind == "GradientAccumulationScheduler":
        arguments = ["+callbacks.x.scheduling={1:2}"]
    experiment, results = train(*DIGITS, f"{LIGHTNING}{kind}", *arguments)
    assert_saved_weights_give(results, experiment, build)


def assert_saved_weights_give(results, experiment, build):
    again = build(*DIGITS, "callbacks=none")
    weights.load(again.learner, experiment.folder.best)
    measured = lab.evaluate(again, "val") | lab.evaluate(again, "test")
    assert {name: results[name] for name in measured} == pytest.approx(measured)


def test_best_values_are_those_of_the_saved_weights_if_a_later_validation_in_the_epoch_is_worse(build, train):
    options = ("trainer.limit_train_batches=4", "+trainer.val_check_interval=0.5", "trainer.max_epochs=1")
    experiment, results = train(*DIGITS, *options, f"{OWN}WorseAtTheEnd")
    assert_saved_weights_give(results, experiment, build)


def test_values_under_the_names_of_other_columns_are_left_out_with_one_line(train, caplog):
    experiment, results = train(*DIGITS, f"{OWN}LogsColumns")
    assert results["epochs"] == 2
    assert not {"lr", "epoch"} & {*results}
    rows = list(csv.DictReader(experiment.folder.history.read_text().splitlines()))
    assert "epochs" not in rows[0]
    assert float(rows[1]["epoch"]) == 2
    assert caplog.text.count("a callback logs epoch: ") == 1


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("on_validation_end", "best.ckpt contains other weights than those of its metrics"),
        ("on_validation_epoch_end", "best.ckpt contains other weights than those of its metrics"),
        ("on_train_end", "after training, which has no effect"),
        ("on_fit_end", "after training, which has no effect"),
        ("on_test_epoch_start", "the weights change before the test"),
    ],
)
def test_callback_that_changes_weights_after_they_were_measured_is_reported_once(train, caplog, hook, message):
    train(*DIGITS, f"{OWN}Halves", f"+callbacks.x.hook={hook}")
    assert caplog.text.count("callbacks (Halves): ") == 1
    assert message in caplog.text


def test_function_of_a_lambda_callback_that_changes_weights_is_reported(train, caplog):
    function = f"{{_target_: hydra.utils.get_method, path: {__name__}.flip}}"
    train(*DIGITS, f"{LIGHTNING}LambdaCallback", f"+callbacks.x.on_validation_end={function}")
    assert "callbacks (LambdaCallback): the weights change after they were validated" in caplog.text


class ChangesStatistics(Callback):
    def on_validation_end(self, trainer, pl_module):
        pl_module.network[-1].running_mean.add_(1)


def test_callback_that_changes_buffers_after_validation_is_reported(build, caplog):
    experiment = build(*DIGITS, f"{OWN}ChangesStatistics")
    experiment.learner.network.append(torch.nn.BatchNorm1d(10))
    lab.run(experiment)
    assert "callbacks (ChangesStatistics): the weights change after they were validated" in caplog.text


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_epoch_end", "on_train_start", "on_test_end"])
def test_callback_that_changes_weights_before_they_are_measured_is_not_reported(train, caplog, hook):
    train(*DIGITS, f"{OWN}Halves", f"+callbacks.x.hook={hook}", "+callbacks.y._target_=lightning.pytorch.callbacks."
          "EMAWeightAveraging", "+callbacks.y.decay=0.5")  # fmt: skip
    assert "callbacks (" not in caplog.text


def test_model_checkpoint_does_not_write_into_the_folder_of_last_ckpt(train, build):
    experiment, _ = train(*DIGITS, f"{LIGHTNING}ModelCheckpoint", "+callbacks.x.save_last=true")
    other = next(each for each in experiment.trainer.callbacks if type(each) is ModelCheckpoint)
    assert other.dirpath == str(experiment.folder.last.parent / "x")
    with pytest.raises(LabError, match=r"callbacks\.x\.dirpath: losslab writes"):
        build(*DIGITS, f"{LIGHTNING}ModelCheckpoint", "+callbacks.x.dirpath=${run_dir}/checkpoints")


def test_progress_bar_of_the_user_replaces_the_default(build):
    experiment = build(*DIGITS, f"{LIGHTNING}RichProgressBar", "trainer.enable_progress_bar=true")
    assert isinstance(experiment.trainer.progress_bar_callback, RichProgressBar)


def test_run_that_ends_before_the_first_step_is_an_error(train):
    with pytest.raises(LabError, match=r"^training ended before the first step: "):
        train(*DIGITS, "+trainer.max_time=00:00:00:00")


@pytest.mark.parametrize(
    ("option", "advice"),
    [("callbacks=[{}]", "callbacks=NAME"), ("logger=true", "logger=NAME"), ("default_root_dir=x", "run_dir=FOLDER")],
)
def test_argument_of_the_trainer_that_losslab_sets_is_refused(build, option, advice):
    with pytest.raises(LabError, match=rf"^trainer\.{option.partition('=')[0]} has no effect: .*{advice}"):
        build(*DIGITS, f"+trainer.{option}")


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ("MixedPrecision,precision:bf16-mixed,device:cpu", "set trainer.precision=null"),
        ("AsyncCheckpointIO", "has no effect"),
        ("environments.SLURMEnvironment", "leave SLURMEnvironment out"),
    ],
)
def test_plugin_without_effect_is_refused(build, plugin, message):
    with pytest.raises(LabError, match=message):
        build(*DIGITS, f"+trainer.plugins=[{{_target_:lightning.pytorch.plugins.{plugin}}}]")


def test_optimized_metric_may_be_one_that_a_callback_logs(tmp_path):
    options = ["trainer=cpu", "trainer.enable_progress_bar=false", *DIGITS, f"{OWN}LogsValues"]
    value = run.run(compose([*options, "optimized_metric=val/auroc"], str(tmp_path / "a")))
    assert value == json.loads((tmp_path / "a" / "metrics.json").read_text())["val/auroc"]
    with pytest.raises(
        LabError, match=r"optimized_metric=val/missing is not among the results of this run: .*val/auroc"
    ):
        run.run(compose([*options, "optimized_metric=val/missing"], str(tmp_path / "b")))
    with pytest.raises(LabError, match=r"optimized_metric=val/missing is not one of train/loss"):  # before training
        run.run(compose([*options[:-1], "optimized_metric=val/missing"], str(tmp_path / "c")))

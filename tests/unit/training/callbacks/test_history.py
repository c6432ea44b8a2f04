import csv
import errno
import json
import math

import pytest
from PIL import Image

from losslab.runs import RunFolder
from losslab.training.callbacks import history
from losslab.training.callbacks.disk import BestEffortWriter
from losslab.training.callbacks.history import CsvTable, plot_curves


def rows(experiment):
    with experiment.folder.history.open() as file:
        return list(csv.DictReader(file))


def test_each_epoch_has_a_row_with_its_own_values(train):
    experiment, _ = train("trainer.max_epochs=7", "trainer.check_val_every_n_epoch=3")
    written = rows(experiment)
    assert [row["epoch"] for row in written] == [str(n) for n in range(1, 8)]
    assert [row["val/mse"] != "" for row in written] == [False, False, True, False, False, True, False]
    assert all(row["train/loss"] for row in written)


def test_repeated_run_writes_the_same_bytes(train):
    first, _ = train("model=mlp", "data=diabetes", "trainer.max_epochs=5")
    second, _ = train("model=mlp", "data=diabetes", "trainer.max_epochs=5")
    other, _ = train("model=mlp", "data=diabetes", "trainer.max_epochs=5", "seed=1")
    assert first.folder.history.read_bytes() == second.folder.history.read_bytes()
    assert first.folder.metrics.read_bytes() == second.folder.metrics.read_bytes()
    assert first.folder.history.read_bytes() != other.folder.history.read_bytes()


def test_wall_times_are_in_a_separate_file(train):
    experiment, _ = train("trainer.max_epochs=3")
    with experiment.folder.timing.open() as file:
        timed = list(csv.DictReader(file))
    assert [row["epoch"] for row in timed] == ["1", "2", "3"]
    assert all(float(row["seconds"]) >= 0 for row in timed)


def test_runs_with_two_losses_and_the_same_seed_have_the_same_weights_and_batches(train):
    still = ("model=mlp", "data=diabetes", "trainer.max_epochs=1", "optimizer.lr=0", "examine=false")
    mse, _ = train("loss=mse", *still)
    l1, _ = train("loss=l1", *still)
    assert rows(mse)[0]["train/mse"] == rows(l1)[0]["train/mse"]


def test_metrics_json_contains_the_results(train):
    experiment, results = train("trainer.max_epochs=20")
    assert json.loads(experiment.folder.metrics.read_text()) == results
    assert {"epochs", "best_epoch", "train/loss", "val/mse", "test/mse", "test/r2"} <= set(results)


def test_new_column_is_added_to_the_table_as_soon_as_there_is_space(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    table = CsvTable(folder.history, ["epoch"], [{"epoch": 1}, {"epoch": 2, "b": 5}], BestEffortWriter(folder))
    table.add({"epoch": 3, "b": 6})
    monkeypatch.setattr(history, "write_csv", fail)
    table.add({"epoch": 4, "a": 7})
    monkeypatch.undo()
    table.add({"epoch": 5, "a, c": 8})
    table.close()
    assert folder.history.read_text() == 'epoch,b,a,"a, c"\n1,,,\n2,5,,\n3,6,,\n4,,7,\n5,,,8\n'


def fail(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_curves_are_png_files(train):
    experiment, _ = train("trainer.max_epochs=20")
    for name in ("loss", "mse"):
        with Image.open(experiment.folder.figures / f"{name}_curve.png") as image:
            assert image.size == (768, 480)


def test_loss_curve_has_labels_and_both_splits():
    points = [{"epoch": n, "train/loss": 1 / n, "val/loss": 2 / n} for n in range(1, 4)]
    axes = plot_curves(points, "loss", "a title").axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("Epochs", "Loss", "a title")
    assert [line.get_label() for line in axes.get_lines()] == ["training", "validation"]
    assert axes.get_lines()[1].get_ydata().tolist() == pytest.approx([2, 1, 2 / 3])


def test_run_without_validation_has_a_curve(train):
    experiment, results = train("trainer.max_epochs=5", "trainer.limit_val_batches=0")
    assert experiment.folder.figures.joinpath("loss_curve.png").is_file()
    assert "best_epoch" not in results
    assert "test/mse" in results


def test_lr_column_has_the_rate_at_the_start_of_each_epoch(train):
    experiment, _ = train(
        "scheduler=step", "scheduler.scheduler.step_size=1", "optimizer.lr=1e-3", "trainer.max_epochs=3"
    )
    assert [float(row["lr"]) for row in rows(experiment)] == pytest.approx([1e-3, 1e-4, 1e-5])


def test_undefined_r2_of_one_validation_example_is_null(train):
    experiment, results = train("data=linear_synthetic", "data.n=1", "trainer.max_epochs=10")
    assert math.isnan(results["val/r2"])
    assert json.loads(experiment.folder.metrics.read_text())["val/r2"] is None

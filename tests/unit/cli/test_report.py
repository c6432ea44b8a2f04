"""The output at the end of a run."""

import logging

import pytest

from losslab.cli import report


@pytest.mark.parametrize(
    ("data", "loss", "shown"),
    [
        ("linear_synthetic", "mse", True),
        ("linear_synthetic", "gaussian_nll", True),
        ("counts", "mse", True),
        ("counts", "poisson_nll", False),
    ],
)
def test_weights_are_compared_with_least_squares_only_if_outputs_are_the_predicted_values(
    build, caplog, data, loss, shown
):
    experiment = build("model=linear", f"data={data}", f"loss={loss}")
    experiment.data.setup()
    with caplog.at_level(logging.INFO):
        report._log_weights(experiment)
    assert ("least squares" in caplog.text) == shown


def test_the_header_names_what_is_made_and_the_settings_that_differ_from_the_files(build, caplog):
    experiment = build(
        "model=mlp", "model.hidden=[8]", "data=digits", "data.size=8", "mix=mixup", "loss=smoothed",
        "loss@loss.loss=focal", "optimizer=nesterov", "optimizer.nesterov=false", "scheduler=step",
        "scheduler.scheduler.gamma=0.5",
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        report.log_header(experiment)
    lines = dict(line.split(None, 1) for line in caplog.messages)
    assert lines["model"].startswith("mlp, hidden [8], ")
    assert lines["data"].startswith("digits, size 8, inputs of 3×8×8")
    assert lines["mix"].startswith("mixup, ")
    assert lines["loss"].startswith("Smoothed+Focal, ")
    assert "nesterov False" in lines["optimizer"]
    assert lines["optimizer"].endswith(", step schedule, gamma 0.5")


def test_metrics_of_callbacks_are_in_the_table(caplog):
    caplog.set_level("INFO")
    results = {"epochs": 2, "val/loss": 0.5, "test/loss": 0.25, "auroc": 0.125, "test/auroc": 0.0625, "my/value": 3.0}
    report.log_metrics(results, {"train": 9, "val": 1234, "test": 5})
    rows = [line.split() for line in caplog.messages[-1].strip().splitlines()]
    assert rows[0] == ["metric", "val", "test", "logged"]
    assert rows[2:] == [
        ["examples", "1,234", "5"],
        ["loss", "0.5000", "0.2500"],
        ["auroc", "0.0625", "0.1250"],
        ["my/value", "3.0000"],
    ]


def test_the_examples_are_those_that_were_measured(build):
    experiment = build("model=mlp", "data=digits", "trainer.limit_test_batches=2", "data.eval_batch_size=100")
    experiment.data.setup()
    counts = {split: report._count_examples(experiment, split) for split in ("train", "val", "test")}
    assert counts == {"train": 1257, "val": 270, "test": 200}
    experiment.data.val_split = "train"
    assert report._count_examples(experiment, "val") == 1257

"""The command `losslab check`, in a new process."""

from pathlib import Path

import pytest
from processes import VERB, python


def check(*arguments: str, cwd: Path):
    return python(*VERB, "check", *arguments, cwd=cwd, COLUMNS="200")


def test_an_experiment_without_problems_is_reported_and_nothing_is_written(tmp_path):
    done = check("model=cifar_cnn", "data=digits", "loss=focal", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cifar_cnn, 145,578 parameters" in done.stdout
    assert "inputs (128, 3, 32, 32)" in done.stdout
    assert done.stdout.endswith("nothing found\n")
    assert not list(tmp_path.iterdir())


def test_a_warning_exits_with_0(tmp_path):
    done = check("optimizer.lr=0.5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning learning-rate-too-high" in done.stdout


def test_an_error_exits_with_1(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net(input_shape, outputs):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, outputs), nn.Softmax(1))\n"
    )
    model = ["model=mlp", "~model.hidden", "~model.activation", "~model.gain", "model._target_=mine.net"]
    done = check(*model, "data=digits", "loss=cross_entropy", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "error softmax-in-network" in done.stdout
    assert "Softmax (layer 2)" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loss=cross_entropy"], "choose one of loss="),
        pytest.param(["data=image_folder"], "a value is missing: add data.dir=...", marks=pytest.mark.slow),
    ],
)
def test_an_experiment_that_cannot_be_built_is_reported_in_one_line(tmp_path, arguments, message):
    done = check(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_has_examples(tmp_path):
    done = check("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "losslab check model=cifar_cnn" in done.stdout

"""Explanation `dynamics`: its figures, and what it rejects."""

import json
import logging
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from losslab.analysis.explain import EXPLANATIONS
from losslab.analysis.explain.dynamics import explain
from losslab.errors import LabError
from losslab.runs import RunFolder


@pytest.fixture(scope="module")
def runs(train):
    overrides = ("model=mlp", "data=digits", "data.size=8", "logger=none", "callbacks=dynamics", "test=false")
    overrides += (
        "callbacks.dynamics.draw=false",
        "callbacks.dynamics.examples=100",
        "examine=false",
        "data.batch_size=200",
    )
    return [train(*overrides, f"loss={loss}", "trainer.max_epochs=2")[0].folder for loss in ("cross_entropy", "focal")]


def test_figures_of_one_run_are_written_to_its_folder_and_findings_logged(runs, caplog):
    with caplog.at_level(logging.INFO):
        written = explain(runs[:1], None)
    assert {path.name for path in written} == {
        f"dynamics_{name}.png" for name in ("loss", "margin", "gradient", "layers")
    }
    assert {path.parent for path in written} == {runs[0].figures}
    assert len(caplog.messages) == 4
    assert any("the gradient reaches all layers" in message for message in caplog.messages)
    for path in written:
        with Image.open(path) as image:
            assert image.width > 500


def test_several_runs_are_drawn_side_by_side_into_the_output_folder(runs, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        written = explain(runs, tmp_path / "new")
    assert {path.parent for path in written} == {tmp_path / "new"}
    assert any("cross_entropy: " in message for message in caplog.messages)
    assert any("focal: " in message for message in caplog.messages)


def test_a_run_without_a_record_is_rejected_with_the_override_to_record_one(runs, tmp_path):
    config = runs[0].read_config()
    config["callbacks"] = {"history": {}, "ema": {"decay": 0.9}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LabError, match=re.escape("train it again with 'callbacks=[ema,dynamics]'")):
        explain([RunFolder(tmp_path)], None)
    config["callbacks"] = {"history": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(LabError, match=re.escape("contains no dynamics.npz: train it again with callbacks=dynamics")):
        explain([runs[0], RunFolder(tmp_path)], tmp_path)


def test_several_runs_without_output_and_too_many_runs_are_rejected(runs, tmp_path):
    with pytest.raises(LabError, match="name one with --output"):
        explain(runs, None)
    with pytest.raises(LabError, match="7 runs do not fit side by side: name at most 6 runs"):
        explain([runs[0]] * 7, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": np.array("nope")},
        {"task": np.array(99)},
        {"layers": np.array("x")},
        {"line": np.array("x")},
        {"index": np.array([0])},
        {"epoch": np.array([0])},
        {"loss": np.zeros((1, 3), np.float32)},
        {"outputs": np.array("x")},
        {"flow": np.zeros((3, 0), np.float32)},
        {"corrupted": np.zeros(3)},
    ],
    ids=str,
)
def test_a_record_with_invalid_arrays_is_rejected_in_one_line(runs, tmp_path, changes):
    folder = RunFolder(shutil.copytree(runs[0].path, tmp_path / "run"))
    with np.load(folder.dynamics) as held:
        arrays = dict(held)
    np.savez(folder.dynamics, **arrays | changes)
    with pytest.raises(LabError, match=r"cannot read .*dynamics.npz \(its .*\): train the run again") as error:
        explain([folder], None)
    assert "\n" not in str(error.value)


def test_explanation_of_dynamics_applies_to_runs_that_record_and_imports_no_torch(runs):
    applies = EXPLANATIONS["dynamics"].applies
    assert applies(runs[0].read_config())
    assert not applies({"callbacks": {"history": {}}})
    assert not applies({"callbacks": None})
    code = "import sys, losslab.analysis.explain.dynamics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Evaluation in several processes gives the result of one."""

import os
import shutil
import subprocess
import sys

import pytest

from losslab.analysis.evaluate import evaluation
from losslab.training.reopen import EvaluationRequest


def evaluate(run, *options, code=0):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "losslab.cli", "evaluate", str(run), *options],
        capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_write_the_same_files_as_one(world, runs, evaluated, content, tmp_path):
    done = evaluate(runs("exact"), "--devices", str(world), "--output", str(tmp_path / "out"))
    one = {path.name: path.read_bytes() for path in evaluated("exact").iterdir()}
    several = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert several.keys() == one.keys()
    # Sums of a layer may differ in the sixteenth digit, which only this file shows.
    values = [content(path / "measures.json") for path in (evaluated("exact"), tmp_path / "out")]
    assert values[0].pop("classes").keys() == values[1].pop("classes").keys()
    assert values[1] == pytest.approx(values[0], rel=1e-12)
    assert [name for name in one if one[name] != several[name] and name != "measures.json"] == []
    assert f"{world} processes" in done.stdout
    assert done.stdout.count("accuracy  ") == 2  # printed once: in the table, and in the report
    assert (evaluated("exact") / "report.txt").read_text().rstrip() in done.stdout


def test_two_processes_fit_the_temperature_of_one(runs, content, tmp_path):
    evaluate(runs("exact"), "--calibrate", "temperature", "--devices", "2", "--output", str(tmp_path / "out"))
    two = content(tmp_path / "out" / "measures.json")
    one = evaluation.evaluate(EvaluationRequest(runs("exact")), calibration_method="temperature").calibrated
    assert two["calibration"]["temperature"] == pytest.approx(one.calibration.temperature, rel=1e-9)
    assert two["calibration"]["fit"]["examples"] == one.fit.examples == 270
    assert {name: two["calibrated"][name] for name in one.values} == pytest.approx(one.values, rel=1e-9)


@pytest.mark.slow
def test_an_error_in_several_processes_is_one_line(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs("exact"), run, ignore=shutil.ignore_patterns("evaluation"))
    for checkpoint in (run / "checkpoints").iterdir():
        checkpoint.write_bytes(b"damaged")
    done = evaluate(run, "--devices", "2", code=1)
    assert len(done.stderr.splitlines()) == 1
    assert "is damaged (SHA-256 mismatch with" in done.stderr
    assert not (run / "evaluation").exists()

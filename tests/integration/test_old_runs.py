"""Run folders of version 0.1, whose modules had other names, are evaluated, compared, explained and resumed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from losslab.analysis.compare import compare
from losslab.analysis.evaluate.evaluation import evaluate
from losslab.analysis.explain import linear
from losslab.runs import RunFolder
from losslab.runs.resume_checkpoint import find_resume_point
from losslab.training.reopen import EvaluationRequest

ROOT = Path(__file__).parents[2]
OLD_RUNS = Path(__file__).parent / "old_runs"
UNDISTURBED = json.loads((OLD_RUNS / "undisturbed.json").read_text())


@pytest.fixture
def old_run(tmp_path):
    """Copy a run folder, as all that is done with it may write into it."""
    return lambda name: RunFolder(Path(shutil.copytree(OLD_RUNS / name, tmp_path / name)))


def metrics_of(run):
    return json.loads(run.metrics.read_text())


@pytest.mark.parametrize("name", ["finished", "sweep/0-mlp-diabetes-mse-s0"])
def test_evaluation_gives_the_final_metrics(name, old_run):
    run = old_run(name)
    values = evaluate(EvaluationRequest(run.path)).values
    expected = {metric: value for metric, value in metrics_of(run).items() if metric.startswith("test/")}
    assert {metric: values[metric] for metric in expected} == pytest.approx(expected, rel=1e-5)


def test_old_run_is_in_the_group_of_a_new_run_with_the_same_settings(old_run, train, tmp_path):
    train("loss=mse", "model=linear", "trainer.max_epochs=40")[0].folder.path.rename(tmp_path / "new")
    old_run("finished")
    comparison = compare([tmp_path / "finished", tmp_path / "new"])
    (group,) = comparison.groups
    assert len(group.runs) + len(group.repeated) == 2


def test_sweep_is_compared(old_run, tmp_path):
    old_run("sweep")
    comparison = compare([tmp_path / "sweep"])
    finished = {run.folder.path.name: run.metrics["test/mse"] for group in comparison.groups for run in group.runs}
    assert finished == {
        name: pytest.approx(UNDISTURBED[f"sweep/{name}"]["test/mse"])
        for name in ("0-mlp-diabetes-mse-s0", "1-mlp-diabetes-mse-s1")
    }


def test_trajectory_of_weights_is_explained(old_run, caplog):
    run = old_run("finished")
    caplog.set_level("INFO")
    figures = linear.explain([run], None)
    assert all(figure.is_file() for figure in figures)
    assert figures[0].parent == run.figures


def test_interrupted_run_has_a_resume_point(old_run):
    assert find_resume_point(old_run("interrupted")).step == 604


@pytest.mark.slow
def test_interrupted_run_resumes_and_ends_as_if_undisturbed(old_run, tmp_path):
    run = old_run("interrupted")
    rows = run.history.read_text().splitlines()
    command = [sys.executable, str(ROOT / "train.py"), "resume=interrupted", "trainer.enable_progress_bar=false"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300, capture_output=True)
    assert metrics_of(run) == pytest.approx(UNDISTURBED["interrupted"], rel=1e-5)
    resumed = run.history.read_text().splitlines()
    assert resumed[: len(rows)] == rows
    assert [int(row.split(",")[0]) for row in resumed[1:]] == [*range(1, 401)]
    assert len(run.weight_trajectory.read_text().splitlines()) == 402  # a header, the first weights, each epoch

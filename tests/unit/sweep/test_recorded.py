"""Completing a sweep from the job configurations recorded in its folder."""

import json

import folders
import pytest

from losslab import runs
from losslab.errors import LabError
from losslab.sweep import recorded
from losslab.sweep.resume import take_over
from losslab.sweep.state import Sweep
from losslab.training.config import ProcessContext


@pytest.fixture
def completed(monkeypatch):
    """A function that prepares a sweep for completion in this process without starting jobs, and returns the sweep."""

    def complete(folder, **changes):
        started = []

        def run_jobs(sweep, jobs, prepare, existing, _):
            take_over(existing, jobs, sweep, prepare)
            started.append(sweep)

        monkeypatch.setattr(recorded, "run_jobs", run_jobs)
        monkeypatch.setattr(recorded.spawn, "run_in_subprocess", lambda task, *arguments: task(*arguments))
        monkeypatch.setattr(recorded.spawn, "process_context", lambda: None)
        recorded.complete(folder, print, ProcessContext(), changes=changes)
        return started[0]

    return complete


def config(folder, seed):
    return folders.config("mse", seed, str(folder), loss___target_="losslab.losses.mse.MSE", optimized_metric=None)


@pytest.fixture
def sweep(tmp_path):
    """A sweep of three jobs: the first is finished, the second has started, the third has not."""
    made = Sweep(tmp_path, ["-m", "seed=0,1,2", "run_dir=old"], n_jobs=2)
    for job in made.add([["seed=0"], ["seed=1"], ["seed=2"]], 0):
        folder = tmp_path / f"{job.number}-run"
        job.config = config(folder, job.number)
        if job.number < 2:
            folders.run(folder, "mse", job.number, metrics=None if job.number == 0 else False,
                        loss___target_="losslab.losses.mse.MSE", optimized_metric=None)  # fmt: skip
    made.write_jobs()
    made.write()
    return tmp_path


def test_a_sweep_is_completed_from_the_configurations_of_its_jobs(sweep, completed):
    again = completed(sweep)
    assert (again.command, again.n_jobs) == (["-m", "seed=0,1,2", "run_dir=old"], 2)
    assert [(job.number, job.label, job.reused, job.resumes) for job in again.jobs] == [
        (0, "seed=0", True, False), (1, "seed=1", False, True), (2, "seed=2", False, False),
    ]  # fmt: skip
    assert [job.task.log for job in again.jobs] == [sweep / f"{number}-run" / "train.log" for number in range(3)]
    assert again.jobs[2].task.arguments()[0] == config(sweep / "2-run", 2) | {"trust": []}


def test_a_moved_sweep_is_completed_in_its_new_folder(sweep, completed, tmp_path_factory):
    moved = tmp_path_factory.mktemp("moved") / "sweep"
    sweep.rename(moved)
    again = completed(moved)
    assert [job.reused for job in again.jobs] == [True, False, False]
    assert again.jobs[2].config == config(moved / "2-run", 2) | {"trust": []}


def test_settings_that_change_no_result_may_be_changed(sweep, completed):
    again = completed(sweep, **{"data.dir": "/there", "data.workers": "3", "hydra.launcher.n_jobs": "4"})
    assert again.n_jobs == 4
    assert [(job.config["data"]["dir"], job.config["data"]["workers"]) for job in again.jobs] == [("/there", 3)] * 3
    assert [job.reused for job in again.jobs] == [True, False, False]


def test_a_job_that_could_not_be_composed_fails_again_for_the_same_reason(sweep, completed):
    content = json.loads((sweep / runs.JOBS).read_text())
    content["jobs"][2] |= {"config": None, "folder": None, "reason": "seed must be an integer"}
    (sweep / runs.JOBS).write_text(json.dumps(content))
    job = completed(sweep).jobs[2]
    assert (job.task, job.reason) == (None, "seed must be an integer")


def test_a_job_whose_folder_contains_another_run_gets_a_new_folder(sweep, completed):
    folders.run(sweep / "2-run", "mse", 9, metrics=False, loss___target_="losslab.losses.mse.MSE")
    job = completed(sweep).jobs[2]
    assert (job.number, job.config["run_dir"]) == (3, str(sweep / "3-run"))
    assert job.config["callbacks"]["history"]["run_dir"] == str(sweep / "3-run")


def test_completing_a_search_is_refused_with_the_command_that_continues_it(sweep, completed, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    content = json.loads((sweep / runs.JOBS).read_text())
    (sweep / runs.JOBS).write_text(json.dumps(content | {"all_known": False}))
    with pytest.raises(LabError, match=r"is a search, .*python train.py -m seed=0,1,2 run_dir=") as refused:
        completed(sweep)
    assert "\n" not in str(refused.value)


def test_a_sweep_without_recorded_configurations_is_completed_from_its_runs(sweep, completed):
    (sweep / runs.JOBS).unlink()
    folders.run(sweep / "2-run", "mse", 2, metrics=False, loss___target_="losslab.losses.mse.MSE")
    folders.summary(sweep, {"folder": "0-run"}, {"folder": "1-run"}, {"folder": "2-run", "state": "interrupted"})
    content = json.loads((sweep / runs.SUMMARY).read_text())
    (sweep / runs.SUMMARY).write_text(json.dumps(content | {"command": ["-m", "hydra.launcher.n_jobs=3"]}))
    again = completed(sweep)
    assert again.n_jobs == 3
    assert [(job.reused, job.resumes) for job in again.jobs] == [(True, False), (False, True), (False, True)]


def test_a_job_without_a_configuration_is_refused_with_the_command_of_the_sweep(sweep, completed, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.chdir(sweep.parent)
    (sweep / runs.JOBS).unlink()
    again = rf"1 of 3 jobs never started, .*: python train.py -m seed=0,1,2 run_dir={sweep.name}$"
    folders.summary(sweep, {"folder": "0-run"}, {"folder": "1-run"}, {"state": "interrupted"})
    content = json.loads((sweep / runs.SUMMARY).read_text())
    (sweep / runs.SUMMARY).write_text(json.dumps(content | {"command": ["-m", "seed=0,1,2", "run_dir=old"]}))
    with pytest.raises(LabError, match=again):
        completed(sweep)


def test_a_sweep_that_had_not_started_must_be_started_again(tmp_path, completed):
    (tmp_path / runs.SUMMARY).touch()
    with pytest.raises(LabError, match="delete it and start the sweep again"):
        completed(tmp_path)


def test_a_sweep_without_a_recorded_command_is_refused(tmp_path, completed):
    (tmp_path / runs.SUMMARY).write_text('{"jobs": []}')
    with pytest.raises(LabError, match="does not record the command of the sweep: type it again with run_dir="):
        completed(tmp_path)


def test_only_the_folder_of_a_sweep_is_recognised_as_a_sweep(sweep):
    assert recorded.is_sweep(sweep)
    assert not recorded.is_sweep(sweep / "0-run")
    assert not recorded.is_sweep(sweep / "nothing")


@pytest.mark.parametrize(("typed", "path"), [("a #b: c", "a #b: c"), ("'a b'", "a b"), ("1e3", "1e3"), ("null", None)])
def test_the_folder_of_the_data_is_taken_as_typed(typed, path):
    config = {"data": {"dir": "old"}}
    recorded.change(config, {"data.dir": typed})
    assert config["data"]["dir"] == path

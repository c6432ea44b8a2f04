"""The job configurations in the folder of a sweep are checked like the configuration of a run."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import folders
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from configurations import ALL, filled, node

from losslab import runs
from losslab.cli import train as command
from losslab.errors import LabError
from losslab.sweep import recorded
from losslab.sweep.resume import take_over
from losslab.sweep.state import Sweep
from losslab.training.config import ProcessContext, compose

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sweep(tmp_path):
    """A sweep with one job that did not start, next to a folder that must stay empty."""
    folder = tmp_path / "here" / "sweep"
    folder.mkdir(parents=True)
    (tmp_path / "here" / "victim").mkdir()
    record(folder, job(folder))
    return folder


def job(sweep, **values):
    path = str(sweep / "0-run")
    config = folders.config(path=path, loss___target_="losslab.losses.mse.MSE", ckpt_path=None, **values)
    return {"job": 0, "overrides": [], "folder": "0-run", "config": config, "reason": None}


def record(folder, *jobs, **content):
    (folder / runs.JOBS).write_text(json.dumps({"all_known": True, "n_jobs": None, "jobs": jobs} | content))
    (folder / runs.SUMMARY).write_text(json.dumps({"command": ["-m"], "jobs": []}))


@pytest.fixture
def complete(monkeypatch):
    """A function that completes a sweep up to the start of its jobs, in this process."""

    def run_jobs(sweep, jobs, prepare, existing, _):
        take_over(existing, jobs, sweep, prepare)

    monkeypatch.setattr(recorded, "run_jobs", run_jobs)
    monkeypatch.setattr(recorded.spawn, "run_in_subprocess", lambda task, *arguments: task(*arguments))
    monkeypatch.setattr(recorded.spawn, "process_context", lambda: None)
    monkeypatch.setattr(Sweep, "lock", lambda _: None)  # a refusal ends the process, and with it the lock

    def complete(folder, *trusted):
        recorded.complete(folder, print, ProcessContext(), changes={}, trusted=trusted)

    return complete


def refused(complete, sweep):
    with pytest.raises(LabError) as error:
        complete(sweep)
    assert "\n" not in str(error.value)
    assert {path.name for path in sweep.parent.iterdir()} == {"sweep", "victim"}
    assert not [*(sweep.parent / "victim").iterdir()]
    return str(error.value)


def test_a_harmless_job_is_not_refused(sweep, complete):
    complete(sweep)


@pytest.mark.parametrize("name", ALL)
def test_a_target_outside_the_list_is_neither_called_nor_imported(name, sweep, complete, tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    (sweep / "hostile_module.py").write_text(f"open({str(canary)!r}, 'w')\nanything = list\n")
    monkeypatch.chdir(sweep)
    monkeypatch.syspath_prepend(sweep)
    record(sweep, job(sweep, unheard_of=filled(ALL[name], str(canary)), trust=["os", "builtins", "hostile_module"]))
    assert "unheard_of" in refused(complete, sweep)
    assert not canary.exists()
    assert "hostile_module" not in sys.modules


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("callbacks__mine", node("lightning.pytorch.callbacks.ModelCheckpoint", dirpath="/")),
        ("callbacks__mine", node("lightning.pytorch.callbacks.ModelCheckpoint", filename="../../x")),
        ("callbacks__mine", node("lightning.pytorch.callbacks.SpikeDetection")),
        ("callbacks__history__run_dir", ".."),
        ("callbacks__history__run_dir", "../victim"),
        ("logger__mine", node("lightning.pytorch.loggers.CSVLogger", save_dir="~/.config")),
    ],
)
def test_a_job_writes_into_its_folder_alone(key, value, sweep, complete):
    record(sweep, job(sweep, **{key: value}))
    assert "nothing was instantiated" in refused(complete, sweep)


@pytest.mark.parametrize("name", ["../victim", "a/b", "/somewhere", "..", ".", "", "a\0b", None, 3, "${oc.env:HOME}"])
def test_the_folder_of_a_job_must_be_in_the_sweep(name, sweep, complete):
    record(sweep, job(sweep) | {"folder": name})
    message = refused(complete, sweep)
    assert "not in the sweep" in message or "is not a folder in" in message or "contains an interpolation" in message


@pytest.mark.parametrize("group", ["0", "../victim", -1, 1.5, True, [0], {}])
def test_the_group_of_a_job_is_a_number(group, sweep, complete):
    record(sweep, job(sweep) | {"group": group})
    assert "the group of job 0 is not an integer ≥ 0" in refused(complete, sweep)


@pytest.mark.parametrize("place", ["fused", "fused/0", "fused/0/checkpoints", "fused/0/train.log", "pipe"])
def test_links_and_pipes_in_the_folders_of_groups_are_refused(place, sweep, complete):
    record(sweep, job(sweep) | {"group": 0})
    path = sweep / ("fused/0/checkpoints/last.ckpt" if place == "pipe" else place)
    path.parent.mkdir(parents=True, exist_ok=True)
    if place == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(sweep.parent / "victim")
    message = refused(complete, sweep)
    assert "is a symbolic link" in message or "a pipe" in message


@pytest.mark.parametrize("place", ["folder", "inside", "beside", "pipe", "log"])
def test_links_and_pipes_are_refused(place, sweep, complete):
    victim, folder = sweep.parent / "victim", sweep / "0-run"
    if place == "folder":
        folder.symlink_to(victim)
    elif place == "beside":
        (sweep / "multirun.yaml").symlink_to(victim / "new")
    else:
        folder.mkdir()
        if place == "pipe":
            os.mkfifo(folder / "history.csv")
        else:
            (folder / {"inside": ".hydra", "log": "train.log"}[place]).symlink_to(victim / "new")
    message = refused(complete, sweep)
    assert "is a symbolic link" in message or "is not a folder in" in message or "a pipe" in message


def test_a_run_in_another_folder_of_the_sweep_is_checked_too(sweep, complete):
    other = folders.run(sweep / "7-run", metrics=False, loss___target_="losslab.losses.mse.MSE", ckpt_path=None)
    (other / "checkpoints").symlink_to(sweep.parent / "victim")
    assert "checkpoints is a symbolic link" in refused(complete, sweep)


@pytest.mark.parametrize(
    "change",
    [
        {"job": -1}, {"job": True}, {"job": "0"}, {"job": None}, {"overrides": None}, {"overrides": [3]},
        {"overrides": "seed=0"}, {"reason": 3}, {"config": []}, {"config": {}}, {"config": {"run_dir": 3}},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_job_is_refused(change, sweep, complete):
    record(sweep, job(sweep) | change)
    assert "does not contain the jobs of a sweep" in refused(complete, sweep)


def test_two_jobs_share_neither_number_nor_folder(sweep, complete):
    record(sweep, job(sweep), job(sweep) | {"folder": "1-run"})
    assert "the same number" in refused(complete, sweep)
    record(sweep, job(sweep), job(sweep) | {"job": 1})
    assert "the same folder" in refused(complete, sweep)


def test_two_runs_with_one_number_are_refused_without_recorded_configurations(sweep, complete):
    (sweep / runs.JOBS).unlink()
    for name, values in (("0-a", {"unheard_of": node("os.getcwd")}), ("0-b", {})):
        folders.run(sweep / name, metrics={"test/mse": 1.0}, **values)
    rows = [{"job": 0, "overrides": [], "folder": name, "state": "done", "reason": None} for name in ("0-a", "0-b")]
    (sweep / runs.SUMMARY).write_text(json.dumps({"command": ["-m"], "jobs": rows}))
    assert "have the same number" in refused(complete, sweep)


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", '{"jobs": 3}', '{"jobs": [3]}', "[" * 100_000, "\0", '{"jobs": [{}]}']
)
def test_a_malformed_file_is_refused(content, sweep, complete):
    (sweep / runs.JOBS).write_text(content)
    refused(complete, sweep)


@pytest.mark.parametrize("n_jobs", ["many", 0, [1], 1.5])
def test_an_invalid_n_jobs_is_refused(n_jobs, sweep, complete):
    record(sweep, job(sweep), n_jobs=n_jobs)
    assert "hydra.launcher.n_jobs must be" in refused(complete, sweep)


def test_a_target_in_a_trusted_package_is_allowed(sweep, complete):
    record(sweep, job(sweep, notes=node("hostile_module.Loss")))
    assert "trust=[hostile_module]" in refused(complete, sweep)
    complete(sweep, "hostile_module")


def test_a_job_downloads_nothing_unverified(sweep, monkeypatch):
    options = {}
    monkeypatch.setattr(command.run, "run", lambda _, **given: options.update(given))
    monkeypatch.setattr(command, "_configure_logging", lambda *_, **__: None)
    command._train_job(job(sweep)["config"], resumes=False)
    assert options == {"resume": False, "from_folder": True}


@pytest.mark.slow
def test_an_ordinary_sweep_is_completed(tmp_path):
    folder = tmp_path / "sweep"
    of = Sweep(folder, ["-m"])
    folder.mkdir()
    for made, loss in zip(of.add([["loss=mse"], ["loss=l1"]], 0), ("mse", "l1"), strict=True):
        path = str(folder / f"{made.number}-run")
        made.config = compose([f"loss={loss}", "trainer=cpu", "trainer.max_epochs=2", "logger=none"], path)
    of.write_jobs()
    of.write()
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONSAFEPATH": "1"}
    with contextlib.chdir(tmp_path):
        resume = [sys.executable, "-m", "losslab.cli", "train", "resume=sweep"]
        done = subprocess.run(resume, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len([*folder.glob("*/metrics.json")]) == 2

"""Existing runs in the folder of a sweep: which jobs take them over, and which command completes the sweep."""

import json

import folders
import pytest

from losslab.errors import LabError
from losslab.io.atomic import to_json
from losslab.io.metric_names import MONITORED
from losslab.models import metrics
from losslab.runs.config import identity
from losslab.runs.renames import rename_targets
from losslab.runs.sweep_summary import State, read_summary_rows
from losslab.sweep.job_scheduler import run_jobs
from losslab.sweep.resume import ExistingRuns, completing_command, find_unfinished, repeated_command, take_over
from losslab.sweep.state import Job, Sweep
from losslab.training.config import ProcessContext, compose


def config(loss="mse", seed=0, **values):
    """The configuration of a job whose folder need not be that of the existing run."""
    return rename_targets(folders.config(loss, seed, "/elsewhere/9-run", **values)) | {"trust": []}


@pytest.fixture
def sweep(tmp_path):
    for number, (loss, seed) in enumerate([("mse", 0), ("mse", 1), ("l1", 0)]):
        folders.run(tmp_path / f"{number}-mlp-digits-{loss}-s{seed}", loss, seed, metrics={"val/accuracy": number / 10})
    return tmp_path


def test_a_run_is_recognised_by_its_configuration_whatever_its_number(sweep):
    existing = ExistingRuns(sweep)
    taken = [existing.take_run(config(loss, seed)) for loss, seed in [("l1", 1), ("l1", 0), ("mse", 1), ("mse", 0)]]
    assert [run and run.number for run in taken] == [None, 2, 1, 0]
    assert existing.take_run(config("mse", 0)) is None  # one job each


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ({"data__dir": "/other"}, True),
        ({"data__workers": 4}, True),
        ({"trainer__enable_progress_bar": False}, True),
        ({"optimized_metric": "val/nll"}, True),
        ({"made_with": {"torch": "1.0"}}, True),
        ({"optimizer__lr": 0.002}, False),
        ({"trainer__devices": 2}, False),
        ({"trainer__max_epochs": 3.0}, False),  # 1 is one batch where 1.0 is all of them
        ({"ckpt_path": "/elsewhere/9-run-of-another"}, False),
    ],
)
def test_a_run_is_recognised_despite_settings_that_change_no_result(sweep, values, same):
    assert (ExistingRuns(sweep).take_run(config(**values)) is not None) is same


def test_two_folders_of_images_are_two_data_sets(tmp_path):
    images = {"choices": folders.config()["choices"] | {"data": "image_folder"}}
    folders.run(tmp_path / "0-run", data__dir="/a", **images)
    assert ExistingRuns(tmp_path).take_run(config(data__dir="/b", **images)) is None
    assert ExistingRuns(tmp_path).take_run(config(data__dir="/a", **images)) is not None


def test_a_configuration_that_is_composed_for_another_folder_is_the_same_run():
    first, second = (compose(["loss=huber", "loss.delta=2"], folder) for folder in ("/a/0-run", "/b/7-run"))
    assert first != second
    assert identity(first) == identity(json.loads(to_json(second)) | {"made_with": {}})
    assert identity(first) != identity(compose(["loss=huber", "loss.delta=3"], "/a/0-run"))


def test_jobs_take_over_the_run_with_exactly_their_settings_if_there_is_one(tmp_path):
    for number in range(2):
        folders.run(tmp_path / f"{number}-run", data__workers=number)
    existing = ExistingRuns(tmp_path)
    assert [existing.take_run(config(data__workers=workers)).number for workers in (1, 0)] == [1, 0]


def test_a_new_job_keeps_its_number_unless_a_folder_has_it(sweep):
    (sweep / "4-mlp-digits-mse-s3").mkdir()  # killed before its run started
    existing = ExistingRuns(sweep)
    assert existing.reserve_number(0, None) == 3
    assert existing.reserve_number(4, sweep / "4-mlp-digits-mse-s3") == 4
    assert existing.reserve_number(5, sweep / "5-mlp-digits-mse-s4") == 5
    assert existing.reserve_number(3, sweep / "3-mlp-digits-mse-s5") == 6


def test_jobs_take_over_existing_runs_and_are_prepared_for_their_folders(sweep):
    (sweep / "2-mlp-digits-l1-s0" / "metrics.json").unlink()
    prepared = []
    jobs = [Job(number, [], config=config(loss, seed)) for number, (loss, seed) in enumerate([("l1", 0), ("mse", 7)])]
    jobs += [Job(2, [], config=config("mse", 1) | {"optimized_metric": None}), Job(3, [])]
    take_over(ExistingRuns(sweep), jobs, Sweep(sweep), lambda job, _, folder: prepared.append((job.number, folder)))
    assert [(job.number, job.reused, job.resumes) for job in jobs] == [
        (2, False, True), (3, False, False), (1, True, False), (4, False, False),
    ]  # fmt: skip
    assert (jobs[2].state, jobs[2].value, jobs[2].seconds) == (State.DONE, 0.1, 1.5)
    assert jobs[2].progress == {"metric": "val/accuracy", "mode": "max"}
    assert prepared == [
        (2, sweep / "2-mlp-digits-l1-s0"), (3, None), (1, sweep / "1-mlp-digits-mse-s1"), (4, None),
    ]  # fmt: skip


def test_the_monitored_metrics_are_those_of_the_tasks():
    assert set(MONITORED) == {f"val/{name}" for name in metrics.MONITOR.values()}


def written(folder, *jobs):
    sweep = Sweep(folder, ["-m", "seed=0,1,2,3", "hydra.sweep.dir=old", "data.dir=here"])
    for job, (state, name) in zip(sweep.add([["seed=0"]] * len(jobs), 0), jobs, strict=True):
        job.state, job.folder = state, folder / name if name else None
    sweep.write()
    return sweep


def test_a_killed_sweep_is_not_mistaken_for_a_running_sweep(sweep):
    folders.run(sweep / "3-run", metrics=False)
    names = ["0-mlp-digits-mse-s0", "3-run", None]
    killed = written(sweep, *zip([State.RUNNING, State.RUNNING, State.WAITING], names, strict=True))
    ended = [State.DONE, State.INTERRUPTED, State.INTERRUPTED]
    assert [job["state"] for job in read_summary_rows(sweep)] == ended
    killed.lock()
    assert [job["state"] for job in read_summary_rows(sweep)] == [State.RUNNING, State.RUNNING, State.WAITING]
    with pytest.raises(LabError, match="another process is training"):
        Sweep(sweep).lock()


def test_runs_that_no_job_takes_over_stay_in_the_summary(sweep):
    written(sweep, (State.DONE, "0-mlp-digits-mse-s0"), (State.FAILED, "1-mlp-digits-mse-s1"), (State.FAILED, None))
    existing = ExistingRuns(sweep)
    assert existing.take_run(config("mse", 0)) is not None
    assert [row["folder"] for row in existing.remaining_rows] == ["1-mlp-digits-mse-s1"]


def test_a_damaged_run_is_not_taken_over_and_keeps_its_number(sweep, caplog):
    (sweep / "1-mlp-digits-mse-s1" / "config.json").write_text("{")
    existing = ExistingRuns(sweep)
    assert "not taken over: cannot read" in caplog.text
    assert existing.take_run(config("mse", 1)) is None
    assert existing.reserve_number(1, None) == 3


def test_runs_outside_the_folder_of_the_sweep_are_not_taken_over(tmp_path, caplog):
    victim = folders.run(tmp_path / "victim", metrics=False)
    other = folders.run(tmp_path / "other", seed=1, metrics=False)
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "0-run").symlink_to(other)
    folders.summary(sweep, {"folder": "../victim"}, {"folder": str(victim)}, {"folder": "."})
    existing = ExistingRuns(sweep)
    assert existing.take_run(config()) is None
    assert existing.take_run(config(seed=1)) is None
    assert "0-run is a link out of the folder of the sweep" in caplog.text


def test_an_unfinished_sweep_of_the_same_command_is_found_next_to_a_new_sweep(tmp_path):
    new, old = tmp_path / "sweep-2", tmp_path / "sweep-1"
    (tmp_path / "sweep-0").mkdir()
    sweep = written(old, (State.INTERRUPTED, None), (State.DONE, None))
    assert find_unfinished(new, sweep.command) == old
    assert find_unfinished(new, ["-m", "seed=0"]) is None
    written(old, (State.DONE, None))
    assert find_unfinished(new, sweep.command) is None


def test_the_completing_command_names_the_packages_to_trust(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "-m"])
    monkeypatch.setattr("losslab.training.distributed.spawn.run_in_subprocess", lambda task, *values: task(*values))
    sweep = Sweep(tmp_path / "a sweep")
    sweep.add([["seed=0"], ["seed=1"]], 0)
    sweep.jobs[0].config = config(loss___target_="mine.losses.Mine", callbacks__a={"_target_": "timm.A"})
    metric = {"_target_": "torchmetrics.text.BLEUScore"}
    sweep.jobs[1].config = config(loss___target_="losslab.losses.mse.MSE", metric=metric)
    run_jobs(sweep, [], print, None, ProcessContext())
    packages = "mine,timm,torchmetrics.text.BLEUScore"
    assert completing_command(sweep) == f"python train.py 'resume={tmp_path}/a sweep' 'trust=[{packages}]'"


def test_a_search_is_completed_by_its_original_command_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/losslab train"])
    command = ["experiment=tune_lr", "trust=[os]", "++trust=[os]", "run_dir=old", "hydra.sweep.dir=older", "seed=1,2"]
    folder = tmp_path / "it's, moved"
    sweep = Sweep(folder, command, is_search=True)
    repeated = completing_command(sweep)
    assert repeated == repeated_command(folder, command)
    assert repeated.startswith("losslab train experiment=tune_lr seed=1,2 ")
    assert "trust" not in repeated
    monkeypatch.chdir(tmp_path)
    assert repeated_command(tmp_path / "sweep", ["-m"]) == "losslab train -m run_dir=sweep"

"""Runs on a disk that is full, for some time or to the end."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from full_disk import Disk
from lightning import Callback
from states import outcome
from tensorboard.compat.proto.event_pb2 import Event

from losslab import runs
from losslab.cli import run
from losslab.errors import LabError
from losslab.runs.sweep_summary import State, read_summary_rows
from losslab.sweep import display
from losslab.sweep.state import Sweep
from losslab.training import experiment as lab
from losslab.training.callbacks import history
from losslab.training.config import compose

ROOT = Path(__file__).parents[2]
TABLES = ("trainer.max_epochs=8", "logger=none", "callbacks.checkpoints.every_seconds=0")
RUN = (*TABLES, "callbacks=dynamics", "callbacks.dynamics.every_seconds=0", "callbacks.dynamics.examples=3")
FIGURES = ("loss_curve.png", "mse_curve.png")


class BeforeEpoch(Callback):
    """Calls functions before certain epochs."""

    def __init__(self, functions):
        self.functions = functions

    def on_train_epoch_start(self, trainer, _):
        self.functions.get(trainer.current_epoch, lambda: None)()


@pytest.fixture(scope="module")
def undisturbed(train):
    return train(*RUN)[0]


def fill_disk(experiment, monkeypatch, until=None):
    """Make the disk of a run full from its third epoch on, until another epoch."""
    monkeypatch.setattr(history, "_RETRY_SECONDS", 0)
    disk = Disk(experiment.folder.path, monkeypatch)
    functions = {2: lambda: setattr(disk, "full", True), until: lambda: setattr(disk, "full", False)}
    experiment.trainer.callbacks.insert(0, BeforeEpoch(functions))
    return disk


def count_warnings(caplog):
    return Counter(
        Path(record.args[0]).name for record in caplog.records if "was not written" in record.msg and record.args
    )


def test_files_are_written_when_there_is_room_and_logged_once(build, undisturbed, monkeypatch, caplog):
    experiment = build(*RUN)
    disk = fill_disk(experiment, monkeypatch, until=6)
    lab.run(experiment)
    assert {"history.csv", "timing.csv"} <= disk.refused
    assert outcome(experiment.folder.path) == outcome(undisturbed.folder.path)
    warnings = count_warnings(caplog)
    assert [warnings[name] for name in ("history.csv", "timing.csv", "dynamics.npz")] == [1, 1, 1]
    assert (
        "history.csv was not written (No space left on device): training continues, and it is written as" in caplog.text
    )
    assert all(experiment.folder.figures.joinpath(name).is_file() for name in FIGURES)


def test_incomplete_table_is_written_before_training_ends(build, undisturbed, monkeypatch):
    experiment = build(*RUN)
    fill_disk(experiment, monkeypatch, until=7)
    monkeypatch.setattr(history, "_RETRY_SECONDS", 1000)
    lab.run(experiment)
    assert outcome(experiment.folder.path) == outcome(undisturbed.folder.path)


@pytest.mark.parametrize(
    ("overrides", "file"),
    [(RUN, "path.csv"), ((*RUN, "~callbacks.path"), "dynamics.npz"), ((*TABLES, "~callbacks.path"), "history.csv")],
)
def test_disk_that_stays_full_is_a_one_line_error_that_names_the_command_to_resume(
    build, undisturbed, monkeypatch, overrides, file
):
    experiment = build(*overrides)
    with monkeypatch.context() as patch:
        fill_disk(experiment, patch)
        reason = r"\(No space left on device\): free some space, then run `python train.py resume=.+`$"
        with pytest.raises(LabError, match=rf"^cannot write \S*{file} {reason}"):
            lab.run(experiment)
    assert not experiment.folder.metrics.exists()
    lab.run(lab.build(experiment.config), resume=True)
    found, expected = outcome(experiment.folder.path), outcome(undisturbed.folder.path)
    assert file in found
    assert found == {name: expected[name] for name in found}


def test_figure_that_cannot_be_written_is_skipped(build, caplog):
    experiment = build("trainer.max_epochs=2")
    experiment.folder.figures.write_text("no folder")
    lab.run(experiment)
    assert [count_warnings(caplog)[name] for name in FIGURES] == [1, 1]
    assert "loss_curve.png was not written (File exists): the run continues without it" in caplog.text


def test_full_disk_does_not_hide_the_error_that_ended_a_run(build, monkeypatch, caplog):
    experiment = build(*RUN)
    fill_disk(experiment, monkeypatch)

    def fail():
        message = "this is what was wrong"
        raise LabError(message)

    experiment.trainer.callbacks.insert(0, BeforeEpoch({5: fail}))
    with pytest.raises(LabError, match="this is what was wrong"):
        lab.run(experiment)
    warnings = count_warnings(caplog)
    assert [warnings[name] for name in ("history.csv", "path.csv", "dynamics.npz", *FIGURES)] == [1] * 5
    assert warnings["best.ckpt"], "BestAndLastCheckpoint did not handle the exception"


def test_unwritable_metrics_json_is_an_error_that_names_the_command_to_resume(tmp_path, monkeypatch):
    config = compose(["trainer=cpu", "trainer.enable_progress_bar=false", "callbacks=none"], str(tmp_path / "run"))
    write = runs.write_json

    monkeypatch.setattr(
        runs, "write_json", lambda path, content: (full if path.name == "metrics.json" else write)(path, content)
    )
    with pytest.raises(LabError, match=r"\(No space left on device\): free some space, then \S.* resume=") as error:
        run.run(config)
    assert "\n" not in str(error.value)


def logged_steps(folder):
    """The steps of train/loss in the event file, which is read to its end."""
    (file,) = folder.glob("events.*")
    content, events = file.read_bytes(), []
    while content:
        length = 12 + int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12:length]))
        content = content[length + 4 :]
    assert events[0].file_version
    return {event.step for event in events for value in event.summary.value if value.tag == "train/loss"}


def test_events_are_skipped_while_the_disk_is_full_and_this_is_logged_once(build, monkeypatch, caplog):
    experiment = build("trainer.max_epochs=8", "trainer.log_every_n_steps=1")
    (logger,), disk, exceptions = experiment.trainer.loggers, Disk(experiment.folder.path, monkeypatch), []
    logger.flush_secs = 0  # a thread for each value
    monkeypatch.setattr(threading, "excepthook", exceptions.append)

    def set_full(full):
        logger.finalize("collected values are written, or skipped")
        disk.full = full

    experiment.trainer.callbacks.insert(
        0, BeforeEpoch({2: lambda: set_full(full=True), 6: lambda: set_full(full=False)})
    )
    lab.run(experiment)
    assert not exceptions, "a thread ended with a traceback"
    assert any("tfevents" in name for name in disk.refused)
    assert logged_steps(experiment.folder.path) == {1, 2, 7, 8}
    assert sum("is not written (No space left on device): training continues" in line for line in caplog.messages) == 1


def test_event_file_that_cannot_be_created_is_created_later(build, monkeypatch):
    experiment = build("trainer.max_epochs=8", "trainer.log_every_n_steps=1")
    disk = Disk(experiment.folder.path, monkeypatch)
    disk.full = True
    experiment.trainer.loggers[0].experiment.flush()
    assert any("tfevents" in name for name in disk.refused)
    disk.full = False
    lab.run(experiment)
    assert logged_steps(experiment.folder.path) == set(range(1, 9))


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def jobs(tmp_path):
    """A sweep of two jobs, of which the second fails."""
    (tmp_path / "sweep").mkdir()
    of = Sweep(tmp_path / "sweep", ["-m", "seed=0,1"])
    of.add([["seed=0"], ["seed=1"]], 0)
    of.jobs[0].state, of.jobs[1].state = State.DONE, State.FAILED
    return of


def test_unwritable_summary_is_logged_once_and_the_end_names_the_command_to_complete(jobs, monkeypatch, caplog):
    caplog.set_level("INFO")
    jobs.write()
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_json", full)
        assert not jobs.write()
        assert not display.close(jobs)
        assert (
            sum("summary.json (No space left on device): its last version is kept" in line for line in caplog.messages)
            == 1
        )
        assert "1 of 2 jobs are not done; to complete them: " in caplog.text
        assert f"resume={jobs.folder}" in caplog.text
        assert "job" in caplog.messages[1], "there is no table"
        jobs.jobs[1].state = State.DONE
        assert not display.close(jobs)
        assert "does not record that all jobs are done: free some space, then " in caplog.messages[-1]
    assert display.close(jobs)
    compare = f"losslab compare {jobs.folder}"
    assert caplog.messages[-1] == f"compare     {compare}    (each row of the table is 1 seed)"
    assert [job["state"] for job in read_summary_rows(jobs.folder)] == ["done", "done"]


def test_sweep_whose_summary_cannot_be_written_does_not_begin(jobs, monkeypatch):
    jobs.folder.joinpath("summary.json").touch()
    monkeypatch.setattr(runs, "write_json", full)
    with pytest.raises(LabError, match=r"summary.json \(No space left on device\): free some space, or set run_dir"):
        jobs.write()


@pytest.fixture
def small(tmp_path):
    """A file system of four megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


SMALL = ("trainer=cpu", "model=mlp", "data=digits", "data.size=8", "data.batch_size=20", "trainer.max_epochs=10")


def run_command(cwd, *words):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def fill_after(rows, history, disk, process):
    until = time.monotonic() + 120
    while not history.is_file() or history.read_text().count("\n") <= rows:
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < until
        time.sleep(0.01)
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


@pytest.mark.slow
def test_command_continues_on_a_full_disk_and_resumes_after_a_kill(small, tmp_path):
    whole = run_command(tmp_path, *SMALL, "run_dir=whole")
    output, _ = whole.communicate(timeout=120)
    assert whole.returncode == 0, output
    process = run_command(tmp_path, *SMALL, "run_dir=small/run", "callbacks.checkpoints.every_seconds=0.2")
    run = small / "run"
    fill_after(2, run / "history.csv", small, process)
    output = ""
    while "history.csv was not written" not in output:
        line = process.stdout.readline()
        assert line, output  # otherwise the process has ended
        output += line
    time.sleep(0.3)
    process.kill()
    output += process.communicate()[0]
    assert "Traceback" not in output
    (small / "filler").unlink()
    resumed = run_command(tmp_path, "resume=small/run")
    output, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, output
    assert outcome(run) == outcome(tmp_path / "whole")

"""A disk that is full while a run trains, for a while or to the end."""

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
from losslab.cli import run, train
from losslab.errors import LabError
from losslab.runs.sweep_summary import State, read_jobs
from losslab.sweep import state
from losslab.sweep.state import Sweep
from losslab.training import experiment as lab
from losslab.training.callbacks import history
from losslab.training.config import compose

ROOT = Path(__file__).parents[2]
TABLES = ("trainer.max_epochs=8", "logger=none", "callbacks.checkpoints.every_seconds=0")
RUN = (*TABLES, "callbacks=dynamics", "callbacks.dynamics.every_seconds=0", "callbacks.dynamics.examples=3")
FIGURES = ("loss_curve.png", "mse_curve.png")


class Before(Callback):
    """Does something before an epoch."""

    def __init__(self, does):
        self.does = does

    def on_train_epoch_start(self, trainer, _):
        self.does.get(trainer.current_epoch, lambda: None)()


@pytest.fixture(scope="module")
def undisturbed(train):
    return train(*RUN)[0]


def filled(experiment, monkeypatch, until=None):
    """Its disk is full from the third epoch on."""
    monkeypatch.setattr(history, "_RETRY_SECONDS", 0)
    disk = Disk(experiment.folder.path, monkeypatch)
    does = {2: lambda: setattr(disk, "full", True), until: lambda: setattr(disk, "full", False)}
    experiment.trainer.callbacks.insert(0, Before(does))
    return disk


def warned(caplog):
    return Counter(
        Path(record.args[0]).name for record in caplog.records if "was not written" in record.msg and record.args
    )


def test_what_was_not_written_is_written_when_there_is_room_and_is_spoken_of_once(
    build, undisturbed, monkeypatch, caplog
):
    experiment = build(*RUN)
    disk = filled(experiment, monkeypatch, until=6)
    lab.run(experiment)
    assert {"history.csv", "timing.csv"} <= disk.refused
    assert outcome(experiment.folder.path) == outcome(undisturbed.folder.path)
    told = warned(caplog)
    assert [told[name] for name in ("history.csv", "timing.csv", "dynamics.npz")] == [1, 1, 1]
    assert (
        "history.csv was not written (No space left on device): training continues, and it is written as" in caplog.text
    )
    assert all(experiment.folder.figures.joinpath(name).is_file() for name in FIGURES)


def test_a_table_that_lacks_rows_is_written_before_training_ends(build, undisturbed, monkeypatch):
    experiment = build(*RUN)
    filled(experiment, monkeypatch, until=7)
    monkeypatch.setattr(history, "_RETRY_SECONDS", 1000)
    lab.run(experiment)
    assert outcome(experiment.folder.path) == outcome(undisturbed.folder.path)


@pytest.mark.parametrize(
    ("words", "file"),
    [(RUN, "path.csv"), ((*RUN, "~callbacks.path"), "dynamics.npz"), ((*TABLES, "~callbacks.path"), "history.csv")],
)
def test_a_disk_that_stays_full_is_one_line_at_the_end_that_says_how_to_go_on(
    build, undisturbed, monkeypatch, words, file
):
    experiment = build(*words)
    with monkeypatch.context() as patch:
        filled(experiment, patch)
        wanted = (
            rf"^cannot write \S*{file} \(No space left on device\): free some space, then python train.py resume=.+$"
        )
        with pytest.raises(LabError, match=wanted):
            lab.run(experiment)
    assert not experiment.folder.metrics.exists()
    lab.run(lab.build(experiment.config), resume=True)
    found, expected = outcome(experiment.folder.path), outcome(undisturbed.folder.path)
    assert file in found
    assert found == {name: expected[name] for name in found}


def test_figures_are_no_reason_to_fail(build, caplog):
    experiment = build("trainer.max_epochs=2")
    experiment.folder.figures.write_text("no folder")
    lab.run(experiment)
    assert [warned(caplog)[name] for name in FIGURES] == [1, 1]
    assert "loss_curve.png was not written (File exists): the run continues without it" in caplog.text


def test_what_ended_a_run_on_a_full_disk_is_what_is_said(build, monkeypatch, caplog):
    experiment = build(*RUN)
    filled(experiment, monkeypatch)

    def fail():
        message = "this is what was wrong"
        raise LabError(message)

    experiment.trainer.callbacks.insert(0, Before({5: fail}))
    with pytest.raises(LabError, match="this is what was wrong"):
        lab.run(experiment)
    told = warned(caplog)
    assert [told[name] for name in ("history.csv", "path.csv", "dynamics.npz", *FIGURES)] == [1] * 5
    assert told["best.ckpt"], "BestAndLastCheckpoint did not handle the exception"


def test_final_values_that_cannot_be_written_say_how_to_go_on(tmp_path, monkeypatch):
    config = compose(["trainer=cpu", "trainer.enable_progress_bar=false", "callbacks=none"], str(tmp_path / "run"))
    write = runs.write_json

    monkeypatch.setattr(
        runs, "write_json", lambda path, content: (full if path.name == "metrics.json" else write)(path, content)
    )
    with pytest.raises(LabError, match=r"\(No space left on device\): free some space, then \S.* resume=") as error:
        run.run(config)
    assert "\n" not in str(error.value)


def steps(folder):
    """Those of which the event file says something, read to its end."""
    (file,) = folder.glob("events.*")
    content, events = file.read_bytes(), []
    while content:
        length = 12 + int.from_bytes(content[:8], "little")
        events.append(Event.FromString(content[12:length]))
        content = content[length + 4 :]
    assert events[0].file_version
    return {event.step for event in events for value in event.summary.value if value.tag == "train/loss"}


def test_events_are_left_out_while_there_is_no_room_and_said_once(build, monkeypatch, caplog):
    experiment = build("trainer.max_epochs=8", "trainer.log_every_n_steps=1")
    (logger,), disk, ended = experiment.trainer.loggers, Disk(experiment.folder.path, monkeypatch), []
    logger.flush_secs = 0  # a thread for each value
    monkeypatch.setattr(threading, "excepthook", ended.append)

    def turn(full):
        logger.finalize("what waits is written, or not")
        disk.full = full

    experiment.trainer.callbacks.insert(0, Before({2: lambda: turn(full=True), 6: lambda: turn(full=False)}))
    lab.run(experiment)
    assert not ended, "a thread ended with a traceback"
    assert any("tfevents" in name for name in disk.refused)
    assert steps(experiment.folder.path) == {1, 2, 7, 8}
    assert sum("is not written (No space left on device): training continues" in line for line in caplog.messages) == 1


def test_an_event_file_that_cannot_be_begun_begins_later(build, monkeypatch):
    experiment = build("trainer.max_epochs=8", "trainer.log_every_n_steps=1")
    disk = Disk(experiment.folder.path, monkeypatch)
    disk.full = True
    experiment.trainer.loggers[0].experiment.flush()
    assert any("tfevents" in name for name in disk.refused)
    disk.full = False
    lab.run(experiment)
    assert steps(experiment.folder.path) == set(range(1, 9))


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """A sweep of two jobs, of which the second fails."""
    (tmp_path / "sweep").mkdir()
    of = Sweep(tmp_path / "sweep", ["-m", "seed=0,1"])
    of.add([["seed=0"], ["seed=1"]], 0)
    of.jobs[0].state, of.jobs[1].state = State.DONE, State.FAILED
    monkeypatch.setattr(state, "current", of)
    return of


def test_a_summary_that_cannot_be_written_is_said_once_and_the_end_names_how_to_complete(jobs, monkeypatch, caplog):
    caplog.set_level("INFO")
    jobs.write()
    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_json", full)
        assert not jobs.write()
        assert not train._close_sweep()
        assert sum("summary.json was not written (No space left on device)" in line for line in caplog.messages) == 1
        assert "1 of 2 jobs are not done; to complete them: " in caplog.text
        assert f"resume={jobs.folder}" in caplog.text
        assert "job" in caplog.messages[1], "there is no table"
        jobs.jobs[1].state = State.DONE
        assert not train._close_sweep()
        assert "does not say that all jobs are done: free some space, then " in caplog.messages[-1]
    assert train._close_sweep()
    assert [job["state"] for job in read_jobs(jobs.folder)] == ["done", "done"]


def test_a_sweep_whose_summary_was_never_written_does_not_begin(jobs, monkeypatch):
    jobs.folder.joinpath("summary.json").touch()
    monkeypatch.setattr(runs, "write_json", full)
    with pytest.raises(LabError, match=r"summary.json \(No space left on device\): free some space, or set run_dir"):
        jobs.write()


@pytest.fixture
def small(tmp_path):
    """A file system of four megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], check=False, capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


SMALL = ("trainer=cpu", "model=mlp", "data=digits", "data.size=8", "data.batch_size=20", "trainer.max_epochs=10")


def command(place, *words):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
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
def test_a_command_on_a_full_disk_goes_on_and_killed_there_is_resumed(small, tmp_path):
    whole = command(tmp_path, *SMALL, "run_dir=whole")
    said, _ = whole.communicate(timeout=120)
    assert whole.returncode == 0, said
    process = command(tmp_path, *SMALL, "run_dir=small/run", "callbacks.checkpoints.every_seconds=0.2")
    run = small / "run"
    fill_after(2, run / "history.csv", small, process)
    seen = ""
    while "history.csv was not written" not in seen:
        line = process.stdout.readline()
        assert line, seen  # else it has ended
        seen += line
    time.sleep(0.3)
    process.kill()
    seen += process.communicate()[0]
    assert "Traceback" not in seen
    (small / "filler").unlink()
    resumed = command(tmp_path, "resume=small/run")
    said, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, said
    assert outcome(run) == outcome(tmp_path / "whole")

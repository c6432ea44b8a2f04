"""A signal lets the step that is being made be finished and saved; what is resumed afterwards ends as undisturbed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import workers
from states import outcome

from losslab.training import experiment
from losslab.training.callbacks import checkpoint
from losslab.training.config import compose
from losslab.training.distributed import signals

ROOT = Path(__file__).resolve().parents[2]
RUN = ("trainer=cpu", "model=mlp", "data=digits", "data.size=8", "data.batch_size=20", "trainer.max_epochs=5")


def start(*arguments, cwd):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *RUN, *arguments],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for_epochs(history, count):
    until = time.monotonic() + 120
    while not history.is_file() or history.read_text().count("\n") <= count:
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_the_run_ends_at_a_step_and_goes_on_from_there(number, code, tmp_path):
    run = tmp_path / "run"
    process = start("run_dir=run", cwd=tmp_path)
    wait_for_epochs(run / "history.csv", 2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == code, out
    assert "Traceback" not in out
    assert f"to go on: python {ROOT / 'train.py'} resume=run" in out
    # No write was due: this one is there because of the signal.
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert not (run / "metrics.json").exists()
    whole = start("run_dir=whole", cwd=tmp_path)
    resumed = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "resume=run"], cwd=tmp_path, timeout=120, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    whole.communicate(timeout=120)
    assert (whole.returncode, resumed.returncode) == (0, 0)
    assert outcome(run) == outcome(tmp_path / "whole")


IMPORTING = """
import sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "losslab.cli.train":
            print("importing", flush=True)
            time.sleep(100)
sys.meta_path.insert(0, Slow())
from losslab.cli.main import train
train()
"""
MEETING = """
import sys
from losslab.training.distributed import environment
environment.init_process_group(environment.RankInfo(0, 2, 0, 2), sys.argv[1])
"""


def ended_by_ctrl_c(script, *arguments, once):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        once(process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    return process.returncode, errors


def test_ctrl_c_while_a_command_is_imported_is_no_traceback():
    assert ended_by_ctrl_c(IMPORTING, once=lambda process: process.stdout.readline()) == (-signal.SIGINT, "")


def test_ctrl_c_ends_a_process_that_waits_for_another_to_come(tmp_path):
    store = tmp_path / "store"

    def waits(process):
        until = time.monotonic() + 60
        while not store.exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.2)

    assert ended_by_ctrl_c(MEETING, str(store), once=waits) == (-signal.SIGINT, "")


def test_outside_of_that_ctrl_c_is_what_it_was():
    before = signal.getsignal(signal.SIGINT)
    with signals.exit_on_ctrl_c():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_ends_at_once_and_handlers_are_given_back(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    before = signal.getsignal(signal.SIGTERM)
    watch = signals.SignalHandler()
    watch.install()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.received == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)
        assert not ended, "it is the first, which a parent has passed on"
        monkeypatch.setattr(signals, "_REPEAT_SECONDS", 0.0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [143]
    finally:
        watch.uninstall()
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_nohup_has_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    watch = signals.SignalHandler()
    try:
        watch.install()
        os.kill(os.getpid(), signal.SIGHUP)
        assert watch.received is None
        watch.uninstall()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_ended_an_earlier_run_does_not_end_the_next():
    watch = signals.SignalHandler()
    watch.received = signal.SIGINT
    watch.install()
    watch.uninstall()
    assert watch.received is None


def test_where_nobody_looks_soon_a_signal_is_an_exception():
    watch = signals.SignalHandler()
    watch.install()
    watch.deferred = False
    try:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        watch.uninstall()


def test_during_a_long_validation_the_state_from_before_is_saved(monkeypatch, tmp_path):
    overrides = [*RUN, "trainer.enable_progress_bar=false", "logger=none", "data.eval_batch_size=50", "callbacks=ema"]

    def build(name):
        return experiment.build(compose(overrides, str(tmp_path / name)))

    monkeypatch.setattr(checkpoint, "_LONG_VALIDATION", 0.0)
    interrupted = build("run")
    interrupted.trainer.callbacks.insert(0, workers.Interrupts())
    with pytest.raises(SystemExit):
        experiment.run(interrupted)
    saved = torch.load(interrupted.folder.last, weights_only=True)
    assert saved["global_step"] == 2 * len(interrupted.trainer.train_dataloader)
    experiment.run(build("run"), resume=True)
    experiment.run(build("whole"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


# SLURM


@pytest.fixture
def job(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID", raising=False)


@pytest.mark.usefixtures("job")
def test_only_in_its_jobs_are_slurms_signals_taken(monkeypatch):
    assert signals.slurm_signals() == (signal.SIGUSR1, signal.SIGUSR2)
    monkeypatch.delenv("SLURM_JOB_ID")
    assert signals.slurm_signals() == ()


@pytest.mark.usefixtures("job")
def test_who_takes_the_signal_already_has_the_job_started_again():
    asked = []
    signals.requeue_slurm_job(signal.SIGUSR2, lambda number, _: asked.append(number))
    assert asked == [signal.SIGUSR2]


@pytest.mark.usefixtures("job")
@pytest.mark.parametrize(("array", "name"), [({}, "77"), ({"ARRAY_JOB_ID": "70", "ARRAY_TASK_ID": "3"}, "70_3")])
def test_else_slurm_is_asked_to_start_it_again(array, name, monkeypatch, tmp_path):
    for key, value in array.items():
        monkeypatch.setenv(f"SLURM_{key}", value)
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    signals.requeue_slurm_job(signal.SIGUSR1, signal.SIG_DFL)
    assert (tmp_path / "asked").read_text() == f"requeue {name}\n"


@pytest.mark.usefixtures("job")
def test_if_it_cannot_be_asked_one_line_says_so(monkeypatch, caplog):
    monkeypatch.setenv("PATH", "/nowhere")
    signals.requeue_slurm_job(signal.SIGUSR1, signal.SIG_DFL)
    assert caplog.messages == ["cannot requeue SLURM job 77 ([Errno 2] No such file or directory: 'scontrol')"]

"""A signal lets the step that is being made be finished and saved; what is resumed afterwards ends as undisturbed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from states import outcome

from losslab import signals

ROOT = Path(__file__).resolve().parents[1]
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_run_ends_at_a_step_and_goes_on_from_there(number, code, tmp_path):
    run = tmp_path / "run"
    process = start("run_dir=run", cwd=tmp_path)
    wait_for_epochs(run / "history.csv", 2)
    process.send_signal(number)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == code, out
    assert "Traceback" not in out
    assert "to go on: python train.py resume=run" in out
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


def test_a_second_signal_ends_at_once_and_handlers_are_given_back(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(signals, "received", None)
    before = signal.getsignal(signal.SIGTERM)
    watch = signals.Watch()
    watch.start()
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        assert not ended
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended == [143]
    finally:
        watch.stop()
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_ended_an_earlier_run_does_not_end_the_next(monkeypatch):
    monkeypatch.setattr(signals, "received", signal.SIGINT)
    watch = signals.Watch()
    watch.start()
    watch.stop()
    assert signals.received is None


def test_where_nobody_looks_soon_a_signal_is_an_exception(monkeypatch):
    monkeypatch.setattr(signals, "received", None)
    watch = signals.Watch()
    watch.start()
    watch.waits = False
    try:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        watch.stop()

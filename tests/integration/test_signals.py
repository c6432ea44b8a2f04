"""A signal ends a run after the current step, which is saved; the resumed run ends as an undisturbed one."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import workers
from processes import ROOT, TRAIN, python
from states import outcome

from losslab.training import experiment
from losslab.training.callbacks import checkpoint
from losslab.training.config import compose

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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    done = python(*TRAIN, *RUN, "run_dir=run", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_run_ends_after_the_current_step_and_resumes_exactly(number, code, undisturbed, tmp_path):
    run = tmp_path / "run"
    process = start("run_dir=run", cwd=tmp_path)
    wait_for_epochs(run / "history.csv", 2)
    process.send_signal(number)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert f"to resume: python {ROOT / 'train.py'} resume=run" in output
    # No write was due: this one is there because of the signal.
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert not (run / "metrics.json").exists()
    resumed = python(*TRAIN, "resume=run", cwd=tmp_path)
    assert resumed.returncode == 0
    assert outcome(run) == outcome(undisturbed)


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
RENDEZVOUS = """
import sys
from losslab.training.distributed import environment
environment.init_process_group(environment.RankInfo(0, 2, 0, 2), sys.argv[1])
"""


def end_by_ctrl_c(script, *arguments, when_ready):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        when_ready(process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    return process.returncode, errors


def test_ctrl_c_during_imports_shows_no_traceback():
    code, errors = end_by_ctrl_c(IMPORTING, when_ready=lambda process: process.stdout.readline())
    assert (code, errors) == (-signal.SIGINT, "")


def test_ctrl_c_ends_a_rank_that_waits_for_another(tmp_path):
    store = tmp_path / "store"

    def wait_for_store(process):
        until = time.monotonic() + 60
        while not store.exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(0.2)

    assert end_by_ctrl_c(RENDEZVOUS, str(store), when_ready=wait_for_store) == (-signal.SIGINT, "")


def test_signal_during_a_long_validation_saves_the_state_from_before(monkeypatch, tmp_path):
    overrides = [*RUN, "trainer.enable_progress_bar=false", "logger=none", "data.eval_batch_size=50", "callbacks=ema"]

    def build(name):
        return experiment.build(compose(overrides, str(tmp_path / name)))

    monkeypatch.setattr(checkpoint, "_LONG_VALIDATION", 0.0)
    interrupted = build("run")
    interrupted.trainer.callbacks.insert(0, workers.Interrupts())
    with pytest.raises(SystemExit):
        experiment.run(interrupted)
    callback = checkpoint.find_checkpoint_callback(interrupted.trainer)
    assert callback.signals.received == signal.SIGTERM
    saved = torch.load(interrupted.folder.last, weights_only=True)
    assert saved["global_step"] == 2 * len(interrupted.trainer.train_dataloader)
    experiment.run(build("run"), resume=True)
    experiment.run(build("whole"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")

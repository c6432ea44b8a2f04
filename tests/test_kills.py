"""`python train.py`, killed with SIGKILL at random moments and resumed until it is done: nobody can tell."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from states import outcome

ROOT = Path(__file__).resolve().parents[1]
RUN = (
    "model=mlp", "data=digits", "data.size=8", "data.batch_size=40", "trainer.max_epochs=6", "scheduler=one_cycle",
    "trainer=cpu", "callbacks.checkpoints.every_seconds=0",
)  # fmt: skip
KINDS = {
    "plain": (),
    "accumulated, averaged": (
        "trainer.accumulate_grad_batches=4", "callbacks=ema", "trainer.precision=bf16-mixed",
    ),
}  # fmt: skip
NOT_BEGUN = ("delete it and start the run again", "there is no such folder")


def start(*arguments, cwd):
    # In a group of its own, so that whatever it has started is killed with it.
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_again_and_again_ends_as_the_undisturbed_one(kind, tmp_path):
    moments, kills = random.Random(kind), 0  # noqa: S311
    command = [*RUN, *KINDS[kind]]
    began = time.monotonic()
    whole = start(*command, "run_dir=whole", cwd=tmp_path)
    whole.communicate()
    assert whole.returncode == 0
    seconds = time.monotonic() - began
    again = [*command, "run_dir=killed"]
    while True:
        process = start(*again, cwd=tmp_path)
        try:
            # Start-up, the first epoch and the end of the run are all within reach of each attempt.
            out, _ = process.communicate(timeout=moments.uniform(0.1, seconds) if kills < 5 else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            again = ["resume=killed"]
            continue
        if process.returncode == 0:
            break
        assert any(words in out for words in NOT_BEGUN), out
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        again = [*command, "run_dir=killed"]
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole"), f"after {kills} kills"

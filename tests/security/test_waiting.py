"""No reader of an untrusted folder waits for a pipe."""

import os
import signal
from contextlib import contextmanager, suppress

import folders
import numpy as np
import pytest
from torch import nn

from losslab.analysis.compare.curves import history_columns
from losslab.analysis.compare.grouping import group_runs
from losslab.analysis.compare.read import read_runs
from losslab.analysis.dynamics.record import Record
from losslab.analysis.evaluate import soft_labels
from losslab.analysis.explain.linear.run import Trajectory
from losslab.errors import LabError
from losslab.io import atomic
from losslab.io.untrusted import read_text
from losslab.runs import RunFolder
from losslab.runs.sweep_summary import State
from losslab.sweep.resume import ExistingRuns, _epoch_seconds
from losslab.sweep.state import Job, read_metrics
from losslab.training import weights

READERS = {
    "checkpoints/best.ckpt.sha256": lambda run: weights.load_network(nn.Linear(1, 1), run.best),
    "checkpoints/best.ckpt": lambda run: atomic.matches_checksum(run.best),
    "metrics.json": lambda run: (
        read_metrics(run),
        Job(0, [], state=State.DONE, folder=run.path).metrics,
    ),
    "timing.csv": _epoch_seconds,
    "summary.json": lambda run: ExistingRuns(run.path),
    "history.csv": lambda run: (
        history_columns(group_runs(read_runs([run.path]).runs)),
        atomic.matches_checksum(run.history),
    ),
    "path.csv": lambda run: Trajectory.read(run, ["weight"]),
    "dynamics.npz": lambda run: Record.load(run.dynamics),
    "soft.npy": lambda run: soft_labels._read(run.path / "soft.npy"),
}


@contextmanager
def fails_after_20_seconds():
    def fail(*_):
        pytest.fail("the reader waits for the pipe")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", READERS)
def test_pipe_is_not_waited_for(name, tmp_path):
    run = RunFolder(folders.run(tmp_path / "run", metrics=False))
    run.best.parent.mkdir()
    run.best.write_bytes(b"")
    atomic.checksum_path(run.best).write_text("0  best.ckpt\n")
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    with fails_after_20_seconds(), suppress(LabError, OSError):
        READERS[name](run)


def test_regular_file_is_read(tmp_path):
    np.save(tmp_path / "rows.npy", np.full((2, 2), 0.5))
    assert soft_labels._read(tmp_path / "rows.npy").shape == (2, 2)
    (tmp_path / "text").write_bytes("a\r\nb\rü".encode())
    (tmp_path / "link").symlink_to("text")
    assert read_text(tmp_path / "link") == "a\nb\nü"
    with pytest.raises(OSError, match="too large"):
        read_text(tmp_path / "text", 3)

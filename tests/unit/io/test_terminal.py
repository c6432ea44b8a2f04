"""A run does not end because its output cannot be written."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN = ("trainer=cpu", "trainer.max_epochs=30", "logger=none", "run_dir=run")


def start(folder, *words, **streams):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL, **streams,
    )  # fmt: skip


def test_run_finishes_silently_when_its_reader_is_gone(tmp_path):
    process = start(tmp_path, *RUN, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline().startswith(b"model")
    process.stdout.close()  # as `| head -1` does
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(120) == 0, errors
    assert errors == b""
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert "metric " in (tmp_path / "run" / "train.log").read_text(), (
        "the log lacks output that the terminal did not take"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "runs"), [([], 1), (["trainer.devices=2"], 1), (["seed=0,1", "-m"], 2)], ids=["run", "of two", "sweep"]
)
def test_run_finishes_on_a_full_output_device(words, runs, tmp_path):
    with Path("/dev/full").open("wb") as full:
        assert start(tmp_path, *RUN, *words, stdout=full, stderr=full).wait(180) == 0
    assert len(list((tmp_path / "run").rglob("metrics.json"))) == runs


@pytest.mark.slow
def test_run_finishes_when_its_terminal_is_closed(tmp_path):
    terminal, process_side = pty.openpty()
    process = start(tmp_path, *RUN, stdout=process_side, stderr=process_side)
    os.close(process_side)
    assert b"model" in os.read(terminal, 1000)
    os.close(terminal)
    assert process.wait(120) == 0
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_help_into_a_closed_pipe_is_no_error(tmp_path):
    process = start(tmp_path, "--help", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(120), errors) == (0, b"")


@pytest.mark.slow
def test_run_finishes_without_stdout_and_stderr(tmp_path):
    command = ["sh", "-c", '"$0" "$@" >&- 2>&-', sys.executable, str(ROOT / "train.py"), *RUN, "callbacks=none"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "run" / "metrics.json").is_file()

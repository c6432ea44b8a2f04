"""Many commands that start into one outputs/ at the same moment, and a place that cannot be written to."""

import ctypes
import multiprocessing
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from losslab import runs
from losslab.errors import LabError
from losslab.runs import folder
from losslab.training import config

ROOT = Path(__file__).parents[2]
NAME = ("linear", "line", "mse", 0, None, None)


def _claim(place, barrier, answers, path):
    os.chdir(place)
    folder.secrets.token_hex = lambda _: f"{random.SystemRandom().randrange(256):04x}"  # many draw the same name
    barrier.wait()
    try:
        answers.put(config._run_path(path, None, *NAME))
    except LabError as error:
        answers.put(f"refused: {error}")


@pytest.mark.parametrize("path", [None, "outputs/one"], ids=["named by the time", "one run_dir"])
def test_a_hundred_processes_at_one_moment_have_a_folder_each_or_one_of_them_has_it(path, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(100), context.Queue()
    children = [context.Process(target=_claim, args=(tmp_path, barrier, answers, path)) for _ in range(100)]
    for child in children:
        child.start()
    said = [answers.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    taken = [each for each in said if not each.startswith("refused")]
    assert len(set(taken)) == len(taken) == (100 if path is None else 1), said
    refused = [each for each in said if each not in taken]
    assert all("set run_dir to another folder" in each for each in refused)
    assert len(list((tmp_path / "outputs").rglob("train.log"))) == len(taken)


def _as_anybody():
    """Root may write everywhere: without this right (CAP_DAC_OVERRIDE) it is as anybody else."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


def _said(place: Path, *words: str, **environment: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, *words], cwd=place, capture_output=True, text=True, check=False, preexec_fn=_as_anybody,
        env=os.environ | environment,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("words", [[], ["seed=0,1", "-m"]], ids=["run", "sweep"])
def test_outputs_that_cannot_be_written_to_are_one_line(words, tmp_path):
    (tmp_path / "outputs").mkdir(mode=0o555)
    code, said = _said(tmp_path, str(ROOT / "train.py"), *words)
    assert (code, said.count("\n")) == (1, 1), said
    assert said.startswith("cannot write to the run folder outputs/")
    assert said.endswith("(Permission denied): set run_dir to a folder you may write\n")


def test_without_a_home_on_a_terminal_of_ascii_from_read_only_data_a_run_is_as_ever(tmp_path):
    (tmp_path / "home").mkdir(mode=0o555)
    (tmp_path / "data").mkdir(mode=0o555)
    words = ["model=mlp", "data=diabetes", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none", "logger=none"]
    code, said = _said(
        tmp_path, str(ROOT / "train.py"), *words, HOME=str(tmp_path / "home"), LOSSLAB_DATA=str(tmp_path / "data"),
        PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert code == 0, said
    assert "matplotlib" not in said.lower()
    assert "metric" in said
    assert "---" in said


def test_a_full_disk_is_told_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(runs.claiming, "_write_as_much_as_a_run_begins_with", _full)
    with pytest.raises(LabError, match=r"No space left on device.*: set run_dir to a folder you may write"):
        runs.claim(tmp_path / "outputs" / "run")
    assert not (tmp_path / "outputs").exists()


def _full(file: Path) -> None:
    file.unlink()
    raise OSError(28, os.strerror(28))

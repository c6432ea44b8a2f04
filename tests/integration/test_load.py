"""Many commands that start in one outputs/ at the same moment, and folders that cannot be written to."""

import ctypes
import multiprocessing
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

from losslab import runs
from losslab.errors import LabError
from losslab.runs import folder
from losslab.training import config

ROOT = Path(__file__).parents[2]


def _claim(cwd, barrier, answers, path):
    os.chdir(cwd)
    folder.secrets.token_hex = lambda _: (
        f"{random.SystemRandom().randrange(256):04x}"
    )  # so that many draw the same name
    config.register()
    cfg = OmegaConf.create({"run_dir": path, "claimed": "${run_path:${run_dir},linear-line-mse-s0}"})
    barrier.wait()
    try:
        answers.put(cfg.claimed)
    except InterpolationResolutionError as error:
        answers.put(f"refused: {error}")


@pytest.mark.parametrize("path", [None, pytest.param("outputs/one", marks=pytest.mark.slow)])
def test_a_hundred_processes_at_once_claim_different_folders_or_one_of_them_claims_run_dir(path, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(100), context.Queue()
    children = [context.Process(target=_claim, args=(tmp_path, barrier, answers, path)) for _ in range(100)]
    for child in children:
        child.start()
    results = [answers.get(timeout=60) for _ in children]
    for child in children:
        child.join()
    claimed = [each for each in results if not each.startswith("refused")]
    assert len(set(claimed)) == len(claimed) == (100 if path is None else 1), results
    refused = [each for each in results if each not in claimed]
    assert all("set run_dir to another folder" in each for each in refused)
    assert len(list((tmp_path / "outputs").rglob("train.log"))) == len(claimed)


def _drop_privileges():
    """Root may write everywhere; without CAP_DAC_OVERRIDE it may not."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)


def _run_command(cwd: Path, *words: str, **environment: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, *words], cwd=cwd, capture_output=True, text=True, check=False, preexec_fn=_drop_privileges,
        env=os.environ | environment,
    )  # fmt: skip
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("words", [[], ["seed=0,1", "-m"]], ids=["run", "sweep"])
def test_unwritable_outputs_is_a_one_line_error(words, tmp_path):
    (tmp_path / "outputs").mkdir(mode=0o555)
    code, output = _run_command(tmp_path, str(ROOT / "train.py"), *words)
    assert (code, output.count("\n")) == (1, 1), output
    assert output.startswith("cannot write to the run folder outputs/")
    assert output.endswith("(Permission denied): set run_dir to a writable folder\n")


@pytest.mark.slow
def test_run_without_a_writable_home_with_ascii_output_and_read_only_data(tmp_path):
    (tmp_path / "home").mkdir(mode=0o555)
    (tmp_path / "data").mkdir(mode=0o555)
    words = ["model=mlp", "data=diabetes", "trainer=cpu", "trainer.max_epochs=1", "callbacks=none", "logger=none"]
    code, output = _run_command(
        tmp_path, str(ROOT / "train.py"), *words, HOME=str(tmp_path / "home"), LOSSLAB_DATA=str(tmp_path / "data"),
        PYTHONIOENCODING="ascii",
    )  # fmt: skip
    assert code == 0, output
    assert "matplotlib" not in output.lower()
    assert "metric" in output
    assert "---" in output


def test_full_disk_is_reported_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[runs.claim.__module__], "_check_space", _full)
    with pytest.raises(LabError, match=r"No space left on device.*: set run_dir to a writable folder"):
        runs.claim(tmp_path / "outputs" / "run")
    assert not (tmp_path / "outputs").exists()


def _full(file: Path) -> None:
    file.unlink()
    raise OSError(28, os.strerror(28))

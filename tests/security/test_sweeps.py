"""What a sweep's folder says of its jobs makes nothing, and writes nowhere, that one's run may not.

The words of its command are held against a list (tests/unit/sweep/test_resume.py). Here that list lets everything through.
"""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAKY = "from losslab.cli.train import train\nfrom losslab.sweep import resume\nresume.{}\ntrain()"
ALL_GOES = "harmless = lambda part: True"
USUAL = ["-m", "trainer=cpu", "trainer.max_epochs=2", "logger=none"]


class Call:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "here" / "sweep"
    folder.mkdir(parents=True)
    (folder / "pickled").write_bytes(pickle.dumps(Call(f"touch {tmp_path / 'canary'}")))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nf = list\n")
    for name, target in (("load", "numpy.load"), ("module", "sweep.evil.f")):
        made = {"_target_": target, "file": str(folder / "pickled"), "allow_pickle": True}
        (folder / f"{name}.yaml").write_text(json.dumps(made))
    return folder


def resume(sweep, *words, leaks=ALL_GOES, jobs=()):
    (sweep / "summary.json").write_text(json.dumps({"command": [*USUAL, *words], "jobs": jobs}))
    command = [sys.executable, "-c", LEAKY.format(leaks), "resume=sweep"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONSAFEPATH": "1"}
    ended = subprocess.run(command, cwd=sweep.parent, env=environment, text=True, capture_output=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


@pytest.mark.parametrize("which", ["load", "module"])
def test_a_group_from_elsewhere_is_not_made(which, sweep, tmp_path):
    code, said = resume(sweep, f"loss={'../' * 15}{sweep.relative_to('/')}/{which}")
    assert code == 1
    assert "is made" in said
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "word", ["seed=x/../../victim/new", "callbacks.history.run_dir=..", "hydra.sweep.subdir=../victim", "seed='../x'"]
)
def test_jobs_write_into_the_sweep_alone(word, sweep):
    (sweep.parent / "victim").mkdir()
    code, said = resume(sweep, word)
    assert code == 1
    assert "1 of 1 jobs are not done" in said
    assert not [*(sweep.parent / "victim").iterdir()]
    assert {path.name for path in sweep.parent.iterdir()} == {"sweep", "victim"}


def test_what_lies_in_the_folder_of_a_job_leads_nowhere(sweep):
    (sweep.parent / "victim").mkdir()
    job = sweep / "0-linear-line-mse-s0"
    job.mkdir()
    (job / ".hydra").symlink_to(sweep.parent / "victim")
    code, said = resume(sweep)
    assert code == 0, said  # in another folder
    assert (sweep / "1-linear-line-mse-s0" / "metrics.json").is_file()
    assert not [*(sweep.parent / "victim").iterdir()]


def test_an_ordinary_sweep_is_completed(sweep):
    code, said = resume(sweep, "loss=mse,l1", leaks="FLAGS")
    assert code == 0, said
    assert len([*sweep.glob("*/metrics.json")]) == 2

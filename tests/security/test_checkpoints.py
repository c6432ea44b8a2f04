"""Nothing in a checkpoint is executed, waited for or believed; anything else is refused in one line."""

import contextlib
import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from checkpoints import ALL, CHANGES, LIVE, REASONS, STRAYS

from losslab.errors import LabError
from losslab.io import atomic
from losslab.runs import RunFolder, checkpoint
from losslab.sweep.recorded import relocate
from losslab.training import experiment, weights
from losslab.training.config import compose


@pytest.mark.parametrize("name", ALL)
def test_malicious_file_is_refused_and_not_executed(name, tmp_path):
    folder, canary = RunFolder(tmp_path), tmp_path / "canary"
    folder.last.parent.mkdir()
    ALL[name](folder.last, canary)
    ways = (
        lambda: weights.load_network(nn.Sequential(nn.Linear(2, 2)), folder.last),
        lambda: checkpoint.find_resume_point(folder),
    )
    for way in ways:
        with pytest.raises(LabError, match=r"last\.ckpt") as found:
            way()
        assert "\n" not in str(found.value)
        assert "weights_only" not in str(found.value)
        assert REASONS.get(name, "") in str(found.value)
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore")
def test_loaded_unsafely_they_are_executed(tmp_path):
    """The negative control."""
    for name, write in LIVE.items():
        file, canary = tmp_path / "file", tmp_path / "canary"
        write(file, canary)
        with contextlib.suppress(Exception):
            torch.load(file, weights_only=False)
        assert canary.exists(), name
        canary.unlink()


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folder of a run, and what a checkpoint in the midst of it holds."""
    path = tmp_path_factory.mktemp("interrupted") / "run"
    options = ["trainer=cpu", "trainer.enable_progress_bar=false", "logger=none", "trainer.max_epochs=3"]
    run = experiment.build(compose([*options, "callbacks.checkpoints.every_seconds=0"], str(path)))
    experiment.run(run)
    content = checkpoint.read(run.folder.last)
    content.pop("trained")
    run.folder.metrics.unlink()
    return run.folder.path, content


@pytest.mark.parametrize("name", CHANGES)
def test_run_does_not_resume_from_a_mismatched_checkpoint(name, interrupted, tmp_path):
    path, content = interrupted
    folder = RunFolder(shutil.copytree(path, tmp_path / "run"))
    torch.save(CHANGES[name](content), folder.last)
    atomic.checksum_path(folder.last).unlink()
    config = folder.read_config()
    config = relocate(config, folder.path)
    built = experiment.build(config | {"trainer": config["trainer"] | {"max_epochs": 5}})
    with pytest.raises(LabError, match=r"last\.ckpt") as found:
        experiment.run(built, resume=True)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("name", STRAYS)
def test_run_does_not_resume_from_a_checkpoint_with_foreign_paths(name, interrupted, tmp_path):
    path, content = interrupted
    folder = RunFolder(shutil.copytree(path, tmp_path / "run"))
    folder.previous.unlink(missing_ok=True)
    torch.save(STRAYS[name](content), folder.last)
    atomic.checksum_path(folder.last).unlink()
    with pytest.raises(LabError, match=r"would write to|it contains checkpoint_callback") as found:
        checkpoint.find_resume_point(folder)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("moved", [False, True])
def test_paths_that_a_callback_wrote_are_allowed(moved, tmp_path):
    home = tmp_path / "run"
    home.mkdir()
    place = Path("/before/run") if moved else home
    kept = {
        "monitor": "val/accuracy", "dirpath": f"{place}/checkpoints", "best_model_path": f"{place}/checkpoints/a.ckpt",
        "best_k_models": {f"{place}/checkpoints/a.ckpt": torch.tensor(0.5)}, "kth_best_model_path": "",
    }  # fmt: skip
    assert not [*checkpoint.foreign_paths(kept, home)]
    (home / "checkpoints").mkdir()
    (home / "checkpoints" / "link").symlink_to(tmp_path)
    through = kept | {"dirpath": "/", "best_model_path": f"{home}/checkpoints/link/victim"}
    assert [*checkpoint.foreign_paths(through, home)]

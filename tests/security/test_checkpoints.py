"""An untrusted checkpoint executes no code and blocks no process. If it does not fit, it is refused in one line."""

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
from losslab.io import atomic, torch_files
from losslab.runs import RunFolder, resume_checkpoint
from losslab.sweep.recorded import relocate
from losslab.training import experiment, weights
from losslab.training.config import compose


@pytest.mark.parametrize("name", ALL)
def test_malicious_file_is_refused_and_not_executed(name, tmp_path):
    folder, canary = RunFolder(tmp_path), tmp_path / "canary"
    folder.last.parent.mkdir()
    ALL[name](folder.last, canary)
    readers = (
        lambda: weights.load_network(nn.Sequential(nn.Linear(2, 2)), folder.last),
        lambda: resume_checkpoint.find_resume_point(folder),
    )
    for read in readers:
        with pytest.raises(LabError, match=r"last\.ckpt") as found:
            read()
        assert "\n" not in str(found.value)
        assert "weights_only" not in str(found.value)
        assert REASONS.get(name, "") in str(found.value)
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore")
def test_malicious_files_execute_code_if_they_are_loaded_unsafely(tmp_path):
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
    """The folder of a run, and the content of a checkpoint from before the end of training."""
    path = tmp_path_factory.mktemp("interrupted") / "run"
    options = ["trainer=cpu", "trainer.enable_progress_bar=false", "logger=none", "trainer.max_epochs=3"]
    run = experiment.build(compose([*options, "callbacks.checkpoints.every_seconds=0"], str(path)))
    experiment.run(run)
    content = torch_files.load(run.folder.last)
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
        resume_checkpoint.find_resume_point(folder)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("moved", [False, True])
def test_paths_of_files_that_a_callback_wrote_are_allowed(moved, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    written = Path("/before/run") / "checkpoints" if moved else folder / "checkpoints"
    state = {
        "monitor": "val/accuracy", "dirpath": f"{written}", "best_model_path": f"{written}/a.ckpt",
        "best_k_models": {f"{written}/a.ckpt": torch.tensor(0.5)}, "kth_best_model_path": "",
    }  # fmt: skip
    assert not [*resume_checkpoint.foreign_paths(state, folder)]
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "link").symlink_to(tmp_path)
    through_link = state | {"dirpath": "/", "best_model_path": f"{folder}/checkpoints/link/victim"}
    assert [*resume_checkpoint.foreign_paths(through_link, folder)]

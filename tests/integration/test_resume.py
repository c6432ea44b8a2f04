"""A run resumed from any checkpoint ends exactly as if it had not been interrupted."""

import json
import shutil

import pytest
import torch
from processes import TRAIN, python
from quick import sample
from states import outcome
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from losslab import runs
from losslab.data import sklearn_datasets
from losslab.errors import LabError
from losslab.io import atomic
from losslab.models.learner import Learner
from losslab.runs import RunFolder, resume_checkpoint
from losslab.training import experiment
from losslab.training.callbacks import checkpoint as saving
from losslab.training.config import compose

FAST = ("trainer=cpu", "trainer.enable_progress_bar=false", "logger=none", "examine=false")
ALWAYS = "callbacks.checkpoints.every_seconds=0"
DIGITS = (
    "model=mlp",
    "data=digits",
    "data.size=8",
    "data.batch_size=250",
    "loss=cross_entropy",
    "trainer.max_epochs=3",
)

RUNS = {
    "linear": ("trainer.max_epochs=12",),
    "accumulated": (
        *DIGITS, "data.batch_size=60", "trainer.accumulate_grad_batches=4", "scheduler=one_cycle", "callbacks=ema",
        "trainer.precision=bf16-mixed",
    ),
    "plateau": (*DIGITS, "scheduler=plateau"),
    "optimizer with modes": (
        *DIGITS, "optimizer=sgd", "optimizer._target_=modes.Modal", "~optimizer.momentum", "~optimizer.weight_decay",
        "~optimizer.maximize",
    ),
    "dynamics": (*DIGITS, "callbacks=dynamics", "callbacks.dynamics.draw=false", "callbacks.dynamics.examples=50"),
    "validated within": (*DIGITS, "+trainer.val_check_interval=2", "noise=symmetric", "noise.rate=0.3"),
    "validated seldom": (*DIGITS, "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=4"),
    "stopped early": (*DIGITS, "callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=0.1"),
    "asked to stop before it may": (
        *DIGITS, "+callbacks.asks._target_=workers.AsksToStop", "+callbacks.asks.step=2", "+trainer.min_epochs=2",
    ),
    "epochs cut short": (*DIGITS, "trainer.limit_train_batches=4"),
    "overfitted": (*DIGITS, "trainer.overfit_batches=2", "trainer.max_epochs=5"),
    "limited by steps": (*DIGITS, "trainer.max_steps=9", "trainer.max_epochs=-1"),
    "annealed": (
        *DIGITS, "loss=focal", "callbacks=anneal", "callbacks.anneal.parameter=gamma", "callbacks.anneal.end=0",
    ),
    "reweighted": (
        *DIGITS, "imbalance=long_tail", "callbacks=deferred_reweighting", "callbacks.deferred_reweighting.start=0.5",
    ),
}  # fmt: skip


def build(folder, *overrides):
    return experiment.build(compose([*FAST, *overrides], str(folder)))


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """Train, and keep the run folder as it was after each checkpoint → the whole run, and the kept folders."""

    def _interrupted(*overrides):
        whole, kept = tmp_path / "whole", []
        save = saving.write_checkpoint

        def kept_too(state, path):
            save(state, path)
            if path.name == "last.ckpt":
                kept.append(tmp_path / f"kept{len(kept)}")
                shutil.copytree(whole, kept[-1])

        monkeypatch.setattr(saving, "write_checkpoint", kept_too)
        experiment.run(build(whole, ALWAYS, *overrides))
        monkeypatch.setattr(saving, "write_checkpoint", save)
        return whole, kept

    return _interrupted


def resumed(folder, *overrides):
    experiment.run(build(folder, ALWAYS, *overrides), resume=True)
    return outcome(folder)


@pytest.mark.parametrize("name", sample(RUNS, "accumulated", "dynamics", "epochs cut short", "plateau"))
def test_run_resumed_from_any_checkpoint_ends_as_the_undisturbed_one(name, interrupted):
    whole, kept = interrupted(*RUNS[name])
    expected = outcome(whole)
    assert len(kept) > 5
    for folder in (*kept[1::4], kept[-1]):  # the last one when training was over
        assert resumed(folder, *RUNS[name]) == expected, folder.name


def test_resumed_run_differs_without_the_state_that_lightning_does_not_save(interrupted, monkeypatch):
    """The control: a resumed epoch forgets its averages, and under one_cycle starts at its first batch again."""
    whole, kept = interrupted(*RUNS["accumulated"])
    monkeypatch.setattr(Learner, "on_train_start", lambda _: None)
    found = resumed(kept[1], *RUNS["accumulated"])
    expected = outcome(whole)
    assert found["weights"] != expected["weights"]
    assert found["history.csv"] != expected["history.csv"]


@pytest.mark.parametrize("damage", ["cut off", "flipped", "dangling"])
def test_damaged_checkpoint_is_skipped_with_a_warning(damage, interrupted, caplog):
    whole, kept = interrupted(*RUNS["plateau"])
    last = RunFolder(kept[3]).last
    if damage == "dangling":
        last.unlink()
        last.symlink_to("nowhere")
    else:
        content = bytearray(last.read_bytes())
        content[len(content) // 2] ^= 1
        last.write_bytes(content[:-100] if damage == "cut off" else content)
    assert resumed(kept[3], *RUNS["plateau"]) == outcome(whole)
    assert "resuming from the previous checkpoint" in caplog.text
    assert "last.ckpt" in caplog.text


def test_folder_with_damaged_checkpoints_alone_is_refused(interrupted):
    _, kept = interrupted(*RUNS["plateau"])
    for path in (RunFolder(kept[-2]).last, RunFolder(kept[-2]).previous):
        path.write_bytes(b"nothing")
    before = sorted(path.read_bytes() for path in kept[-2].rglob("*") if path.is_file())
    with pytest.raises(LabError, match="no intact checkpoint to resume from") as refused:
        resumed(kept[-2], *RUNS["plateau"])
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith("best.ckpt"), "which is whole"
    assert sorted(path.read_bytes() for path in kept[-2].rglob("*") if path.is_file()) == before


@pytest.mark.parametrize("damage", ["flipped", "deleted"])
def test_run_with_a_damaged_best_checkpoint_is_refused(damage, interrupted):
    _, kept = interrupted(*RUNS["plateau"])
    folder = RunFolder(kept[-2])
    content = bytearray(folder.best.read_bytes())
    content[len(content) // 2] ^= 1
    folder.best.unlink()
    if damage == "flipped":
        folder.best.write_bytes(content)
    history = folder.history.read_bytes()
    said = r"best\.ckpt (is damaged|is missing).* from the newest weights with ckpt_path=.*last\.ckpt$"
    with pytest.raises(LabError, match=said):
        resumed(kept[-2], *RUNS["plateau"])
    assert folder.history.read_bytes() == history
    assert not folder.weights.exists()


def test_weights_pth_never_contains_another_epoch_than_the_best(interrupted, monkeypatch):
    _, kept = interrupted(*RUNS["plateau"])
    best = resume_checkpoint.read_best
    monkeypatch.setattr(resume_checkpoint, "read_best", lambda folder: best(folder) | {"epoch": 77})
    monkeypatch.setattr(
        saving.BestAndLastCheckpoint, "_is_better", lambda *_: False
    )  # the best epoch is an earlier one
    with pytest.raises(
        LabError, match=r"best\.ckpt was saved in epoch 78, .* the best epoch is \d, whose weights are not saved"
    ):
        resumed(kept[-2], *RUNS["plateau"])


def test_partial_files_of_a_killed_process_are_removed(interrupted):
    whole, kept = interrupted(*RUNS["linear"])
    folder = RunFolder(kept[3])
    left = [folder.path / ".metrics.json.1.tmp", folder.last.with_name(".last.ckpt.1.tmp")]
    for path in left:
        path.write_bytes(b"half")
    assert resumed(kept[3], *RUNS["linear"]) == outcome(whole)
    assert not any(path.exists() for path in left)


@pytest.mark.slow
def test_student_resumes_with_the_copy_of_its_teacher(interrupted, tmp_path):
    teacher = tmp_path / "teacher"
    experiment.run(build(teacher, *DIGITS, "seed=1"))
    overrides = (*DIGITS, "loss=distillation", f"teacher={teacher}")
    whole, kept = interrupted(*overrides)
    shutil.rmtree(teacher)
    assert train(f"resume={kept[3]}", cwd=tmp_path).returncode == 0
    assert outcome(kept[3]) == outcome(whole)


def test_message_advises_a_new_run_if_the_best_checkpoint_is_damaged_too(interrupted):
    _, kept = interrupted(*RUNS["plateau"])
    folder = RunFolder(kept[-2])
    for path in (folder.last, folder.previous, folder.best):
        path.write_bytes(b"nothing")
    with pytest.raises(LabError, match="Start a new run from the beginning"):
        resumed(kept[-2], *RUNS["plateau"])


def test_checkpoint_without_a_checksum_is_used_if_it_can_be_read(interrupted):
    whole, kept = interrupted(*RUNS["linear"])
    atomic.checksum_path(RunFolder(kept[3]).last).unlink()
    assert resumed(kept[3], *RUNS["linear"]) == outcome(whole)
    torch.save({"state_dict": {}}, RunFolder(kept[5]).last)
    atomic.checksum_path(RunFolder(kept[5]).last).unlink()
    assert resume_checkpoint.find_resume_point(RunFolder(kept[5])).path == RunFolder(kept[5]).previous


def test_tensorboard_shows_each_step_once(interrupted):
    options = (*RUNS["plateau"], "logger=tensorboard")
    folder, kept = interrupted(*options)
    # The folder of a run that logged all of it, and then goes on from the middle.
    for name in ("last.ckpt", "last.ckpt.sha256"):
        shutil.copy(RunFolder(kept[3]).last.with_name(name), RunFolder(folder).last.with_name(name))
    resumed(folder, *options)
    shown = EventAccumulator(str(folder)).Reload()
    steps = [event.step for event in shown.Scalars("train/loss")]
    assert steps == sorted(set(steps))
    assert len(steps) == 3


def test_run_killed_before_its_first_checkpoint_restarts_with_a_warning(interrupted, caplog):
    options = (*RUNS["plateau"], "logger=tensorboard")
    folder, _ = interrupted(*options)
    expected = outcome(folder)
    shutil.rmtree(RunFolder(folder).last.parent)
    assert resumed(folder, *options) == expected
    assert "from the beginning: no checkpoint had been written yet" in caplog.text
    shown = EventAccumulator(str(folder)).Reload()
    assert len(shown.Scalars("train/loss")) == 3


def test_resuming_with_other_data_is_refused(interrupted):
    _, kept = interrupted(*RUNS["plateau"])
    with pytest.raises(LabError, match="the data are not those"):
        resumed(kept[3], *RUNS["plateau"], "data.split_seed=1")


def test_resuming_with_other_examples_of_the_same_form_is_refused(interrupted, monkeypatch):
    _, kept = interrupted(*RUNS["plateau"])
    inputs, target = sklearn_datasets.Digits.read(build(kept[3], *RUNS["plateau"]).data)
    monkeypatch.setattr(sklearn_datasets.Digits, "read", lambda _: (inputs.flip(1), target))
    with pytest.raises(LabError, match="the data are not those"):
        resumed(kept[3], *RUNS["plateau"])


def test_finished_run_keeps_a_small_best_and_the_last_checkpoint(tmp_path):
    built = build(tmp_path / "run", ALWAYS, *RUNS["plateau"])
    experiment.run(built)
    assert {path.name for path in built.folder.last.parent.iterdir()} == {
        "best.ckpt", "best.ckpt.sha256", "last.ckpt", "last.ckpt.sha256",
    }  # fmt: skip


# The command


def train(*arguments, cwd):
    return python(*TRAIN, *map(str, arguments), cwd=cwd)


def line(done):
    assert done.returncode == 1, done.stdout + done.stderr
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run of the command, and one that is the same but for its end: it has half of its epochs behind it."""
    place = tmp_path_factory.mktemp("half")
    dying = (
        "import os, signal, sys\n"
        "from losslab.training.callbacks import checkpoint\n"
        "save = checkpoint.write_checkpoint\n"
        "def dies(state, path):\n"
        "    save(state, path)\n"
        "    if state['global_step'] == 50:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint.write_checkpoint = dies\n"
        "from losslab.cli.train import train\n"
        "sys.argv = ['train.py', *sys.argv[1:]]\n"
        "train()\n"
    )
    usual = [ALWAYS, "trainer=cpu", "model=linear", "trainer.max_epochs=100"]
    assert train(*usual, "run_dir=whole", cwd=place).returncode == 0
    done = python("-c", dying, *usual, "run_dir=half", cwd=place)
    assert done.returncode == -9, done.stdout + done.stderr
    return place


@pytest.fixture
def place(half, tmp_path):
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_command_resumes_and_leaves_the_configuration_unchanged(place):
    config, log = (place / "half" / "config.json").read_bytes(), (place / "half" / "train.log").read_text()
    composed = {path.name: path.read_bytes() for path in (place / "half" / ".hydra").iterdir()}
    done = train("resume=half", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcome(place / "half") == outcome(place / "whole")
    assert (place / "half" / "config.json").read_bytes() == config
    assert {path.name: path.read_bytes() for path in (place / "half" / ".hydra").iterdir()} == composed
    assert (place / "half" / "train.log").read_text().startswith(log)
    again = train("resume=half", cwd=place)
    assert again.returncode == 0
    assert "half is finished: there is nothing to resume" in again.stdout
    assert outcome(place / "half") == outcome(place / "whole")


def test_moved_folder_resumes_in_its_new_place(place):
    (place / "half").rename(place / "moved here")
    done = train("resume=moved here", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcome(place / "moved here") == outcome(place / "whole")
    assert not (place / "half").exists()


def test_run_killed_before_it_wrote_anything_starts_from_the_beginning(place):
    for path in (place / "half").iterdir():
        if path.name not in {".hydra", "train.log"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = train("resume=half", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert outcome(place / "half") == outcome(place / "whole")
    told = [json.loads((place / name / "config.json").read_text()) for name in ("half", "whole")]
    assert told[0] | {"run_dir": "", "callbacks": {}, "logger": {}} == told[1] | {
        "run_dir": "", "callbacks": {}, "logger": {}
    }  # fmt: skip


@pytest.mark.slow
def test_run_that_another_process_trains_is_refused(place):
    with runs.lock(place / "half"):
        refused = train("resume=half", cwd=place)
    assert refused.returncode == 1
    assert "another process is training in half: wait until it ends" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    assert train("resume=half", cwd=place).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resume=nowhere"], "resume=nowhere: there is no such folder"),
        (["resume=empty"], "empty is not the folder of a started run: check the path, or start the run again"),
        (["resume=half", "optimizer.lr=0.1"], "optimizer.lr cannot be changed"),
        (["resume=half", "-m"], "-m cannot be changed"),
    ],
)
def test_command_that_cannot_resume_a_run_is_refused_in_one_line(place, arguments, said):
    (place / "empty").mkdir()
    assert said in line(train(*arguments, cwd=place))

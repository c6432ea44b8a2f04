"""`losslab explain`: what applies is drawn and shown in TensorBoard, what does not is said."""

import os
import subprocess
import sys

import pytest
from processes import ROOT, VERB, python
from tensorboard.backend.event_processing.event_accumulator import IMAGES, EventAccumulator

from losslab.analysis.explain import EXPLANATIONS
from losslab.runs import RunFolder
from losslab.training import experiment
from losslab.training.config import compose

FEW = ("--points", "3", "--examples", "40")


def explain(*arguments, cwd):
    return python(*VERB, "explain", *map(str, arguments), cwd=cwd, COLUMNS="200")


@pytest.fixture(scope="module")
def linear(train):
    return train("trainer.max_epochs=20")[0].folder


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """A folder with two seeds of a network."""
    place = tmp_path_factory.mktemp("seeds")
    for seed in (0, 1):
        few = ("trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "logger=none")
        run = ("model=mlp", "data=digits", "data.size=8", f"seed={seed}", *few)
        experiment.run(experiment.build(compose(run, str(place / str(seed)))))
    return place


@pytest.fixture(scope="module")
def mlp(seeds):
    return RunFolder(seeds / "0")


def test_help_and_the_choice_of_explanations_need_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    hidden = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "src")]), "COLUMNS": "200"}
    command = [sys.executable, *VERB, "explain", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=hidden)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in EXPLANATIONS)
    code = (
        "from losslab.analysis.explain import EXPLANATIONS\n"
        "config = {'model': {'_target_': 'mine'}}\n"
        "print([name for name, one in EXPLANATIONS.items() if one.applies(config)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=hidden)
    assert done.stdout == "['landscape', 'barrier']\n"


def test_figures_of_one_run_are_written_into_its_folder_and_tensorboard(linear, tmp_path):
    """Twice, since a second look replaces the first."""
    own = {path: path.read_bytes() for path in linear.path.glob("events.out.tfevents.*")}
    for _ in range(2):
        done = explain(linear.path, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "surface     mse ends " in done.stdout
    assert f"not drawn   landscape: {linear.path} is not a run of a network" in done.stdout
    assert done.stderr == ""
    assert (linear.figures / "surface.png").is_file()
    assert (linear.figures / "loss_curve.png").is_file()
    assert all(path.read_bytes() == content for path, content in own.items())
    assert len(list(linear.path.glob("events.out.tfevents.*"))) == len(own) + 1
    shown = EventAccumulator(str(linear.path), size_guidance={IMAGES: 0}).Reload()
    (image,) = shown.Images("explain/surface")
    assert image.encoded_image_string == (linear.figures / "surface.png").read_bytes()
    assert len(shown.Scalars("train/loss")) == 20


@pytest.mark.slow
def test_figures_of_several_runs_are_written_into_a_new_folder(seeds, mlp, linear, tmp_path):
    done = explain(seeds, *FEW, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "outputs").iterdir()
    assert {"landscape.png", "landscape.csv", "barrier.png", "barrier.csv"} <= {path.name for path in folder.iterdir()}
    assert f"figures     {folder.relative_to(tmp_path)}" in done.stdout
    mixed = explain(mlp.path, linear.path, *FEW, cwd=tmp_path)
    assert mixed.returncode == 1
    assert len(mixed.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere is not a run folder: it contains no config.json\n"),
        (["MLP", "--what", "linear"], "linear: MLP is not a run of the linear model (model=linear)\n"),
        (["MLP", "--what", "barrier"], "barrier: a single run has no barrier: name two or more runs of one network\n"),
        (["MLP", "--output", "file"], "file is a file: name another folder with --output\n"),
        (["MLP", "--points", "1"], "points must be an integer from 2 to 1001, got 1"),
    ],
)
def test_an_explanation_that_does_not_apply_is_reported_in_one_line(mlp, tmp_path, arguments, message):
    (tmp_path / "file").touch()
    done = explain(*(argument.replace("MLP", str(mlp.path)) for argument in arguments), cwd=tmp_path)
    assert done.returncode in {1, 2}
    assert done.stderr.endswith(message.replace("MLP", str(mlp.path))) or message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_a_run_without_a_checkpoint_is_refused(mlp, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "config.json").write_bytes(mlp.config.read_bytes())
    done = explain("copy", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no checkpoint at copy/checkpoints/last.ckpt" in done.stderr

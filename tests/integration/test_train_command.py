"""The commands as a user types them, each in a new process."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT, TRAIN, VERB, python


def losslab(*arguments: str, cwd: Path, program: tuple[str, ...] = TRAIN, **environment: str):
    return python(*program, *arguments, cwd=cwd, COLUMNS="200", HYDRA_FULL_ERROR="0", **environment)


def interpreter(*arguments: str, cwd: Path, program: tuple[str, ...] = TRAIN, **environment: str):
    """Run the command in a new interpreter, for what is imported when it starts."""
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"COLUMNS": "200", "HYDRA_FULL_ERROR": "0"} | environment,
    )  # fmt: skip


def test_train_without_arguments_is_the_linear_regression_and_writes_a_complete_run(tmp_path):
    done = interpreter(cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    run = next(tmp_path.glob("outputs/linear-line-mse-s0/*"))
    for name in (
        "config.json", "metrics.json", "history.csv", "timing.csv", "train.log", "weights.pth", "checkpoints/best.ckpt",
        "checkpoints/last.ckpt", "figures/loss_curve.png", ".hydra/overrides.yaml",
    ):  # fmt: skip
        assert (run / name).is_file(), name
    relative = run.relative_to(tmp_path)
    for text in (
        "linear, 2 parameters", "mse", "precision 32-true", f"tensorboard --logdir {relative}", "epoch  100/1000",
        "epoch 1000/1000", "least squares", "weight",
    ):  # fmt: skip
        assert text in done.stdout, text
    assert "least squares" in (run / "train.log").read_text()
    assert json.loads((run / "config.json").read_text())["choices"]["loss"] == "mse"


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp, which prints its settings, is that of Linux")
def test_threads_that_wait_spin_for_a_short_time(tmp_path):
    done = interpreter("trainer.max_epochs=1", cwd=tmp_path, OMP_DISPLAY_ENV="VERBOSE")
    assert done.returncode == 0, done.stderr
    assert "GOMP_SPINCOUNT = '1000'" in done.stderr


def test_help_is_short_and_needs_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    done = interpreter("--help", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) <= 45
    for text in (
        "loss       agce, aul, balanced_softmax, barron",
        "model      airbench, cifar_cnn, linear",
        "Tab completion",
        "-m loss=mse,l1,huber seed=0,1,2",
    ):
        assert text in done.stdout


@pytest.mark.parametrize(
    "verb", [None, "train", "check", "show", "evaluate", "compare", "explain", "predict", "export"]
)
def test_the_help_of_every_verb_needs_no_torch_and_names_the_verb(verb, tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    paths = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    done = interpreter(*filter(None, [verb]), "--help", cwd=tmp_path, program=VERB, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    assert f"losslab {verb or 'VERB'}" in done.stdout


def test_completion_needs_no_torch(tmp_path):
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    done = interpreter(
        "-sc", "query=bash", cwd=tmp_path, PYTHONPATH=str(tmp_path), COMP_LINE="train.py loss=", COMP_POINT="14"
    )
    assert "loss=huber" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["loss=cross_entropy"], "these data give values: choose one of loss=barron, cauchy, charbonnier"),
        (["loss=nothing"], "Available options in 'loss':"),
        pytest.param(["data.batch_size=0"], "data.batch_size must be 1 or more", marks=pytest.mark.slow),
        pytest.param(["data=image_folder"], "a value is missing: add data.dir=...", marks=pytest.mark.slow),
        (["run_dir=/proc/nowhere"], "set run_dir to a writable folder"),
        (["mix=null"], "leave it out with ~GROUP"),
    ],
)
def test_bad_input_is_reported_in_one_line_and_leaves_nothing(tmp_path, arguments, message):
    done = losslab(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    if "loss=nothing" not in arguments:
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("outputs/*/*"))


@pytest.mark.slow
def test_a_traceback_is_shown_when_asked_for(tmp_path):
    done = losslab("loss=cross_entropy", "traceback=true", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "LabError" in done.stderr


def test_a_diverging_run_exits_with_1_and_keeps_its_log(tmp_path):
    done = losslab("optimizer.lr=1", "run_dir=run", cwd=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "became NaN or infinite with loss MSE" in done.stderr
    assert "became NaN or infinite with loss MSE" in (tmp_path / "run" / "train.log").read_text()
    assert (tmp_path / "run" / "history.csv").is_file()


def test_an_exception_of_the_users_network_is_one_line_and_its_traceback_is_in_the_log(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self, input_shape, outputs):\n"
        "        super().__init__(*input_shape, outputs)\n"
        "    def forward(self, x):\n"
        "        if not self.training and len(x) > 60:\n"
        "            raise KeyError('nothing')\n"
        "        return super().forward(x)\n"
    )
    arguments = ("data=diabetes", "model._target_=mine.Net", "trainer.max_epochs=2", "logger=none", "run_dir=run")
    done = losslab(*arguments, "trainer.num_sanity_val_steps=0", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [done.stderr.strip()]
    assert done.stderr.startswith("mine.py:7, in forward: KeyError: 'nothing'")
    assert "Traceback" not in done.stdout
    assert "Traceback" in (tmp_path / "run" / "train.log").read_text()
    shown = losslab(*arguments[:-1], "run_dir=again", "traceback=true", cwd=tmp_path)
    assert "Traceback" in shown.stderr


@pytest.mark.slow
def test_traceback_of_the_users_network_in_several_processes_is_shown_when_asked_for(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os\n"
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def __init__(self, input_shape, outputs):\n"
        "        super().__init__(*input_shape, outputs)\n"
        "    def forward(self, x):\n"
        "        return super().forward(x + [][1] if 'FAIL' in os.environ else x)\n"
    )
    options = ("data=diabetes", "model._target_=mine.Net", "trainer.max_epochs=2", "logger=none")
    assert losslab(*options, "run_dir=run", cwd=tmp_path).returncode == 0
    command = ("evaluate", "run", "--trust", "mine", "--devices", "2")
    line = "mine.py:7, in forward: IndexError: list index out of range"
    assert losslab(*command, cwd=tmp_path, program=VERB, FAIL="").stderr == f"{line}\n"
    shown = losslab(*command, "--traceback", cwd=tmp_path, program=VERB, FAIL="").stderr
    assert shown.splitlines()[-1].endswith(line)
    assert re.search(r'mine.py", line 7, in forward\n.*\n(.*\n)?IndexError: list index', shown)


def test_a_run_is_never_overwritten(tmp_path):
    assert losslab("trainer.max_epochs=2", "run_dir=run", cwd=tmp_path).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    done = losslab("trainer.max_epochs=3", "run_dir=run", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "run already contains a run: set run_dir to another folder\n"
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_evaluate_prints_the_metrics_of_the_training(tmp_path):
    assert losslab("trainer.max_epochs=20", "run_dir=run", cwd=tmp_path).returncode == 0
    done = losslab("evaluate", "run", cwd=tmp_path, program=VERB)
    assert done.returncode == 0, done.stderr
    measured = json.loads((tmp_path / "run" / "metrics.json").read_text())["test/mse"]
    assert f"{measured:.4f}" in done.stdout
    nothing = losslab("evaluate", "elsewhere", cwd=tmp_path, program=VERB)
    assert nothing.returncode == 1
    assert nothing.stderr == "elsewhere is not a run folder: it contains no config.json\n"


@pytest.mark.slow
def test_a_sweep_runs_every_combination_in_its_own_folder(tmp_path):
    done = interpreter("-m", "loss=mse,l1", "seed=0,1", "trainer.max_epochs=5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = sorted(path.parent.name for path in tmp_path.glob("outputs/sweep-*/*/metrics.json"))
    assert runs == ["0-linear-line-mse-s0", "1-linear-line-mse-s1", "2-linear-line-l1-s0", "3-linear-line-l1-s1"]


@pytest.mark.slow
def test_train_works_in_a_checkout_that_is_not_installed(tmp_path):
    # -S and PYTHONPATH: the packages of the environment, without the .pth file of the editable install.
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    done = subprocess.run(
        [sys.executable, "-S", str(ROOT / "train.py"), "trainer.max_epochs=2"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": packages},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_install_contains_the_configurations(tmp_path):
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(ROOT)], check=True
    )
    assert (site / "losslab" / "conf" / "train.yaml").is_file()
    done = subprocess.run(
        [sys.executable, str(site / "bin" / "losslab"), "train", "loss=mse", "model=linear", "trainer.max_epochs=2"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("outputs/linear-line-mse-s0/*/metrics.json"))


@pytest.mark.parametrize("program", [TRAIN, ("-m", "losslab.cli", "train"), ("-m", "losslab.cli", "evaluate")])
def test_a_python_without_the_packages_prints_how_to_get_them(program, tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", *program], env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "source .venv/bin/activate" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("noise.rate=0.3", "noise.rate is set, but no noise is chosen: choose noise=asymmetric, "),
        ("+imbalance.factor=10", "imbalance.factor is set, but no imbalance is chosen: choose imbalance=long_tail"),
        ("mix.alpha=1", "mix.alpha is set, but no mix is chosen: choose mix=cutmix, mixup"),
    ],
)
def test_a_key_of_a_group_without_a_choice_is_refused_with_the_choices(override, message, tmp_path):
    done = losslab(override, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(message) or done.stdout.startswith(message)
    assert len((done.stderr + done.stdout).splitlines()) == 1
    assert not list(tmp_path.rglob("*-s0*"))


def test_names_stay_below_outputs_and_are_taken_as_typed(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    done = losslab("name=..", cwd=inside)
    assert done.returncode == 1
    assert done.stderr == "name=.. is not a path below outputs/: choose another name, or set run_dir to the folder\n"
    assert [*tmp_path.rglob("*")] == [inside]
    done = losslab("name=é#1=(a b)", "trainer.max_epochs=1", "logger=none", "callbacks=none", cwd=inside)
    assert done.returncode == 0, done.stderr
    assert "tensorboard" not in done.stdout, "there is no TensorBoard logger"
    assert "losslab evaluate" not in done.stdout, "there is no checkpoint"
    (run,) = inside.glob("outputs/*/*/config.json")
    assert run.parts[-3] == json.loads(run.read_text())["name"] == "é#1=(a b)"


def test_the_paths_of_a_run_that_hydra_changed_to_can_be_typed_where_it_was_started(tmp_path):
    done = losslab("hydra.job.chdir=true", "trainer.max_epochs=1", "run_dir=a b", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "a b"
    assert f"losslab evaluate '{folder}'" in done.stdout
    assert f"tensorboard --logdir '{folder}'" in done.stdout

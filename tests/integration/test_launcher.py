"""Sweeps from the command line, with real processes, failures and signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from processes import ROOT, alive, start, sweep, wait_for

SHORT = ["trainer=cpu", "trainer.max_epochs=3", "callbacks=default"]


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """Twelve jobs, of which one raises, one runs out of memory and one is killed."""
    folder = tmp_path_factory.mktemp("twelve")
    plan = "{L1-1-0: raise, Huber-2-1: tensors, MSE-2-0: kill}"
    sabotage = ["+callbacks.sabotage._target_=workers.Sabotage", f"+callbacks.sabotage.plan={plan}"]
    axes = ["trainer.devices=1,2", "loss=mse,l1,huber", "seed=0,1"]
    return folder, *sweep(*SHORT, *axes, *sabotage, "hydra.launcher.n_jobs=2", cwd=folder)


BAD = {("l1", 1, 0): "RuntimeError: first line second line", ("huber", 2, 1): "ran out of memory",
       ("mse", 2, 0): "killed by SIGKILL"}  # fmt: skip


def named(job):
    given = dict(override.split("=", 1) for override in job["overrides"])
    return given["loss"], int(given["trainer.devices"]), int(given["seed"])


@pytest.mark.slow
def test_a_failed_job_does_not_stop_the_others(twelve):
    _, code, _, _, summary = twelve
    assert code == 1
    assert (summary["done"], summary["failed"], len(summary["jobs"])) == (9, 3, 12)
    for job in summary["jobs"]:
        if named(job) in BAD:
            assert job["state"] == "failed"
            assert BAD[named(job)] in job["reason"]
        else:
            assert job["state"] == "done"
            assert job["value"] == job["metrics"]["val/mse"]


@pytest.mark.slow
def test_failures_are_logged_when_they_happen_and_in_the_closing_table(twelve):
    _, _, out, errors, _ = twelve
    for reason in BAD.values():
        assert reason in errors
        assert reason in out
    again = f"python {ROOT / 'train.py'} resume=sweep 'trust=[workers]'"
    assert errors.splitlines()[-1] == f"3 of 12 jobs are not done; to complete them: {again}"
    assert "Traceback" not in out + errors


@pytest.mark.slow
def test_every_job_has_its_own_log_and_folder(twelve):
    folder, *_, summary = twelve
    for job in summary["jobs"]:
        run = folder / "sweep" / job["folder"]
        log = (run / "train.log").read_text()
        assert log.count("INFO model ") == 1
        assert (run / ".hydra" / "config.yaml").is_file()
        assert (run / "metrics.json").is_file() == (job["state"] == "done")
        if named(job) not in BAD:
            assert "Traceback" not in log
        elif "killed" not in job["reason"]:
            assert "Traceback" in log
    twins = {}
    for job in summary["jobs"]:
        if job["state"] == "done":
            twins.setdefault(named(job)[::2], []).append(job["value"])
    for values in twins.values():
        assert values == pytest.approx([values[0]] * len(values), rel=1e-5)


def test_jobs_run_at_the_same_time(tmp_path):
    code, out, _, summary = sweep(*SHORT, "loss=mse,l1", "hydra.launcher.n_jobs=2", cwd=tmp_path)
    assert code == 0
    assert summary["done"] == 2
    said = [line for line in out.splitlines() if line.startswith("job ")]
    assert [line.split()[2] for line in said] == ["started", "started", "done", "done"]
    assert "val/mse" in said[-1]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_ends_all_jobs_and_leaves_no_process(number, code, tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()
    slow = ["+callbacks.pid._target_=workers.Pid", f"+callbacks.pid.folder={pids}", "trainer.max_epochs=1000"]
    process = start(
        "-m", "run_dir=sweep", "trainer=cpu", *slow, "loss=mse,l1,huber", "trainer.devices=1,2",
        "hydra.launcher.n_jobs=3", cwd=tmp_path,
    )  # fmt: skip
    assert wait_for(lambda: len(list(pids.iterdir())) >= 4, 120)  # jobs of one and of two processes
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does: to the whole foreground group
    else:
        process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert wait_for(lambda: not any(alive(int(file.name)) for file in pids.iterdir()), 10)
    assert wait_for(lambda: not group(process.pid), 10)
    summary = json.loads((tmp_path / "sweep" / "summary.json").read_text())
    assert summary["interrupted"] == 6


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_of_several_processes_keeps_its_best_weights_when_a_signal_ends_it(number, code, tmp_path):
    run = tmp_path / "run"
    temporary = Path(tempfile.mkdtemp())  # short enough for a socket
    process = start(
        "trainer=ddp_cpu", "trainer.max_epochs=100000", "run_dir=run", cwd=tmp_path, TMPDIR=str(temporary)
    )  # fmt: skip
    history = run / "history.csv"
    rows = lambda: history.read_text().count("\n") if history.is_file() else 0  # noqa: E731
    assert wait_for(lambda: rows() > 20 or process.poll() is not None, 120)  # validated by then
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert (run / "checkpoints" / "best.ckpt").is_file()
    assert wait_for(lambda: not list(temporary.glob("losslab-*")), 10)
    shutil.rmtree(temporary)


def test_a_too_long_path_of_the_temporary_folder_is_reported_in_one_line(tmp_path):
    temporary = tmp_path / ("x" * 100)
    temporary.mkdir()
    process = start("trainer=ddp_cpu", "run_dir=run", cwd=tmp_path, TMPDIR=str(temporary))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.splitlines() == [f"the path {temporary} is too long for a socket: set TMPDIR to a shorter one"]


def group(leader):
    listed = subprocess.run(["ps", "-o", "pid=,args=", "-g", str(leader)], capture_output=True, text=True, check=False)
    return [line for line in listed.stdout.splitlines() if "defunct" not in line]


def test_only_jobs_that_cannot_be_composed_or_built_fail(tmp_path):
    code, _, errors, summary = sweep(*SHORT, "loss=cross_entropy,mse", "trainer.devices=1,0", cwd=tmp_path)
    assert code == 1
    reasons = [job["reason"] or "" for job in summary["jobs"]]
    assert "choose one of loss=" in reasons[0]
    assert reasons[0] in (tmp_path / "sweep" / summary["jobs"][0]["folder"] / "train.log").read_text()
    assert "trainer.devices must be" in reasons[1]
    assert reasons[2] == ""
    assert "trainer.devices must be" in reasons[3]
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("overrides", "said"), [(["loss=nothing,mse"], "there is no loss=nothing"), (["--cfg", "job"], "Only one of --run")]
)
def test_a_sweep_that_cannot_be_composed_is_refused_and_leaves_no_folder(overrides, said, tmp_path):
    process = start("-m", *overrides, cwd=tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said in errors.splitlines()[0]
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_hydra_callbacks_are_called_once_per_job(tmp_path):
    file = tmp_path / "jobs"
    callback = ["+hydra.callbacks.jobs._target_=workers.Jobs", f"+hydra.callbacks.jobs.file={file}"]
    code, *_ = sweep(*SHORT, "trainer.devices=2", "seed=0,1", *callback, cwd=tmp_path)
    assert code == 0
    assert file.read_text() == "job 0\njob 1\n"


def test_an_unknown_optimized_metric_is_refused_before_training(tmp_path):
    code, _, errors, summary = sweep(*SHORT, "optimized_metric=val/nonsense", cwd=tmp_path)
    assert code == 1
    assert summary["jobs"][0]["reason"].startswith("optimized_metric=val/nonsense is not one of train/loss")
    assert "Traceback" not in errors


@pytest.mark.slow
def test_the_users_own_loss_is_found_in_the_working_directory(tmp_path):
    (tmp_path / "mine.py").write_text("from losslab.losses import MSE\n\n\nclass Mine(MSE): ...\n")
    code, _, _, summary = sweep(*SHORT, "loss._target_=mine.Mine", "trainer.devices=1,2", cwd=tmp_path)
    assert (code, summary["done"]) == (0, 2)
    evaluate = "from losslab.cli.evaluate import evaluate; evaluate(['sweep/0-linear-line-Mine-s0', '--trust', 'mine'])"
    # -P: like a console script, Python does not import from the working directory
    done = subprocess.run([sys.executable, "-P", "-c", evaluate], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_summary_that_is_not_of_a_sweep_is_not_overwritten(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "summary.json").write_text('{"done": 9}')
    process = start("-m", "loss=mse,l1", "hydra.sweep.dir=old", cwd=tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "it does not contain the jobs of a sweep): set run_dir to another folder" in errors
    assert len(errors.splitlines()) == 1
    assert (tmp_path / "old" / "summary.json").read_text() == '{"done": 9}'


@pytest.mark.parametrize("n_jobs", ["0", "-2", "many"])
def test_an_invalid_n_jobs_is_refused_in_one_line(n_jobs, tmp_path):
    process = start("-m", "loss=mse,l1", f"hydra.launcher.n_jobs={n_jobs}", cwd=tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "hydra.launcher.n_jobs must be" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["null", "sqlite:///study.db"])
def test_optuna_tunes_the_learning_rate_by_the_metric(storage, tmp_path):
    pytest.importorskip("optuna")
    process = start(
        "experiment=tune_lr", "run_dir=sweep", *SHORT, "hydra.sweeper.n_trials=3", f"hydra.sweeper.storage={storage}",
        cwd=tmp_path,
    )  # fmt: skip
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    summary = json.loads((tmp_path / "sweep" / "summary.json").read_text())
    best = (tmp_path / "sweep" / "optimization_results.yaml").read_text()
    assert summary["done"] == 3
    assert f"best_value: {min(job['value'] for job in summary['jobs'])}" in best
    assert "minimize" in out
    assert (tmp_path / "study.db").exists() == (storage != "null")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["experiment=tune_lr", "loss=mse,l1"], "tunes one loss at a time"),
        (
            ["-m", "hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=1", "seed=1,2"],
            "set it to minimize",
        ),
        (["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "loss=cross_entropy", "seed=1"], "choose one of"),
    ],
)
def test_a_misleading_search_is_refused(overrides, said, tmp_path):
    pytest.importorskip("optuna")
    process = start(*overrides, *SHORT, cwd=tmp_path)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert said in errors.splitlines()[-1] + errors.splitlines()[-2 if len(errors.splitlines()) > 1 else -1]
    assert "Traceback" not in errors
    assert "Error executing" not in errors


def test_the_direction_of_a_search_follows_from_the_data():
    pytest.importorskip("optuna")
    from losslab.training import config

    regression = OmegaConf.load(ROOT / "conf/data/diabetes.yaml")
    classes = OmegaConf.load(ROOT / "conf/data/breast_cancer.yaml")
    for data in (regression, classes):
        data.seed = 0
    assert config.optimization_direction(regression, None) == "minimize"
    assert config.optimization_direction(classes, None) == "maximize"
    assert config.optimization_direction(classes, "val/nll") == "minimize"


@pytest.mark.slow
def test_a_run_uses_the_ranks_that_torchrun_starts(tmp_path):
    command = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", "1", "--nnodes", "2"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:29543", "--rdzv-id", "job7"]
    overrides = [str(ROOT / "train.py"), *SHORT]
    agents = [
        subprocess.Popen(
            [*command, *overrides], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outs = [agent.communicate(timeout=300) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], outs
    assert "".join(out for out, _ in outs).count("run folder") == 1
    run = tmp_path / "outputs" / "linear-line-mse-s0" / "torchrun-job7"
    assert (run / "train.log").read_text().count("INFO model ") == 1
    process = start(*SHORT, "trainer.devices=2", "run_dir=alone", cwd=tmp_path)
    process.communicate(timeout=300)
    assert (run / "history.csv").read_bytes() == (tmp_path / "alone" / "history.csv").read_bytes()


@pytest.mark.slow
def test_only_rank_0_of_a_run_logs_its_settings_and_errors(tmp_path):
    process = start("trainer=ddp_cpu", "run_dir=run", "trainer.max_epochs=3", cwd=tmp_path)
    out, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert out.count("run folder") == 1
    assert "2 processes" in out
    process = start("trainer=ddp_cpu", "run_dir=other", "loss=cross_entropy", cwd=tmp_path)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1
    assert "choose one of loss=" in errors
    assert not (tmp_path / "other").exists()


def test_a_job_with_automatic_devices_starts_no_second_forkserver(tmp_path):
    servers = tmp_path / "servers"
    code, *_, summary = sweep(
        "trainer.max_epochs=3", "trainer.devices=auto", "loss=mse", "+callbacks.count._target_=workers.Server",
        f"+callbacks.count.file={servers}", cwd=tmp_path,
    )  # fmt: skip
    assert (code, summary["done"]) == (0, 1)
    assert servers.read_text() == "None"

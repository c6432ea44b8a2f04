"""A sweep whose parent process is killed leaves no process behind, and can be completed."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from processes import ROOT, alive, start, sweep, wait_for
from states import outcome

from losslab.runs.sweep_summary import State, read_summary_rows

EPOCHS = 12


def marked(variable):
    """Return all processes that inherited this environment variable."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and alive(int(process.name)):
            try:
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            if variable.encode() in environment.split(b"\0"):
                found.append((process.name, (process / "cmdline").read_bytes()))
    return found


def files(run):
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}


FOUR = [  # four jobs, two of them with two processes; each saves a checkpoint in every epoch
    "model=mlp", "data=digits", "data.size=8", "data.batch_size=90", f"trainer.max_epochs={EPOCHS}",
    "trainer=cpu", "trainer.devices=1,2", "loss=cross_entropy,mse", "callbacks.checkpoints.every_seconds=0",
    "hydra.launcher.n_jobs=2",
]  # fmt: skip


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process_and_is_completed_by_its_command(tmp_path):
    for name in ("pids", "killed", "whole"):
        (tmp_path / name).mkdir()
    slow_callback = ["+callbacks.pid._target_=workers.Pid", f"+callbacks.pid.folder={tmp_path / 'pids'}"]
    command, folder = [*FOUR, *slow_callback], tmp_path / "killed" / "sweep"
    mark = f"LOSSLAB_TEST={tmp_path}"
    process = start("-m", "run_dir=sweep", *command, cwd=tmp_path / "killed", LOSSLAB_TEST=str(tmp_path))
    history = "*/history.csv"

    def midway():
        rows = [file.read_text().count("\n") for file in folder.glob(history)]
        return len(list(folder.glob("*/metrics.json"))) == 2 and any(3 < count < EPOCHS for count in rows)

    assert wait_for(midway, 120)
    assert len(marked(mark)) > 2
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    assert wait_for(lambda: not marked(mark), 10)
    done = {file.parent.name for file in folder.glob("*/metrics.json")}
    started = {file.parent.name for file in folder.glob("*/config.json")} - done
    halfway = {file.parent.name for file in folder.glob(history) if file.read_text().count("\n") > 3} & started
    assert done
    assert halfway
    states = {job["folder"]: job["state"] for job in read_summary_rows(folder)}
    assert {name for name, state in states.items() if state is State.DONE} == done
    assert State.RUNNING not in states.values()  # although summary.json still contains it

    before = [files(folder / name) for name in sorted(done)]
    code, out, errors, summary = sweep(*command, cwd=tmp_path / "killed")
    assert (code, summary["done"]) == (0, 4), errors
    assert f"4 jobs  {len(done)} done before, {len(started)} to resume" in out
    assert [files(folder / name) for name in sorted(done)] == before
    for name in halfway:  # the run was resumed, not started again
        assert (folder / name / "train.log").read_text().count(f"epoch  1/{EPOCHS}") == 1
    *_, whole = sweep(*FOUR, cwd=tmp_path / "whole")
    for mine, theirs in zip(summary["jobs"], whole["jobs"], strict=True):
        assert mine["folder"] == theirs["folder"]
        assert mine["value"] == theirs["value"]
        assert outcome(folder / mine["folder"]) == outcome(tmp_path / "whole" / "sweep" / theirs["folder"])


def test_a_sweep_killed_during_startup_leaves_no_process(tmp_path):
    mark = f"LOSSLAB_TEST={tmp_path}"
    process = start("-m", "run_dir=sweep", "loss=mse,l1", cwd=tmp_path, LOSSLAB_TEST=str(tmp_path))
    assert wait_for(lambda: len(marked(mark)) == 3, 60)  # the command, the forkserver and the resource tracker
    os.killpg(process.pid, signal.SIGSTOP)  # the command makes no progress until it is killed
    assert not list(tmp_path.glob("sweep/*/config.json"))
    process.send_signal(signal.SIGKILL)
    os.killpg(process.pid, signal.SIGCONT)
    process.communicate(timeout=10)
    assert wait_for(lambda: not marked(mark), 10)


def test_ctrl_c_prints_the_command_that_completes_the_sweep(tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()
    command = ["run_dir=a sweep", "-m", "loss=mse,l1", "trainer=cpu", "trainer.max_epochs=6"]
    command += ["+callbacks.pid._target_=workers.Pid", "+callbacks.pid.folder=pids"]
    process = start(*command, cwd=tmp_path)
    assert wait_for(lambda: list(pids.iterdir()), 120)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    command = f"python {ROOT / 'train.py'} 'resume=a sweep' 'trust=[workers]'"
    assert errors.splitlines()[-1] == f"2 of 2 jobs are not done; to complete them: {command}"
    again = start("resume=a sweep", "trust=[workers]", cwd=tmp_path)
    out, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert "2 jobs  0 done before, 1 to resume, 1 to start" in out
    assert len(list(tmp_path.glob("a sweep/*/metrics.json"))) == 2
    assert not errors


@pytest.mark.slow
def test_a_search_is_completed_by_its_own_command(tmp_path):
    pytest.importorskip("optuna")
    command = ["experiment=tune_lr", "run_dir=sweep", "trainer=cpu", "trainer.max_epochs=3", "hydra.sweeper.n_trials=3"]
    results = []
    for _ in range(2):
        process = start(*command, cwd=tmp_path)
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        results.append((tmp_path / "sweep" / "optimization_results.yaml").read_text())
        for run in tmp_path.glob("sweep/2-*/metrics.json"):
            run.unlink()
    assert results[0] == results[1]
    assert out.count("1 done before") == 2
    assert out.count("1 to resume") == 1
    process = start("resume=sweep", cwd=tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1
    assert errors.startswith("sweep is a search, which chooses later jobs by earlier results.")
    assert errors.endswith(
        f"python {ROOT / 'train.py'} experiment=tune_lr trainer=cpu trainer.max_epochs=3 hydra.sweeper.n_trials=3 "
        "run_dir=sweep\n"
    )


@pytest.mark.slow
def test_resuming_a_sweep_without_recorded_configurations_is_refused_with_its_command(tmp_path):
    shutil.copytree(Path(__file__).parent / "old_runs" / "sweep", tmp_path / "sweep")
    process = start("resume=sweep", cwd=tmp_path)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(errors.splitlines()) == 1
    assert errors.startswith("1 of 4 jobs never started, and sweep does not contain their configurations.")
    command = json.loads((tmp_path / "sweep" / "summary.json").read_text())["command"]
    code, out, errors, summary = sweep(*(part for part in command if part not in ("-m", "run_dir=sweep")), cwd=tmp_path)
    assert (code, summary["done"]) == (0, 4), errors
    assert "4 jobs  2 done before, 1 to resume, 1 to start" in out

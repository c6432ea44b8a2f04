"""Worker processes report a value or the reason for a failure, and leave no process running."""

import os
import signal
import subprocess
import sys

import pytest
import workers
from PIL import Image
from processes import alive, wait_for

from losslab.training.distributed import worker
from losslab.training.distributed.spawn import WorkerGroup, exit_reason, poll, threads_per_process, visible_gpus
from losslab.training.distributed.worker import WorkerOptions


def test_worker_returns_its_value_and_rank():
    assert workers.run_ranks(workers.rank_and_threads, 1).value == (0, 1, 1)
    assert workers.run_ranks(workers.rank_and_threads, 2).value == (0, 2, 1)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("raise", "in _end: RuntimeError: first line second line"),
        ("LabError", "set this to that"),
        ("exit", "exited with code 3"),
        ("leave", "exited with code 7 before it had finished"),
        ("memory", "ran out of memory (MemoryError)"),
        ("tensors", "ran out of memory"),
        ("kill", "killed by SIGKILL"),
        ("crash", "killed by SIGSEGV"),
    ],
)
def test_failure_of_a_worker_has_a_one_line_reason(kind, reason, tmp_path):
    outcome = workers.run_ranks(workers.fail, 1, kind, output=tmp_path / "log")
    assert reason in outcome.reason
    assert "\n" not in outcome.reason


@pytest.mark.parametrize("kind", ["raise", "kill"])
def test_reason_is_that_of_the_rank_that_failed_first(kind, tmp_path):
    outcome = workers.run_ranks(workers.fail, 3, kind, 1, output=tmp_path / "log")
    assert {"raise": "RuntimeError: first line", "kill": "killed by SIGKILL"}[kind] in outcome.reason


@pytest.mark.parametrize("world", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_worker_can_start_dataloader_workers(world, tmp_path):
    for name in [f"{split}/{label}/{n}.png" for split in ("train", "val", "test") for label in "ab" for n in range(4)]:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32), 64).save(path)
    run = ["model=cifar_cnn", "data=image_folder", f"data.dir={tmp_path / 'images'}", "data.batch_size=4"]
    run += ["data.in_memory=false", "data.workers=1", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1"]
    outcome = workers.run_ranks(workers.train, world, str(tmp_path / "run"), run)
    assert outcome.reason is None
    assert outcome.value["results"]["steps"] == 4


def test_worker_has_its_own_output_and_environment(tmp_path, capfd):
    group = WorkerGroup(
        workers.speak, [()], WorkerOptions(environment={"COLOUR": "green"}, output=tmp_path / "a" / "log")
    )
    while group.result is None:
        poll([group], 1)
    assert group.result.value == "green"
    assert sorted((tmp_path / "a" / "log").read_text().splitlines()) == [
        "printed by a grandchild",
        "printed by the worker",
    ]
    assert "COLOUR" not in os.environ
    assert "printed" not in "".join(capfd.readouterr())


def test_group_receives_the_progress_of_rank_0():
    group = WorkerGroup(workers.report, [(), ()], WorkerOptions(threads=1))
    while group.result is None:
        poll([group], 1)
    assert group.result.value is True
    assert group.progress == {"rank": 0, "ranks": {0: 1, 2: 2}}  # dicts are merged


def test_report_progress_does_nothing_outside_of_a_worker():
    worker.report_progress({"rank": 0})
    assert not worker.is_worker()


@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_children_of_a_worker_end_with_it(how, tmp_path):
    file = tmp_path / "pids"
    group = WorkerGroup(workers.spawn_and_wait, [(str(file),)], WorkerOptions(output=tmp_path / "log"))
    assert wait_for(lambda: file.is_file() and len(file.read_text().split()) == 2)
    child, grandchild = map(int, file.read_text().split())
    getattr(group, how)()
    while group.result is None:
        poll([group], 0.2)
    assert wait_for(lambda: not alive(child) and not alive(grandchild))


def test_children_of_a_finished_worker_are_killed(tmp_path):
    outcome = workers.run_ranks(workers.leave_behind, 1, str(tmp_path / "pid"))
    assert outcome.reason is None
    assert wait_for(lambda: not alive(int((tmp_path / "pid").read_text())), 5)


def test_workers_end_with_a_killed_parent(tmp_path):
    file = tmp_path / "pids"
    script = (
        "import sys, time, workers\n"
        "from losslab.training.distributed.worker import WorkerOptions\n"
        "from losslab.training.distributed.spawn import WorkerGroup\n"
        f"WorkerGroup(workers.spawn_and_wait, [({str(file)!r},)], WorkerOptions())\n"
        "time.sleep(1000)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment)
    try:
        assert wait_for(lambda: file.is_file() and len(file.read_text().split()) == 2, 60)
        child, grandchild = map(int, file.read_text().split())
        assert alive(child)
        assert alive(grandchild)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    assert wait_for(lambda: not alive(child) and not alive(grandchild), 10)


def test_ctrl_c_does_not_reach_the_forkserver():
    script = (
        "import sys, time\n"
        "from losslab.training.distributed import spawn\n"
        "try:\n"
        "    spawn.process_context()\n"
        "    print('up', flush=True)\n"
        "    time.sleep(100)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    os.killpg(parent.pid, signal.SIGINT)  # to the whole process group, as a terminal does
    out, errors = parent.communicate(timeout=120)  # returns when the forkserver has ended, too
    assert (out, errors) == ("interrupted\n", "")


def test_unwritable_output_file_is_reported(tmp_path, capfd):
    outcome = workers.run_ranks(workers.rank_and_threads, 1, output=tmp_path / ("x" * 300) / "log")
    assert "File name too long" in outcome.reason
    assert "Traceback" not in capfd.readouterr().err


def test_exit_reasons_and_threads_per_process(monkeypatch):
    assert exit_reason(130) == "interrupted"
    assert exit_reason(-15) == "killed by SIGTERM"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_per_process(1) is None
    assert threads_per_process(1000) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_per_process(1000) is None


def test_gpus_are_counted_in_a_subprocess():
    import torch

    assert len(visible_gpus()) == torch.cuda.device_count()
    assert not torch.cuda.is_initialized()

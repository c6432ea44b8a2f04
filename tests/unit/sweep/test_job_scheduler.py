"""Which jobs run at a time and on which GPUs, and what an interrupt leaves."""

import io
from typing import ClassVar

import folders
import pytest
from rich.console import Console

from losslab.runs.sweep_summary import State
from losslab.sweep import job_scheduler
from losslab.sweep.display import LiveTable
from losslab.sweep.fusing import run_group
from losslab.sweep.state import JobCall, JobGroup, Sweep
from losslab.training.distributed.worker import WorkerOptions, WorkerResult
from losslab.training.fused import MemberResult


class FakeGroup:
    """A group of workers that runs until the test ends it."""

    started_groups: ClassVar[list["FakeGroup"]] = []

    def __init__(self, task, arguments, options):
        self.started, self.result, self.progress = 0.0, None, {}
        self.task, self.arguments, self.log = task, arguments, options.output
        self.threads, self.jobs = options.threads, options.environment["LOSSLAB_JOBS"]
        self.world_size, self.gpus = len(arguments), options.environment.get("CUDA_VISIBLE_DEVICES")
        FakeGroup.started_groups.append(self)


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    """A function that schedules jobs with these trainers on two GPUs.

    It returns a function that ends one of the running jobs, if `end` is its index, starts waiting jobs, and returns the
    GPUs of each running job.
    """
    monkeypatch.setattr(job_scheduler, "WorkerGroup", FakeGroup)
    monkeypatch.setattr(job_scheduler.spawn, "visible_gpus", lambda: ["3", "5"])
    monkeypatch.setattr(job_scheduler.spawn, "poll", lambda *_: None)
    FakeGroup.started_groups = []

    def schedule(*trainers, n_jobs=None):
        sweep = Sweep(tmp_path)
        jobs = sweep.add([[f"seed={number}"] for number in range(len(trainers))], 0)
        for job, trainer in zip(jobs, trainers, strict=True):
            job.task = JobCall(print, tuple, trainer, tmp_path / "run" / "train.log")
        scheduler = job_scheduler.JobScheduler(job_scheduler.JobLimits(n_jobs), sweep, jobs, LiveTable(sweep))

        def step(end=None):
            if end is not None:
                FakeGroup.started_groups[end].result = WorkerResult(1.0)
                scheduler._watch()
            scheduler._fill()
            return [group.gpus for group in scheduler.running]

        return step

    return schedule


GPU = {"accelerator": "auto", "devices": 1}


def test_each_job_gets_one_gpu_that_no_other_job_uses(two_gpus):
    step = two_gpus(GPU, GPU, GPU)
    assert step() == ["3", "5"]
    assert step(end=1) == ["3", "5"]
    assert step(end=0) == ["5"]


def test_jobs_share_gpus_only_if_n_jobs_is_greater_than_the_number_of_gpus(two_gpus):
    assert two_gpus(GPU, GPU, GPU, n_jobs=3)() == ["3", "5", "3"]


def test_n_jobs_of_minus_one_runs_one_job_per_core_also_on_gpus(two_gpus, monkeypatch):
    monkeypatch.setattr(job_scheduler, "cores", lambda: 3)
    assert two_gpus(GPU, GPU, GPU, GPU, n_jobs=-1)() == ["3", "5", "3"]


def test_a_job_on_all_gpus_waits_until_they_are_free(two_gpus):
    step = two_gpus(GPU, {"accelerator": "gpu", "devices": "auto"}, GPU)
    assert step() == ["3"]
    assert step(end=0) == ["3,5"]
    assert FakeGroup.started_groups[1].world_size == 2
    assert step(end=1) == ["3"]


def test_jobs_on_the_cpu_and_on_chosen_gpus_get_no_gpu(two_gpus):
    step = two_gpus({"accelerator": "cpu", "devices": 2}, {"accelerator": "gpu", "devices": [1]}, n_jobs=2)
    assert step() == [None, None]


def test_jobs_share_the_cores_of_the_machine(two_gpus, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(job_scheduler.spawn, "cores", lambda: 64)
    two_gpus({"accelerator": "cpu"}, {"accelerator": "cpu", "devices": 2}, n_jobs=2)()
    assert [(group.threads, group.jobs) for group in FakeGroup.started_groups] == [(32, "2"), (16, "2")]


@pytest.mark.usefixtures("two_gpus")
def test_a_job_that_ends_before_an_interrupt_reaches_it_is_done(tmp_path):
    sweep = Sweep(tmp_path)
    jobs = sweep.add([["seed=0"], ["seed=1"]], 0)
    scheduler = job_scheduler.JobScheduler(job_scheduler.JobLimits(), sweep, jobs, LiveTable(sweep))
    for job, result in zip(sweep.jobs, (WorkerResult(1.0), WorkerResult(reason="interrupted")), strict=True):
        group = FakeGroup(None, [()], WorkerOptions(environment={"LOSSLAB_JOBS": "1"}))
        group.interrupt = lambda group=group, result=result: setattr(group, "result", result)
        scheduler.running[group], scheduler._gpus[group], job.state = job, [], State.RUNNING
    scheduler.waiting = []
    scheduler._interrupt()
    assert [job.state for job in sweep.jobs] == [State.DONE, State.INTERRUPTED]


@pytest.fixture
def fused(two_gpus, tmp_path, caplog):  # noqa: ARG001
    """A function that schedules `count` jobs, of which those in `group` form a group, and returns the scheduler."""

    def schedule(count=4, group=(0, 1, 2), n_jobs=1):
        sweep = Sweep(tmp_path)
        for job in sweep.add([[f"seed={number}", "model=mlp"] for number in range(count)], 0):
            folder = tmp_path / f"{job.number}-run"
            job.config = folders.config(seed=job.number, path=str(folder))
            job.task = JobCall(print, tuple, {"accelerator": "cpu"}, folder / "train.log")
        members = [sweep.jobs[number] for number in group]
        for job in members:
            job.group = 0
        sweep.groups.append(JobGroup(0, members, tmp_path / "fused" / "0"))
        caplog.set_level("INFO")
        caplog.clear()
        return job_scheduler.JobScheduler(job_scheduler.JobLimits(n_jobs), sweep, sweep.jobs, LiveTable(sweep))

    return schedule


def states(scheduler):
    return [str(job.state) for job in scheduler.sweep.jobs]


def report(scheduler, end=None, group=0, **progress):
    """Let a worker report progress, and if `end` is a result, end with it."""
    FakeGroup.started_groups[group].progress |= progress
    FakeGroup.started_groups[group].result = end
    scheduler._watch()


def test_a_group_runs_in_one_process_beside_single_jobs(fused, tmp_path):
    scheduler = fused(n_jobs=2)
    scheduler.sweep.jobs[1].reused, scheduler.sweep.jobs[1].state = True, State.DONE
    scheduler._fill()
    group, single = FakeGroup.started_groups
    ((members, folder),) = group.arguments
    assert group.task is run_group
    assert (folder, group.log) == (tmp_path / "fused" / "0", tmp_path / "fused" / "0" / "train.log")
    assert [(member.number, member.finished) for member in members] == [(0, False), (1, True), (2, False)]
    assert group.jobs == single.jobs == "2"
    assert states(scheduler) == ["running", "done", "running", "running"]
    assert scheduler.sweep.jobs[2].folder == tmp_path / "2-run"


def test_a_group_waits_like_a_job_if_there_is_no_room_for_it(fused):
    scheduler = fused(group=(1, 2))
    scheduler._fill()
    assert states(scheduler) == ["running", "waiting", "waiting", "waiting"]
    report(scheduler, end=WorkerResult(1.0))
    scheduler._fill()
    assert states(scheduler) == ["done", "running", "running", "waiting"]


def test_the_number_of_threads_does_not_depend_on_jobs_that_are_done(fused, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(job_scheduler.spawn, "cores", lambda: 64)
    fused(count=3, n_jobs=4)._fill()
    fused(count=6, n_jobs=4)._fill()
    assert [(group.jobs, group.threads) for group in FakeGroup.started_groups[:2]] == [("1", None), ("4", 16)]


def test_members_end_when_the_group_reports_it(fused, caplog):
    scheduler = fused()
    scheduler._fill()
    report(scheduler, epoch=3, epochs=9, metric="val/mse", mode="min", value=0.25)
    group = scheduler.sweep.groups[0]
    assert (group.is_running, group.monitored_value) == (True, "val/mse 0.25")
    assert scheduler.sweep.jobs[2].progress == {"epoch": 3, "epochs": 9, "metric": "val/mse", "mode": "min"}
    report(scheduler, members={0: MemberResult(0.5, seconds=2.0)})
    report(scheduler, members={0: MemberResult(0.5, seconds=2.0), 1: MemberResult(reason="loss is NaN", seconds=1.0)})
    assert states(scheduler) == ["done", "failed", "running", "waiting"]
    report(scheduler, end=WorkerResult({2: MemberResult(0.75)}), members={})
    assert states(scheduler) == ["done", "failed", "done", "waiting"]
    assert [(job.value, job.reason) for job in group.jobs] == [(0.5, None), (None, "loss is NaN"), (0.75, None)]
    assert (group.jobs[0].seconds, group.is_running) == (2.0, False)
    assert [record.getMessage().split("  ")[:2] for record in caplog.records] == [
        ["group 0", "started"], ["job 0", "done in 2.0 s"], ["job 1", "failed after 1.0 s"],
        ["job 2", "done in 0.0 s"], ["group 0", f"ended after {group.seconds:.1f} s"],
    ]  # fmt: skip
    assert caplog.messages[-1].endswith("  2 done, 1 failed")


def test_a_large_group_logs_its_end_and_only_the_members_that_failed(fused, caplog):
    scheduler = fused(count=12, group=range(12))
    scheduler._fill()
    results = {number: MemberResult(0.5) for number in range(12)} | {7: MemberResult(reason="loss is NaN")}
    report(scheduler, end=WorkerResult(results))
    assert [message.partition("  ")[0] for message in caplog.messages] == ["group 0", "job 7", "group 0"]
    assert caplog.messages[-1].endswith("11 done, 1 failed")


def test_if_a_group_fails_its_remaining_members_fail_in_one_line(fused, caplog):
    scheduler = fused(count=12, group=range(12))
    scheduler._fill()
    report(scheduler, end=WorkerResult(reason="killed by SIGKILL"), members={0: MemberResult(0.5)})
    assert states(scheduler) == ["done", *["failed"] * 11]
    assert caplog.messages[1:2] == ["group 0  11 jobs failed: killed by SIGKILL"]


def test_members_that_cannot_be_fused_run_alone_afterwards(fused, caplog, tmp_path):
    scheduler = fused()
    scheduler._fill()
    folders.run(tmp_path / "2-run", metrics=False)
    refusal = "cannot be fused: the network contains LSTM"
    report(scheduler, members={1: MemberResult(reason=refusal), 2: MemberResult(reason=refusal)})
    assert states(scheduler) == ["running", "running", "running", "waiting"]
    report(scheduler, end=WorkerResult({0: MemberResult(0.5)}))
    assert states(scheduler) == ["done", "waiting", "waiting", "waiting"]
    assert caplog.messages[-1] == f"group 0  2 jobs will run alone: {refusal}"
    scheduler.limits = job_scheduler.JobLimits(3)
    scheduler._fill()
    assert [(group.task, group.arguments) for group in FakeGroup.started_groups[1:]] == [
        (print, [(False,)]), (print, [(False,)]), (print, [(True,)])
    ]  # fmt: skip
    assert states(scheduler) == ["done", "running", "running", "running"]


def test_an_interrupt_leaves_a_group_interrupted_except_the_members_that_have_ended(fused, caplog):
    scheduler = fused(count=12, group=range(11))
    scheduler._fill()
    report(scheduler, members={3: MemberResult(0.5), 4: MemberResult(reason="cannot be fused: dropout")})
    FakeGroup.started_groups[0].interrupt = lambda: setattr(
        FakeGroup.started_groups[0], "result", WorkerResult(reason="interrupted")
    )
    scheduler._interrupt()
    assert states(scheduler) == [*["interrupted"] * 3, "done", *["interrupted"] * 8]
    assert scheduler.sweep.jobs[11].reason == "not started"
    assert caplog.messages[-1].endswith("  1 done, 10 interrupted")
    assert len(caplog.messages) == 2


def test_a_running_group_has_one_line_in_the_table(fused):
    scheduler = fused()
    scheduler._fill()
    report(scheduler, epoch=3, epochs=100, metric="val/mse", mode="min", value=0.25)
    console = Console(width=90, file=io.StringIO())
    console.print(scheduler.table._view())
    group, total = console.file.getvalue().splitlines()
    assert group.split()[:4] == ["group", "0", "3", "jobs"]
    assert "epoch   3/100  val/mse 0.25" in group
    assert total.split() == ["4", "jobs:", "1", "waiting,", "3", "running"]

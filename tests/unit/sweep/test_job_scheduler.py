"""Which jobs run at a time and on which GPUs, and what an interrupt leaves."""

from typing import ClassVar

import pytest

from losslab.runs.sweep_summary import State
from losslab.sweep import job_scheduler
from losslab.sweep.display import LiveTable
from losslab.sweep.state import JobCall, Sweep
from losslab.training.distributed.worker import WorkerOptions, WorkerResult


class FakeGroup:
    """A group of workers that runs until the test ends it."""

    started_groups: ClassVar[list["FakeGroup"]] = []

    def __init__(self, _, arguments, options):
        self.started, self.result, self.progress = 0.0, None, {}
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
            job.task = JobCall(print, (), trainer, tmp_path / "run" / "train.log")
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

"""A scheduler that stops and requeues a job repeatedly, as SLURM does."""

import math
import os
import random
import re
import shutil
import signal
from pathlib import Path

from soak import commands, kills
from soak.record import Case, CaseResult

SCONTROL = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/requeued"
"""
COMMAND = (*kills.DIGITS, "trainer=cpu", "trainer.max_epochs=30")
FROM = re.compile(r"resumed +from step (\d+)")
TO = re.compile(r"interrupted in epoch \d+ after step (\d+)")


def cases(count: int) -> list[Case]:
    """Ten requeues in each case."""
    return [Case("requeues", str(number)) for number in range(math.ceil(count / 10))]


def run(case: Case, folder: Path, requeues: int = 10) -> CaseResult:
    """Requeue jobs, and compare their outcome with that of an undisturbed job."""
    rng = random.Random(repr(case))  # noqa: S311
    cwd = folder / case.part
    duration = kills.train_undisturbed(COMMAND, cwd, "job")
    scheduler = Scheduler(cwd, f"{1000 + int(case.name)}")
    failures, counted = list[str](), 0
    while counted < requeues and not failures:  # a job may end before it was stopped as often
        scheduler.reset()
        restarts, job_failures = _train_job(scheduler, requeues - counted, rng, duration)
        counted += restarts
        failures += job_failures + kills.check_outcome(scheduler.run, cwd / "whole-job")
    return CaseResult(counted, failures)


def _train_job(scheduler: "Scheduler", requeues: int, rng: random.Random, seconds: float) -> tuple[int, list[str]]:
    """Train one job to its end, stopped at random moments → the number of restarts, and failures."""
    failures = list[str]()
    saved_step = restarts = 0
    while True:
        process = commands.start(*COMMAND, cwd=scheduler.cwd, variables=scheduler.variables(restarts))
        number = rng.choice([signal.SIGUSR1, signal.SIGTERM])  # the time is nearly up; the machine is wanted
        if restarts < requeues and commands.wait_for_random_moment(
            process, scheduler.run / "history.csv", rng, seconds
        ):
            process.send_signal(number)
        out, _ = process.communicate()
        begun, ended = FROM.search(out), TO.search(out)
        if begun and int(begun[1]) != saved_step:
            failures.append(f"it was saved after step {saved_step} and resumed from step {begun[1]}")
        if ended and not begun and saved_step:
            failures.append(f"it was saved after step {saved_step} and started from the beginning")
        saved_step = int(ended[1]) if ended else saved_step
        if process.returncode == 0 or restarts == requeues:
            return restarts, failures
        restarts += 1
        failures += _check_end(out, process.returncode, number, requeued=scheduler.pop_requeued())


def _check_end(out: str, code: int, number: int, *, requeued: bool) -> list[str]:
    failures = []
    if "Traceback" in out or code not in {128 + number, -number}:
        failures.append(f"after {signal.Signals(number).name}: exit code {code}, {out.strip().splitlines()[-1:]}")
    if requeued != (code == 128 + signal.SIGUSR1):
        failures.append(f"after exit code {code} the job was {'' if requeued else 'not '}requeued")
    return failures


class Scheduler:
    """A stand-in for SLURM: environment variables, and an scontrol command that records requeue requests.

    Args:
        cwd: the working directory of the jobs.
        job: the job id.
    """

    def __init__(self, cwd: Path, job: str) -> None:
        self.cwd, self.job, self._bin = cwd, job, cwd / f"bin{job}"
        self.run = cwd / "outputs" / "mlp-digits-mse-s0" / f"slurm-{job}"
        shutil.rmtree(self._bin, ignore_errors=True)
        self._bin.mkdir(parents=True)
        (self._bin / "scontrol").write_text(SCONTROL)
        (self._bin / "scontrol").chmod(0o755)

    def reset(self) -> None:
        """Remove the run of the job."""
        shutil.rmtree(self.run, ignore_errors=True)

    def variables(self, restarts: int) -> dict[str, str]:
        """Environment variables of the first step of a job with one task."""
        step = {"JOB_ID": self.job, "PROCID": "0", "LOCALID": "0", "STEP_ID": "0", "STEP_NUM_TASKS": "1"}
        again = {"RESTART_COUNT": str(restarts)} if restarts else {}
        slurm = {f"SLURM_{name}": value for name, value in (step | again).items()}
        return slurm | {"PATH": f"{self._bin}:{os.environ['PATH']}"}

    def pop_requeued(self) -> bool:
        """Whether the job was requeued since the last call."""
        file = self._bin / "requeued"
        requests = file.read_text() if file.exists() else ""
        file.unlink(missing_ok=True)
        return requests == f"requeue {self.job}\n"

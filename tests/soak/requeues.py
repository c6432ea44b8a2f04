"""A scheduler that stops a job again and again and starts it anew, as SLURM does."""

import os
import random
import re
import shutil
import signal
from pathlib import Path

from soak import commands, kills
from soak.record import Case, Found

SCONTROL = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/requeued"
"""
COMMAND = (*kills.DIGITS, "trainer=cpu", "trainer.max_epochs=30")
FROM = re.compile(r"resumed +from step (\d+)")
TO = re.compile(r"interrupted in epoch \d+ after step (\d+)")


def cases(count: int) -> list[Case]:
    """Ten requeues in each."""
    return [Case("requeues", str(number)) for number in range(count // 10)]


def run(case: Case, folder: Path, requeues: int = 10) -> Found:
    """Have jobs started again so often → whether each was trained as if it had been started once."""
    moments = random.Random(repr(case))  # noqa: S311
    place = folder / case.part
    took = kills.undisturbed(COMMAND, place, "job")
    scheduler = Scheduler(place, f"{1000 + int(case.name)}")
    failures, counted = list[str](), 0
    while counted < requeues and not failures:  # a job may come to its end before it was stopped as often
        scheduler.forget()
        restarts, wrong = _job(scheduler, requeues - counted, moments, took)
        counted += restarts
        failures += wrong + kills.otherwise(scheduler.run, place / "whole-job")
    return Found(counted, failures)


def _job(scheduler: "Scheduler", requeues: int, moments: random.Random, seconds: float) -> tuple[int, list[str]]:
    """Train one job, stopped so often at random moments, to its end → how often it was, and what went wrong."""
    failures = list[str]()
    known = restarts = 0
    while True:
        process = commands.start(*COMMAND, cwd=scheduler.place, variables=scheduler.variables(restarts))
        number = moments.choice([signal.SIGUSR1, signal.SIGTERM])  # the time is nearly up; the machine is wanted
        if restarts < requeues and commands.reach(process, scheduler.run / "history.csv", moments, seconds):
            process.send_signal(number)
        out, _ = process.communicate()
        begun, ended = FROM.search(out), TO.search(out)
        if begun and int(begun[1]) != known:
            failures.append(f"it had been saved after step {known} and went on from step {begun[1]}")
        if ended and not begun and known:
            failures.append(f"it had been saved after step {known} and began anew")
        known = int(ended[1]) if ended else known
        if process.returncode == 0 or restarts == requeues:
            return restarts, failures
        restarts += 1
        failures += _odd(out, process.returncode, number, asked=scheduler.asked())


def _odd(out: str, code: int, number: int, *, asked: bool) -> list[str]:
    found = []
    if "Traceback" in out or code not in {128 + number, -number}:
        found.append(f"after {signal.Signals(number).name}: exit code {code}, {out.strip().splitlines()[-1:]}")
    if asked != (code == 128 + signal.SIGUSR1):
        found.append(f"after exit code {code} SLURM was {'' if asked else 'not '}asked to start the job again")
    return found


class Scheduler:
    """What SLURM is to a job: variables, and a command by which it asks to be started again.

    Args:
        place: where its jobs work.
        job: the number of each.
    """

    def __init__(self, place: Path, job: str) -> None:
        self.place, self.job, self._bin = place, job, place / f"bin{job}"
        self.run = place / "outputs" / "mlp-digits-mse-s0" / f"slurm-{job}"
        shutil.rmtree(self._bin, ignore_errors=True)
        self._bin.mkdir(parents=True)
        (self._bin / "scontrol").write_text(SCONTROL)
        (self._bin / "scontrol").chmod(0o755)

    def forget(self) -> None:
        """Have the next job be the first of this number."""
        shutil.rmtree(self.run, ignore_errors=True)

    def variables(self, restarts: int) -> dict[str, str]:
        """Those of the first step of a job with one task."""
        step = {"JOB_ID": self.job, "PROCID": "0", "LOCALID": "0", "STEP_ID": "0", "STEP_NUM_TASKS": "1"}
        again = {"RESTART_COUNT": str(restarts)} if restarts else {}
        found = {f"SLURM_{name}": value for name, value in (step | again).items()}
        return found | {"PATH": f"{self._bin}:{os.environ['PATH']}"}

    def asked(self) -> bool:
        """Whether it was asked to start the job again since it was last looked at."""
        file = self._bin / "requeued"
        said = file.read_text() if file.exists() else ""
        file.unlink(missing_ok=True)
        return said == f"requeue {self.job}\n"

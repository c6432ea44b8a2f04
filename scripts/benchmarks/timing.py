"""Time programs alternately (A B C A B C ...), so that a machine that slows down affects all of them equally."""

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from statistics import median
from time import perf_counter

import torch
from rich.progress import track
from torch import nn

from losslab.models import cnn

Numbers = dict[str, list[float]]
"""Program → one number per round."""


@dataclass(frozen=True)
class Job:
    """A network to train on random images. Its rate is measured over `steps` steps, after `warm_up` steps."""

    model: str
    precision: str
    device: str = "cpu"
    workers: int = 0
    """Number of DataLoader workers, for the program that loads single images."""
    images: int = 10_000
    batch_size: int = 128
    warm_up: int = 10
    steps: int = 50

    def network(self) -> nn.Module:
        """Build the network on its device."""
        network: nn.Module = getattr(cnn, self.model)(input_shape=(3, 32, 32), outputs=10).to(self.device)
        return network

    @property
    def autocast(self) -> torch.autocast:
        """Autocast context for the precision."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16-mixed")


class Stopwatch:
    """Counts steps; after the last timed step, `rate` is the number of images per second."""

    def __init__(self, job: Job) -> None:
        self.job, self.steps, self.started, self.rate = job, 0, 0.0, 0.0

    def step(self) -> bool:
        """Count a step, and return whether it was the last timed one."""
        self.steps += 1
        if self.steps == self.job.warm_up:
            self.started = self._now()
        elif self.steps == self.job.warm_up + self.job.steps:
            self.rate = self.job.steps * self.job.batch_size / (self._now() - self.started)
        return self.rate > 0

    def _now(self) -> float:
        if self.job.device == "cuda":
            torch.cuda.synchronize()  # otherwise only the kernel launches would be timed
        return perf_counter()


def in_turn(measures: Mapping[str, Callable[[], float]], rounds: int, what: str, *, warm_up: bool = True) -> Numbers:
    """Measure each program once per round, after a warm-up round."""
    numbers: Numbers = {name: [] for name in measures}
    for number in track(range(not warm_up, rounds + 1), f"{what}: rounds{' (the first warms up)' * warm_up}"):
        for name, measure in measures.items():
            value = measure()
            if number:
                numbers[name].append(value)
    return numbers


def in_own_processes(programs: Mapping[str, tuple[Callable[[Job], float], Job]], rounds: int, what: str) -> Numbers:
    """Measure each program in a separate process, so that its memory and thread settings do not affect the others."""
    context = multiprocessing.get_context("spawn")
    measures: dict[str, Callable[[], float]] = {}
    pipes: list[Connection] = []
    processes: list[SpawnProcess] = []
    for name, (rate, job) in programs.items():
        parent, child = context.Pipe()
        processes.append(context.Process(target=_serve, args=(child, rate, job)))
        processes[-1].start()
        child.close()
        pipes.append(parent)
        measures[name] = _remote_measure(parent)
    try:
        return in_turn(measures, rounds, what)
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.close()
            process.join()  # otherwise it could still be exiting while other programs are timed


def _remote_measure(pipe: Connection) -> Callable[[], float]:
    def measure() -> float:
        pipe.send(None)
        value: float = pipe.recv()
        return value

    return measure


def _serve(pipe: Connection, rate: Callable[[Job], float], job: Job) -> None:
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        pipe.send(rate(job))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of the rounds."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))

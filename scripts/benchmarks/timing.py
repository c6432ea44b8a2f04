"""Contenders in turn: A B C A B C ..., so that a machine which slows down slows all of them."""

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from statistics import median
from time import perf_counter

import torch
from rich.progress import track
from torch import nn

Numbers = dict[str, list[float]]
"""What was measured of each contender, a number a round."""


@dataclass(frozen=True)
class Job:
    """A network to train for some steps on random images; the rate is taken over the last of them."""

    model: str
    precision: str
    device: str = "cpu"
    workers: int = 0
    """Of the peer that loads images one by one."""
    images: int = 10_000
    batch_size: int = 128
    warm_up: int = 10
    steps: int = 50

    def network(self) -> nn.Module:
        """A new one, on its device."""
        make = getattr(import_module(f"losslab.models.{self.model}"), self.model)
        network: nn.Module = make(input_shape=(3, 32, 32), outputs=10).to(self.device)
        return network

    @property
    def autocast(self) -> torch.autocast:
        """What the precision means to a plain loop."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.precision == "bf16-mixed")


class Stopwatch:
    """Counts steps, and knows the rate once it has counted enough of them."""

    def __init__(self, job: Job) -> None:
        self.job, self.steps, self.started, self.rate = job, 0, 0.0, 0.0

    def step(self) -> bool:
        """Count a step → whether it was the last."""
        self.steps += 1
        if self.steps == self.job.warm_up:
            self.started = self._now()
        elif self.steps == self.job.warm_up + self.job.steps:
            self.rate = self.job.steps * self.job.batch_size / (self._now() - self.started)
        return self.rate > 0

    def _now(self) -> float:
        if self.job.device == "cuda":
            torch.cuda.synchronize()  # or only the launching of its work would be timed
        return perf_counter()


def in_turn(measures: Mapping[str, Callable[[], float]], rounds: int, what: str) -> Numbers:
    """Measure each contender once a round, after a first round that warms up."""
    numbers: Numbers = {name: [] for name in measures}
    for number in track(range(rounds + 1), f"{what}: rounds (the first warms up)"):
        for name, measure in measures.items():
            value = measure()
            if number:
                numbers[name].append(value)
    return numbers


def in_own_processes(contenders: Mapping[str, tuple[Callable[[Job], float], Job]], rounds: int, what: str) -> Numbers:
    """The same, each in a process that it keeps: what one does to its memory or its threads helps no other."""
    context = multiprocessing.get_context("spawn")
    asks: dict[str, Callable[[], float]] = {}
    pipes: list[Connection] = []
    processes: list[SpawnProcess] = []
    for name, (rate, job) in contenders.items():
        here, there = context.Pipe()
        processes.append(context.Process(target=_serve, args=(there, rate, job)))
        processes[-1].start()
        there.close()
        pipes.append(here)
        asks[name] = _asker(here)
    try:
        return in_turn(asks, rounds, what)
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.close()
            process.join()  # or it would still be busy with its end while the next are timed


def _asker(pipe: Connection) -> Callable[[], float]:
    def ask() -> float:
        pipe.send(None)
        value: float = pipe.recv()
        return value

    return ask


def _serve(pipe: Connection, rate: Callable[[Job], float], job: Job) -> None:
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        pipe.send(rate(job))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of the rounds."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))

"""Tasks and callbacks of tests that run in worker processes, which import them by name."""

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.experimental.callback import Callback as JobCallback
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from losslab.data.batch import Batch
from losslab.data.sklearn_datasets import Digits
from losslab.runs import RunFolder
from losslab.training import experiment
from losslab.training.callbacks import checkpoint
from losslab.training.callbacks.non_finite import FiniteGuard
from losslab.training.config import compose
from losslab.training.distributed import environment, worker
from losslab.training.distributed.spawn import WorkerGroup, poll
from losslab.training.distributed.worker import WorkerOptions, WorkerResult


def run_ranks(
    task: Any, world_size: int, *arguments: Any, output: Path | None = None, seconds: float = 120
) -> WorkerResult:
    """Run a task in `world_size` processes, and wait for the result."""
    group = WorkerGroup(task, [arguments] * world_size, WorkerOptions(threads=1, output=output))
    try:
        end = time.monotonic() + seconds
        while group.result is None and time.monotonic() < end:
            poll([group], 0.2)
    finally:
        if group.result is None:
            group.kill()
    assert group.result is not None
    return group.result


def rank_and_threads() -> tuple[int, int, int]:
    info = environment.current_rank()
    return info.rank, info.world_size, torch.get_num_threads()


def report() -> bool:
    """Report progress twice on all ranks, and return whether this process is a worker."""
    rank = environment.current_rank().rank
    worker.report_progress({"rank": None, "ranks": {rank: 1}})
    worker.report_progress({"rank": rank, "ranks": {rank + 2: 2}})
    return worker.is_worker()


def build(folder: str, overrides: list[str]) -> experiment.Experiment:
    fast = ["trainer=cpu", "trainer.enable_progress_bar=false", "logger=none"]
    return experiment.build(compose([*fast, *overrides], folder))


class DrawnDigits(Digits):
    """Digits in another order in each call of `read`."""

    def read(self):
        rows = torch.from_numpy(np.random.default_rng().permutation(1797))
        return tuple(each[rows] for each in super().read())


class NoisySGD(torch.optim.SGD):
    """Adds noise to the weights before and after the evaluation of the loss."""

    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        for after in (False, True):
            loss = super().step(closure if after else None)
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.add_(torch.randn_like(parameter), alpha=0.01)
        return loss


def weights_of_ranks(folder: str, overrides: list[str]) -> list[list[float]]:
    """Train, and return the weights of each rank."""
    built = build(folder, overrides)
    experiment.run(built)
    weights = torch.nn.utils.parameters_to_vector(built.learner.parameters()).detach()
    return built.trainer.strategy.all_gather(weights).tolist()


def train(folder: str, overrides: list[str]) -> dict[str, Any]:
    """Train as the command line does; return final values and weights."""
    built = build(folder, overrides)
    results = experiment.run(built)
    return {"results": results, "weights": {k: v.tolist() for k, v in built.learner.network.state_dict().items()}}


def keep(folder: str, overrides: list[str]) -> int:
    """Train, and copy the run folder whenever last.ckpt was written; return the number of copies."""
    copies, save = [], checkpoint.write_checkpoint

    def save_and_copy(state: dict[str, Any], path: Path) -> None:
        save(state, path)
        if path.name == "last.ckpt":
            copies.append(f"{folder}-{len(copies)}")
            shutil.copytree(folder, copies[-1])

    checkpoint.write_checkpoint = save_and_copy
    try:
        train(folder, overrides)
    finally:
        checkpoint.write_checkpoint = save
    return len(copies)


def resume(folders: list[str], overrides: list[str]) -> None:
    """Resume runs as the command line does."""
    for folder in folders:
        experiment.run(build(folder, overrides), resume=True)


class Normalised(torch.nn.Sequential):
    """A network whose batch statistics differ between ranks."""

    def __init__(self, input_shape: tuple[int, ...], outputs: int, **_: Any) -> None:
        layers = torch.nn.Flatten(), torch.nn.BatchNorm1d(math.prod(input_shape))
        super().__init__(*layers, torch.nn.Linear(math.prod(input_shape), outputs))


def count(cases: list[tuple[int, int]]) -> list[tuple[float, float]]:
    """Return test accuracy and loss of an untrained network on the first n digits in batches of b, for each (n, b)."""
    overrides = ["model=mlp", "data=digits", "loss=cross_entropy", "trainer=cpu", "trainer.precision=64-true"]
    cfg = compose([*overrides, "logger=none", "callbacks=none", "trainer.enable_progress_bar=false"], "unused")
    built = experiment.build(cfg)
    built.data.setup()
    everything = built.data.splits["test"]
    found = []
    for examples, batch in cases:
        built.data.splits["test"] = everything.take(torch.arange(examples))
        built.data.eval_batch_size = batch
        values = experiment.evaluate(built, "test")
        found.append((values["test/accuracy"], values["test/loss"]))
    return found


class Stock(LightningModule):
    """A module that computes the mean of batch means, as Lightning does by default."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def test_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        right = batch[0]
        self.log("accuracy", right.float().mean(), on_epoch=True, sync_dist=True, batch_size=len(right))


def stock(right: list[int]) -> dict[str, float]:
    loader = DataLoader(TensorDataset(torch.tensor(right)), batch_size=16)
    info = environment.current_rank()
    trainer = Trainer(
        accelerator="cpu",
        devices=info.world_size,
        strategy="ddp",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.test(Stock(), loader, verbose=False)
    integers = trainer.strategy.reduce(torch.tensor(1 + info.rank), reduce_op="mean")
    return {"accuracy": float(trainer.callback_metrics["accuracy"]), "mean of 1 and 2": float(integers)}


def fail(kind: str, on_rank: int = 0) -> str:
    """Fail in this way on one rank, while the other ranks wait for it."""
    if environment.current_rank().rank != on_rank:
        torch.distributed.barrier()
        return "unreachable"
    time.sleep(0.3)  # until the other ranks wait
    _end(kind)
    return "survived"


def _end(kind: str) -> None:
    if kind == "raise":
        message = "first line\n  second line"
        raise RuntimeError(message)
    if kind == "LabError":
        from losslab.errors import LabError

        message = "set this to that"
        raise LabError(message)
    if kind == "exit":
        sys.exit(3)
    if kind == "leave":
        os._exit(7)
    if kind == "memory":
        with limited_memory():
            bytearray(1 << 40)
    if kind == "tensors":
        with limited_memory():
            torch.empty(1 << 40)
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)


@contextmanager
def limited_memory() -> Iterator[None]:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (64 << 30, 64 << 30))
    yield


def speak() -> str:
    print("printed by the worker")
    os.system("echo printed by a grandchild")  # noqa: S605
    return os.environ.get("COLOUR", "")


def spawn_and_wait(pids: str) -> None:
    """Start a grandchild, write both process ids to a file, and never end."""
    grandchild = subprocess.Popen(["sleep", "1000"])
    Path(pids).write_text(f"{os.getpid()} {grandchild.pid}")
    time.sleep(1000)


class Sabotage(Callback):
    """Ends the runs in `plan`, whose keys are LOSS-WORLD_SIZE-SEED, in their second epoch."""

    def __init__(self, plan: dict[str, str]) -> None:
        self.plan = plan

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run = f"{type(pl_module.loss).__name__}-{trainer.world_size}-{pl_module.seed}"
        last = trainer.world_size - 1
        if trainer.current_epoch == 1 and run in self.plan and trainer.global_rank == last:
            _end(self.plan[run])


class Interrupts(Callback):
    """Sends this process a signal during its second validation."""

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.current_epoch == 1 and batch_idx == 1:
            os.kill(os.getpid(), signal.SIGTERM)


class Pid(Callback):
    """Writes the process id into a folder, and slows training down."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (self.folder / str(os.getpid())).touch()
        time.sleep(0.1)


class Server(Callback):
    """Writes the process id of the forkserver that this process has started, or None."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        from multiprocessing import forkserver

        self.file.write_text(str(forkserver._forkserver._forkserver_pid))


class Jobs(JobCallback):
    """Writes a line to a file when a job starts."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_job_start(self, config: Any, **kwargs: Any) -> None:
        with self.file.open("a") as file:
            file.write(f"job {config.hydra.job.num}\n")


def clock() -> float:
    return time.monotonic()


def leave_behind(pids: str) -> None:
    """Start a grandchild that ignores Ctrl-C, write its process id to a file, and end successfully."""
    grandchild = subprocess.Popen(["sh", "-c", "trap '' INT; exec sleep 1000"])
    Path(pids).write_text(str(grandchild.pid))


class AsksToStop(Callback):
    """Sets should_stop once, as early stopping does: Lightning trains until min_epochs and then stops."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.should_stop |= trainer.global_step == self.step


class Poison(Callback):
    """Makes one number on rank 1 NaN or infinite in the step after `after` steps, and counts batches from there."""

    def __init__(self, where: str, after: int, folder: RunFolder) -> None:
        self.where, self.after, self.folder = where, after, folder
        self.since = 0
        self.saved: dict[str, str] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network, loss = pl_module.network, pl_module.loss
        layer, now = network[3].weight, lambda: trainer.global_step == self.after and trainer.global_rank == 1
        if self.where == "loss":
            term = loss.terms["rce"].loss
            score = term.score
            term.score = lambda outputs, target: score(outputs, target) + (torch.nan if now() else 0.0)
        elif self.where == "gradient":
            layer.register_hook(lambda grad: grad * (torch.inf if now() else 1.0))
        elif self.where == "weight":
            step = trainer.optimizers[0].register_step_post_hook
            step(lambda *_: layer.data[0].fill_(torch.nan) if now() else None)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        if trainer.global_step >= self.after:
            self.since += 1
            if trainer.is_global_zero:  # only rank 0 writes: another rank could read during a rename
                self.saved = self.saved or self.files()
            if trainer.global_rank == 1 and trainer.global_step == self.after and self.where == "inputs":
                batch.inputs[2] = torch.nan

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:  # fmt: skip
        if trainer.global_rank == 1 and batch_idx == 1 and self.where == "validation":
            batch.inputs[2] = torch.nan

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_rank == 1 and trainer.global_step == self.after and self.where == "averaged gradient":
            pl_module.network[3].weight.grad[0, 0] = torch.nan

    def files(self) -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in self.folder.last.parent.glob("*")}


def poisoned(folder: str, cases: dict[str, tuple[str, list[str]]], guard: str = "on") -> None:
    """Train once for each case, with `Poison` on rank 1, and write a report for each case and rank."""
    rank = environment.current_rank().rank
    for name, (where, overrides) in cases.items():
        path = Path(folder) / name
        cfg = compose(["trainer=cpu", "trainer.enable_progress_bar=false", "logger=none", *overrides], str(path))
        built = experiment.build(cfg)
        poison = Poison(where, 7, built.folder)
        built.trainer.callbacks.insert(0, poison)
        for callback in built.trainer.callbacks:
            if isinstance(callback, FiniteGuard):
                callback.deferred = name.endswith("deferred")
                if guard == "alone":
                    callback.on_train_start = lambda *_: None  # it does not find out about other ranks
        message = ""
        try:
            experiment.run(built)
        except Exception as error:  # noqa: BLE001 -- the test checks the type
            message = f"{type(error).__name__}: {error}"
        finite = all(torch.isfinite(weight).all().item() for weight in built.learner.parameters())
        kept = rank > 0 or poison.files() == poison.saved
        report = {"message": message, "since": poison.since, "kept": kept, "finite": finite}
        Path(folder, f"{name} {rank}.json").write_text(json.dumps(report))

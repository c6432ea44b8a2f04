"""A fused group that is killed before any of its file operations, and started again, ends as an undisturbed one."""

import math
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from losslab.runs import RunFolder
from losslab.sweep.fusing import RESULTS, run_group
from losslab.training.config import compose
from losslab.training.fused import FusedMember
from soak.fused import check_outcomes
from soak.record import Case, CaseResult

_COMMON = ("trainer=cpu", "callbacks.checkpoints.every_seconds=0")
KINDS: dict[str, list[tuple[str, ...]]] = {
    # Those with squared error and lr=1e30 diverge; those with the Huber loss and lr=1e30 are stopped early.
    "linear": [
        (*_COMMON, "trainer.max_epochs=8", "trainer.check_val_every_n_epoch=1", "callbacks=early_stopping",
         "callbacks.early_stopping.patience=3", f"loss={loss}", f"optimizer.lr={rate}")
        for loss in ("mse", "huber") for rate in ("0.1", "1e30")
    ],
    "mlp": [
        (*_COMMON, "model=mlp", "data=digits", "data.size=8", "data.batch_size=300", "trainer.max_epochs=3",
         "optimizer=adam", f"scheduler={schedule}", f"loss={loss}", f"seed={seed}")
        for schedule in ("one_cycle", "cosine") for loss in ("cross_entropy", "focal") for seed in (0, 1)
    ],
}  # fmt: skip
"""The overrides of the members of each kind of group."""


def cases(count: int) -> list[Case]:
    """Twenty kills in each case."""
    kinds = list(KINDS)
    return [Case("fused_writes", f"{number} {kinds[number % len(kinds)]}") for number in range(math.ceil(count / 20))]


def run(case: Case, folder: Path, kills: int = 20) -> CaseResult:
    """Kill the process of a group before one of its file operations, start it again, and compare its runs."""
    rng = random.Random(repr(case))  # noqa: S311
    number, _, kind = case.name.partition(" ")
    whole, group = folder / case.part / f"whole{number}", folder / case.part / f"group{number}"
    for each in (whole, group):
        shutil.rmtree(each, ignore_errors=True)
    configs = [compose([*overrides], str(group / str(index))) for index, overrides in enumerate(KINDS[kind])]
    operations = train(group, configs) or 0
    group.rename(whole)
    failures, counted = list[str](), 0
    while counted < kills and not failures:
        while not has_ended(group):
            # A group that is started again has fewer operations left.
            kill_at = rng.randrange(operations // rng.choice([1, 2, 8])) if counted < kills else None
            counted += train(group, configs, kill_at) is None
        if "cannot be resumed" in (group / "fused" / "train.log").read_text():
            failures.append(f"a checkpoint was not used, see {group}")
        failures += check_outcomes(group, whole)
    return CaseResult(counted, failures)


def has_ended(folder: Path) -> bool:
    """Return whether the group has ended."""
    return (folder / "fused" / "0" / RESULTS).exists()


def train(folder: Path, configs: Sequence[dict[str, Any]], kill_at: int | None = None) -> int | None:
    """Train a group in a child process, which is killed before its file operation number `kill_at`.

    Args:
        folder: the folder of the group and of its members. If it contains a group, it continues.
        configs: the resolved configuration of each member.
        kill_at: the number of the operation; None for an undisturbed process.

    Returns:
        The number of operations; None if the process was killed.
    """
    runs = [RunFolder(Path(config["run_dir"])) for config in configs]
    group = [
        FusedMember(number, config, finished=run.metrics.exists(), resumes=run.config.exists())
        for number, (config, run) in enumerate(zip(configs, runs, strict=True))
    ]
    import_module("losslab.training.fused.group")  # now, so that not each child imports it
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        _train(group, folder, kill_at, writes)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    if status:
        raise RuntimeError((folder / "fused" / "train.log").read_text())
    return int(content)


def _train(group: list[FusedMember], folder: Path, kill_at: int | None, writes: int) -> None:
    """Train in this process, and exit."""
    operations = 0

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal operations
        if event not in {"open", "os.rename", "os.remove"} or not str(arguments[0]).startswith(str(folder)):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if operations == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        operations += 1

    code = 1
    try:
        (folder / "fused").mkdir(parents=True, exist_ok=True)
        log = os.open(folder / "fused" / "train.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.addaudithook(count)
        run_group(group, folder / "fused" / "0")
        os.write(writes, str(operations).encode())
        code = 0
    except BaseException:  # noqa: BLE001 -- the parent raises an error with the log
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)

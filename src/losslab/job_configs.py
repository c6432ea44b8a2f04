"""The configuration of each job of a sweep, and the folder that it names. Imports no torch."""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from losslab import asking, trust
from losslab.cli import completing, said_again
from losslab.cli.composing import resolve
from losslab.confining import confine, confine_options
from losslab.errors import LabError
from losslab.sweep import Job


def compose(context: HydraContext, of_sweep: DictConfig, job: Job, sweep: Path) -> DictConfig:
    """What Hydra composes for a job, in the folder that its number and its configuration name.

    Raises:
        CompactHydraException: what was asked for cannot be composed; as OmegaConfBaseException.
        LabError: its seed is none; or it does more than what somebody else's sweep may.
    """
    config = context.config_loader.load_sweep_config(of_sweep, job.overrides)
    with read_write(config), open_dict(config):
        config.hydra.job.id = config.hydra.job.num = job.number
        config.hydra.sweep.dir = str(sweep)  # named once, not again in each child
        with _known_to_resolvers(config):
            subdir = str(config.hydra.sweep.subdir)
        handlers = OmegaConf.select(config, "hydra.job_logging.root.handlers") or []
        if {"console", "file"} <= set(handlers):  # the child's output goes to the same file
            config.hydra.job_logging.root.handlers = [name for name in handlers if name != "console"]
    if not isinstance(config.seed, int):
        message = f"seed must be a whole number, got {config.seed!r}"  # a part of the folder's name
        raise LabError(message)
    put(config, sweep / subdir)
    _check(config, job)
    return config


def put(config: DictConfig, folder: Path) -> None:
    """Have a job run in this folder.

    Raises:
        LabError: it lies outside of a sweep that somebody else may have written.
    """
    sweep = Path(config.hydra.sweep.dir)
    if completing.handed_over is not None:
        if folder.is_symlink() or folder.parent.resolve() != sweep.resolve() or folder.name in {"", "..", "."}:
            message = (
                f"{folder} is no folder in {sweep}: nothing is made there. Say the whole command of the sweep again"
            )
            raise LabError(message)
        if folder.is_dir():
            confine({"run_dir": str(folder)}, folder)
    with read_write(config), open_dict(config):
        config.hydra.sweep.subdir = os.path.relpath(folder, config.hydra.sweep.dir)
        config.hydra.runtime.output_dir = str(folder)


def folder_of(config: DictConfig) -> Path:
    """Where a job runs."""
    return Path(config.hydra.runtime.output_dir)


def resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration that a job will train, as its process resolves it.

    Raises:
        LabError: as `resolve` does.
    """
    plain = copy.deepcopy(config)
    with read_write(plain), open_dict(plain):
        del plain["hydra"]
    with _known_to_resolvers(config):
        return resolve(plain, config.hydra.runtime.choices, str(folder_of(config)))


def _check(config: DictConfig, job: Job) -> None:
    """See that a job of a sweep that somebody else may have written makes and writes no more than one's run may.

    Raises:
        LabError: it names what is not on the list, or leads out of its folder.
    """
    if completing.handed_over is None:
        return
    wrong = next((part for part in job.overrides if not (said_again.harmless(part) or _trusts_as_said(part))), None)
    if wrong is not None:
        message = (
            f"{completing.handed_over}: {wrong[:80]!r} could run code or write elsewhere: say the whole command again"
        )
        raise LabError(message)
    plain, source = resolved(config), completing.handed_over
    asking.ask(_looked_at, plain, source, trust.said())  # where torch is imported
    confine_options(plain, folder_of(config))


def _trusts_as_said(part: str) -> bool:
    """Whether it trusts whom the command line of this process trusts: what the folder says of that is left out."""
    return part.startswith("trust=") and set(trust.named(part.removeprefix("trust="))) <= set(trust.said())


def _looked_at(config: dict[str, Any], source: Path, trusted: list[str]) -> None:
    trust.also(trusted)
    trust.check(config, source)


@contextmanager
def _known_to_resolvers(config: DictConfig) -> Iterator[None]:
    """${hydra:...} means this job's meanwhile."""
    before, HydraConfig.instance().cfg = HydraConfig.instance().cfg, config  # type: ignore[assignment]
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before

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

from losslab.cli.composing import resolve
from losslab.sweep import Job


def compose(context: HydraContext, of_sweep: DictConfig, job: Job, sweep: Path) -> DictConfig:
    """What Hydra composes for a job, in the folder that its number and its configuration name.

    Raises:
        CompactHydraException: what was asked for cannot be composed; as OmegaConfBaseException.
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
    put(config, sweep / subdir)
    return config


def put(config: DictConfig, folder: Path) -> None:
    """Have a job run in this folder."""
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


@contextmanager
def _known_to_resolvers(config: DictConfig) -> Iterator[None]:
    """${hydra:...} means this job's meanwhile."""
    before, HydraConfig.instance().cfg = HydraConfig.instance().cfg, config  # type: ignore[assignment]
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before

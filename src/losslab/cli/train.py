"""`losslab train` and `python train.py`: compose, train and test a run, or run a sweep with -m."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig

from losslab import CONF, runs
from losslab.cli import resume, run
from losslab.cli.help import help_text
from losslab.cli.process import add_working_directory_to_path, leave, run_and_leave
from losslab.errors import LabError
from losslab.io.terminal import ignore_output_errors
from losslab.sweep import display
from losslab.sweep.resume import FLAGS
from losslab.training.config import ProcessContext, register, resolve
from losslab.training.distributed import environment, spawn, worker

logger = logging.getLogger("losslab")


def train() -> None:
    """Train the run or sweep of the command line, or resume one."""
    ignore_output_errors()
    # Flags first: before Python 3.12, argparse rejects overrides on both sides of a flag (`loss=mse -m seed=0,1`).
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in FLAGS)
    if {"--help", "-h"} & set(sys.argv[1:]):
        sys.stdout.write(help_text())
        return
    if any(argument.startswith("resume=") for argument in sys.argv[1:]):
        resume.resume(sys.argv[1:])
    add_working_directory_to_path()
    context = ProcessContext()
    register(context)
    # Hydra prints errors over several lines; with HYDRA_FULL_ERROR it raises them.
    show_all = os.environ.get("HYDRA_FULL_ERROR", "0") != "0" or "traceback=true" in sys.argv
    os.environ["HYDRA_FULL_ERROR"] = "1"
    run_and_leave(lambda: _hydra_main(context), lambda: display.close(context.sweep), show_all=show_all)


def _hydra_main(context: ProcessContext) -> None:
    try:
        with _without_folder_of_refused_sweep(context):
            hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(HydraTask(context))()
    except ValueError:
        if context.sweep is None or context.sweep.done:
            raise
        sys.exit(1)  # the sweeper fails because no job succeeded


@contextmanager
def _without_folder_of_refused_sweep(context: ProcessContext) -> Iterator[None]:
    """Remove the folder of a sweep whose jobs cannot be composed."""
    try:
        yield
    except BaseException:
        if context.sweep is None:
            for folder in context.sweep_folders:
                runs.discard_sweep(folder, context.claimed)
        raise


class HydraTask:
    """The task function of Hydra: a run, or a job of a sweep.

    Args:
        context: the context of this process. It is not pickled: each process of a job has its own.
    """

    def __init__(self, context: ProcessContext | None = None) -> None:
        self.context = context or ProcessContext()

    def __reduce__(self) -> tuple[type["HydraTask"], tuple[()]]:
        return HydraTask, ()

    def __call__(self, cfg: DictConfig) -> float | None:
        """Train, and return the value that a sweeper optimises."""
        runtime = HydraConfig.get().runtime
        rank, world_size = environment.current_rank().rank, environment.current_rank().world_size
        try:
            config = resolve(cfg, runtime.choices, runtime.output_dir)
            if rank > 0 and not worker.is_worker():
                logging.getLogger().setLevel(logging.ERROR)  # rank 0 logs for all
            if runtime.choices.get("trainer") == "slurm" and HydraConfig.get().mode is RunMode.RUN and world_size == 1:
                logger.warning("trainer=slurm submits a job only with -m: this run trains on this machine")
            if world_size == 1 and not worker.is_worker():  # a worker's parent has chosen the number of processes
                processes = environment.requested_processes(config["trainer"], lambda: len(spawn.visible_gpus()))
                if processes > 1:
                    return run.run_in_processes(_rank, (HydraConfig.instance().cfg, cfg), processes)
            return run.run(config, resume=self.context.resumes)
        except LabError as error:
            if cfg.traceback or worker.is_worker():
                raise
            run.log_refusal(error)
            if HydraConfig.get().mode is not RunMode.RUN:
                raise  # a sweep continues, keeps the folder of the failed job, and reports it at the end
            if rank == 0:
                runs.discard(Path(runtime.output_dir), self.context.claimed)
            leave(1)


def _rank(hydra_cfg: DictConfig, cfg: DictConfig) -> float | None:
    task = HydraTask()
    register(task.context)
    setup_globals()
    HydraConfig.instance().cfg = hydra_cfg  # type: ignore[assignment]
    if environment.current_rank().rank == 0:
        configure_log(hydra_cfg.hydra.job_logging, hydra_cfg.hydra.verbose)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
    return task(cfg)

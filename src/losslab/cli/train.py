"""`python train.py`: compose, train, test."""

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
from rich import get_console

from losslab import CONF, runs
from losslab.cli import resume, run
from losslab.cli.help import help_text
from losslab.cli.process import find_the_users_code, leave, one_line_errors
from losslab.errors import LabError
from losslab.io.terminal import ignore_output_errors
from losslab.sweep import display, state
from losslab.sweep import resume as sweep_resume
from losslab.training import config
from losslab.training.config import resolve
from losslab.training.distributed import environment, spawn, worker

logger = logging.getLogger("losslab")


def train() -> None:
    """`python train.py` and `losslab train`: compose, train, test."""
    ignore_output_errors()
    # First: before Python 3.12 argparse takes overrides in one piece, and `loss=mse -m seed=0,1` is two.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in sweep_resume.FLAGS)
    if {"--help", "-h"} & set(sys.argv[1:]):
        sys.stdout.write(help_text())
        return
    if resume.asked(sys.argv[1:]):
        with one_line_errors(show_all="traceback=true" in sys.argv):
            command = sweep_resume.completed(sys.argv[1:])
        if command is None:
            resume.resume(sys.argv[1:])
        sweep_resume.handed_over = sweep_resume.summary_of(sys.argv[1:])
        sys.argv[1:] = command
    if sweep_resume.handed_over is None or resume.trusts(sys.argv[1:]):
        find_the_users_code()
    config.register()
    # Hydra prints what goes wrong by itself, over several lines; with this it leaves that to us.
    user_wants_all = os.environ.get("HYDRA_FULL_ERROR", "0") != "0" or "traceback=true" in sys.argv
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with one_line_errors(show_all=user_wants_all, first=_close_sweep), _no_folder_of_a_sweep_refused():
            hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(_task)()
    except ValueError:
        if state.current is None or state.current.done:
            raise
        _close_sweep()
        leave(1)  # a sweeper that asks for the best of none
    except SystemExit as ended:
        _close_sweep()
        leave(ended.code if isinstance(ended.code, int) else 1)
    leave(0 if _close_sweep() else 1)


@contextmanager
def _no_folder_of_a_sweep_refused() -> Iterator[None]:
    """Leave no folder behind of a sweep whose jobs cannot be composed."""
    try:
        yield
    except BaseException:
        if state.current is None:
            for folder in config.sweeps:
                runs.discard_sweep(folder, config.claimed)
        raise


def _close_sweep() -> bool:
    """Show what became of a sweep's jobs, if this was one → whether all is well."""
    if state.current is None:
        return True
    written, console = state.current.write(), get_console()
    logger.info("%s", display.table(state.current, console.width if console.is_terminal else 160))
    summary = runs.display_path(state.current.folder / "summary.json")
    if written:
        logger.info("summary     %s", summary)
    again = sweep_resume.to_complete(state.current.folder, state.current.command)
    if state.current.bad:
        logger.error(
            "%d of %d jobs are not done; to complete them: %s", len(state.current.bad), len(state.current.jobs), again
        )
    elif not written:
        logger.error("%s does not say that all jobs are done: free some space, then %s", summary, again)
    return written and not state.current.bad


def _task(cfg: DictConfig) -> float | None:
    runtime = HydraConfig.get().runtime
    place = environment.current_rank()
    try:
        resolved = resolve(cfg, runtime.choices, runtime.output_dir)
        if place.rank > 0 and not worker.is_worker():
            logging.getLogger().setLevel(logging.ERROR)  # one process of a run speaks for all
        alone = HydraConfig.get().mode is RunMode.RUN and place.world_size == 1
        if runtime.choices.get("trainer") == "slurm" and alone:
            logger.warning("trainer=slurm submits a job for each run with -m; without, the run is here")
        if place.world_size == 1 and not worker.is_worker():  # there, the parent has answered this
            world = environment.requested_processes(resolved["trainer"], lambda: len(spawn.visible_gpus()))
            if world > 1:
                return run.in_ranks(_rank, (HydraConfig.instance().cfg, cfg), world)
        return run.run(resolved, resume=state.resumes)
    except LabError as error:
        if cfg.traceback or worker.is_worker():
            raise
        line = str(error) if place.rank == 0 else f"rank {place.rank}: {error}"
        logger.error("%s", line)  # noqa: TRY400 -- one line on purpose; also into train.log
        if HydraConfig.get().mode is not RunMode.RUN:
            raise  # a sweep goes on, keeps the folder of the job that failed, and says at the end which it was
        if place.rank == 0:
            runs.discard(Path(runtime.output_dir), config.claimed)
        leave(1)


def _rank(hydra_cfg: DictConfig, cfg: DictConfig) -> float | None:
    config.register()
    setup_globals()
    HydraConfig.instance().cfg = hydra_cfg  # type: ignore[assignment]
    if environment.current_rank().rank == 0:
        configure_log(hydra_cfg.hydra.job_logging, hydra_cfg.hydra.verbose)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
    return _task(cfg)

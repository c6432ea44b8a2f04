"""Trains one run, in one or several processes, for all commands that train."""

import errno
import gc
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from losslab.cli.process import exit_now, fast_imports, one_line_errors
from losslab.data.machine import keep_freed_memory
from losslab.errors import LabError, PartError, part_error
from losslab.io.terminal import ignore_output_errors, printable
from losslab.runs import RunFolder, trust
from losslab.sweep import display
from losslab.sweep.resume import resume_command
from losslab.training.config import ProcessContext
from losslab.training.distributed import environment, signals, spawn, worker

if TYPE_CHECKING:
    from losslab.training.experiment import Experiment

logger = logging.getLogger("losslab")


def run_and_exit(body: Callable[[], object], context: ProcessContext, *, show_tracebacks: bool) -> NoReturn:
    """Call `body`, which trains a run or a sweep; close the sweep, if any; exit with 1 if a job is not done, else 0."""

    def close() -> bool:
        return display.close(context.sweep)

    try:
        with one_line_errors(show_tracebacks=show_tracebacks, close=close):
            body()
    except SystemExit as error:
        close()
        exit_now(error.code if isinstance(error.code, int) else 1)
    exit_now(0 if close() else 1)


def run(config: dict[str, Any], *, resume: bool = False, from_folder: bool = False) -> float | None:
    """Build, train and test an experiment, log the results, and return the value that a sweeper optimises.

    Args:
        config: the resolved configuration.
        resume: whether to resume the run that its run_dir contains.
        from_folder: whether the configuration was read from an untrusted folder; True if `resume` is.

    Raises:
        LabError: the configuration is wrong, the training failed, or the disk is full.
    """
    try:
        return _run(config, resume=resume, from_folder=from_folder)
    except Exception as error:
        part = error if isinstance(error, PartError) else part_error(error)
        if part is None:
            raise
        _write_traceback(error)
        folder = RunFolder(Path(config["run_dir"]))
        again = f"; to resume: {resume_command(folder.path, trust.packages_to_trust(config))}"
        raise PartError(f"{part}{again if folder.last.is_file() else ''}") from error


def _write_traceback(error: Exception) -> None:
    """Write a traceback to the log file of the run, and not to the terminal."""
    record = logger.makeRecord(
        logger.name,
        logging.ERROR,
        __file__,
        0,
        "%s",
        (type(error).__name__,),
        (type(error), error, error.__traceback__),
    )
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _run(config: dict[str, Any], *, resume: bool, from_folder: bool) -> float | None:
    ignore_output_errors()  # here, because each process of a run calls this function
    with fast_imports():
        from losslab.cli import report  # noqa: PLC0415
        from losslab.training.experiment import build  # noqa: PLC0415
        from losslab.training.experiment import run as run_experiment  # noqa: PLC0415
        from losslab.training.teacher import with_teacher  # noqa: PLC0415
        from losslab.training.trainer import may_log_metrics  # noqa: PLC0415
    keep_freed_memory()
    folder = RunFolder(Path(config["run_dir"]))
    from_folder = from_folder or resume
    resume = resume or (environment.is_restart() and folder.config.is_file())
    if resume and folder.teacher.is_dir():  # use this copy, since the original teacher may have changed
        config = with_teacher(str(folder.teacher), config)
    experiment = build(config)
    # An untrusted configuration must not start a download that is not verified.
    experiment.data.may_download = not from_folder or getattr(experiment.data, "verify", True) is True
    metric = config["optimized_metric"] or experiment.learner.monitor
    if metric not in experiment.learner.metric_names and not may_log_metrics(config):
        raise LabError(f"optimized_metric={metric} is not one of {', '.join(experiment.learner.metric_names)}")
    experiment.data.prepare_data()  # may fail, so it precedes the header, which names the run folder
    if experiment.data.corruptions:
        experiment.data.setup()  # the header describes the corruptions
    is_first_rank = experiment.trainer.is_global_zero
    if is_first_rank:
        report.log_header(experiment)
    again = resume_command(folder.path, trust.packages_to_trust(config))
    try:
        results = run_experiment(experiment, resume=resume)
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        _exit_after_interrupt(experiment, again)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or not experiment.folder.config.is_file():
            raise
        raise LabError(f"cannot write into {folder.path} ({error.strerror}): free some space, then {again}") from error
    if is_first_rank:
        report.log_results(experiment, results)
    value = _optimized_value(metric, results, required=is_first_rank and bool(config["optimized_metric"]))
    del experiment
    gc.collect()  # frees the data of the experiment, in case this process trains another run
    return value


def _optimized_value(metric: str, results: dict[str, float], *, required: bool) -> float | None:
    """Return the value of a metric; None if there is none. Names that callbacks log are known only after training.

    Raises:
        LabError: the metric is required, but missing.
    """
    if required and metric not in results:
        raise LabError(f"optimized_metric={metric} is not among the results of this run: {', '.join(results)}")
    return results.get(metric)


def _exit_after_interrupt(experiment: "Experiment", again: str) -> NoReturn:
    """Exit after a signal has ended training. Log `again`, the command that resumes it; on SLURM, requeue the job."""
    from losslab.training.callbacks.checkpoint import find_checkpoint_callback  # noqa: PLC0415

    callback = find_checkpoint_callback(experiment.trainer)
    handler = signals.SignalHandler() if callback is None else callback.signals
    number = handler.received or signal.SIGINT
    if experiment.trainer.is_global_zero:
        trainer = experiment.trainer
        where = f"epoch {trainer.current_epoch + 1} after step {trainer.global_step}"
        logger.error("interrupted in %s; to resume: %s", where, again)
        if number in signals.slurm_signals():
            signals.requeue_slurm_job(number, handler.previous_handlers.get(number))
    exit_now(128 + number)


def processes_to_start(config: dict[str, Any]) -> int:
    """Return the number of processes to start for a run; 1 if this process already is one of its ranks."""
    if environment.current_rank().world_size > 1 or worker.is_worker():
        return 1
    return environment.requested_processes(config["trainer"], lambda: len(spawn.visible_gpus()))


class _RankTraceback(Exception):  # noqa: N818 -- it only shows a text as the cause of an error
    """The traceback of a rank."""


def run_in_processes(task: Callable[..., float | None], arguments: tuple[Any, ...], world_size: int) -> float | None:
    """Call a task in several processes on this machine, wait for them, and return the result of rank 0.

    Raises:
        LabError: a rank failed. Its cause is the traceback, which was printed if the reason does not explain it.
    """
    options = worker.WorkerOptions(threads=spawn.threads_per_process(world_size))
    result = spawn.wait_for_group(spawn.WorkerGroup(task, [arguments] * world_size, options))
    if result.exit_code > 128:  # ended by a signal: all ranks have saved, and rank 0 has logged it
        exit_now(result.exit_code)
    if result.reason is not None:
        if not result.is_explained:
            sys.stderr.write(printable(result.traceback))
        raise LabError(result.reason) from _RankTraceback(result.traceback)
    return result.value  # type: ignore[no-any-return]

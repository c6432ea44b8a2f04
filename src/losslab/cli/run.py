"""Training one run in one or several processes, for all commands that train."""

import errno
import gc
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from losslab.cli.process import imports_without_gc, keep_freed_memory, leave
from losslab.errors import LabError
from losslab.io.terminal import ignore_output_errors, printable
from losslab.runs import RunFolder
from losslab.sweep.resume import resume_command
from losslab.training.distributed import environment, signals, spawn
from losslab.training.distributed.spawn import WorkerGroup
from losslab.training.distributed.worker import WorkerOptions

if TYPE_CHECKING:
    from losslab.training.experiment import Experiment

logger = logging.getLogger("losslab")


def run(config: dict[str, Any], *, resume: bool = False, from_folder: bool = False) -> float | None:
    """Build, train and test an experiment, report on the terminal, and return the value that a sweeper optimises.

    Args:
        config: the resolved configuration.
        resume: whether to resume the run in its folder.
        from_folder: whether the configuration was read from an untrusted folder.

    Raises:
        LabError: the experiment was refused, or failed.
    """
    ignore_output_errors()  # in each process of a run
    with imports_without_gc():
        from losslab.cli import report  # noqa: PLC0415
        from losslab.training import experiment as lab  # noqa: PLC0415
        from losslab.training.teacher import with_teacher  # noqa: PLC0415
    keep_freed_memory()
    folder = RunFolder(Path(config["run_dir"]))
    from_folder = from_folder or resume
    resume = resume or (environment.is_restart() and folder.config.is_file())
    if resume and folder.teacher.is_dir():  # the copy in the run: the original teacher may have changed
        config = with_teacher(str(folder.teacher), config)
    experiment = lab.build(config)
    # An untrusted folder must not trigger an unverified download; a started run already has its data.
    experiment.data.may_download = not from_folder or getattr(experiment.data, "verify", True) is True
    metric = config["optimized_metric"] or experiment.learner.monitor
    if metric not in experiment.learner.metric_names:
        raise LabError(f"optimized_metric={metric} is not one of {', '.join(experiment.learner.metric_names)}")
    experiment.data.prepare_data()  # before the header names the run folder: this may fail
    if experiment.data.corruptions:
        experiment.data.setup()  # the header describes them
    first = experiment.trainer.is_global_zero
    if first:
        report.log_header(experiment)
    try:
        with _full_disk_as_lab_error(experiment):
            results = lab.run(experiment, resume=resume)
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        _interrupted(experiment)
    if first:
        report.log_results(experiment, results)
    value = results.get(metric)
    del experiment
    gc.collect()  # frees its data before the next job of a sweep loads its own
    return value


def log_refusal(error: LabError) -> None:
    """Log the reason why a run is refused, on the terminal and in train.log."""
    rank = environment.current_rank().rank
    logger.error("%s", str(error) if rank == 0 else f"rank {rank}: {error}")


@contextmanager
def _full_disk_as_lab_error(experiment: "Experiment") -> Iterator[None]:
    """Replace the error of a full disk by a LabError with the command that resumes the run."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or not experiment.folder.config.is_file():
            raise
        path, again = experiment.folder.path, resume_command(experiment.folder.path, experiment.config)
        raise LabError(f"cannot write into {path} ({error.strerror}): free some space, then {again}") from error


def _interrupted(experiment: "Experiment") -> NoReturn:
    """Log the command that resumes a run that was ended by a signal, after Lightning's teardown; then exit."""
    from losslab.training.callbacks.checkpoint import find_checkpoint_callback  # noqa: PLC0415

    callback = find_checkpoint_callback(experiment.trainer)
    handler = signals.SignalHandler() if callback is None else callback.signals
    number = handler.received or signal.SIGINT
    if experiment.trainer.is_global_zero:
        trainer, again = experiment.trainer, resume_command(experiment.folder.path, experiment.config)
        where = f"epoch {trainer.current_epoch + 1} after step {trainer.global_step}"
        logger.error("interrupted in %s; to resume: %s", where, again)
        if number in signals.slurm_signals():
            signals.requeue_slurm_job(number, handler.previous_handlers.get(number))
    leave(128 + number)


def run_in_processes(task: Callable[..., float | None], arguments: tuple[Any, ...], world_size: int) -> float | None:
    """Call a task in several processes on this machine, wait for them, and return the result of rank 0.

    Raises:
        LabError: a rank failed; its traceback was printed.
    """
    options = WorkerOptions(threads=spawn.threads_per_process(world_size))
    result = spawn.wait_for_group(WorkerGroup(task, [arguments] * world_size, options))
    if result.exit_code > 128:  # a signal: all ranks have saved, and rank 0 has reported it
        leave(result.exit_code)
    if result.reason is not None:
        sys.stderr.write(printable(result.traceback))
        raise LabError(result.reason)
    value: float | None = result.value
    return value

"""One run, in this process or in several, as all commands that train do it."""

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
from losslab.runs import RunFolder, trust
from losslab.sweep.resume import resume_command
from losslab.training.distributed import environment, signals, spawn
from losslab.training.distributed.spawn import WorkerGroup
from losslab.training.distributed.worker import WorkerOptions

if TYPE_CHECKING:
    from losslab.training.experiment import Experiment

logger = logging.getLogger("losslab")


def run(config: dict[str, Any], *, resume: bool = False) -> float | None:
    """Build, train and test, and say so on the terminal → the value that a sweeper optimises.

    Args:
        config: resolved.
        resume: go on with the run that lies in its folder.

    Raises:
        LabError: the experiment was refused, or went wrong.
    """
    ignore_output_errors()  # of each process of a run
    trust.also(config.get("trust"))
    with imports_without_gc():
        from losslab.cli import report  # noqa: PLC0415
        from losslab.training import experiment as lab  # noqa: PLC0415
        from losslab.training.teacher import taught_by  # noqa: PLC0415
    keep_freed_memory()
    folder = RunFolder(Path(config["run_dir"]))
    said_by_a_folder = resume
    resume = resume or (environment.is_restart() and folder.config.is_file())
    if resume and folder.teacher.is_dir():  # its own copy: the teacher's folder may be gone by now, or another
        config = taught_by(str(folder.teacher), config)
    experiment = lab.build(config)
    # What is fetched unverified is what whoever wrote the folder likes; a run that had begun had its data.
    experiment.data.may_download = not said_by_a_folder or getattr(experiment.data, "verify", True) is True
    metric = config["optimized_metric"] or experiment.learner.monitor
    if metric not in experiment.learner.metric_names:
        raise LabError(f"optimized_metric={metric} is none of {', '.join(experiment.learner.metric_names)}")
    experiment.data.prepare_data()  # before the header says where the run will be: this may fail
    if experiment.data.corruptions:
        experiment.data.setup()  # the header says what is wrong with them
    first = experiment.trainer.is_global_zero
    if first:
        report.header(experiment)
    try:
        with _a_full_disk_in_one_line(experiment):
            results = lab.run(experiment, resume=resume)
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        _interrupted(experiment)
    if first:
        report.closing(experiment, results)
    value = results.get(metric)
    del experiment
    gc.collect()  # its data, before the next job of a sweep loads its own
    return value


@contextmanager
def _a_full_disk_in_one_line(experiment: "Experiment") -> Iterator[None]:
    """Say how to go on with a run that has begun when its metrics.json, say, cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT} or not experiment.folder.config.is_file():
            raise
        path, again = experiment.folder.path, resume_command(experiment.folder.path, experiment.config)
        raise LabError(
            f"cannot write any more into {path} ({error.strerror}): free some space, then {again}"
        ) from error


def _interrupted(experiment: "Experiment") -> NoReturn:
    """Say how to go on after a signal, which Lightning answers so after it has tidied up."""
    from losslab.training.callbacks.checkpoint import find_checkpoint_callback  # noqa: PLC0415

    callback = find_checkpoint_callback(experiment.trainer)
    handler = signals.SignalHandler() if callback is None else callback.signals
    number = handler.received or signal.SIGINT
    if experiment.trainer.is_global_zero:
        trainer, again = experiment.trainer, resume_command(experiment.folder.path, experiment.config)
        where = f"epoch {trainer.current_epoch + 1} after step {trainer.global_step}"
        logger.error("interrupted in %s; to go on: %s", where, again)
        if number in signals.slurm_signals():
            signals.requeue_slurm_job(number, handler.previous_handlers.get(number))
    leave(128 + number)


def in_ranks(task: Callable[..., float | None], arguments: tuple[Any, ...], world: int) -> float | None:
    """Call a task in `world` processes of this machine, and wait for them → what rank 0 returned.

    Raises:
        LabError: one of them failed; its traceback was printed.
    """
    outcome = spawn.wait_for_group(
        WorkerGroup(task, [arguments] * world, WorkerOptions(threads=spawn.threads_per_process(world)))
    )
    if outcome.exit_code > 128:  # a rank was sent a signal, all have saved, and the first has said so
        leave(outcome.exit_code)
    if outcome.reason is not None:
        sys.stderr.write(printable(outcome.traceback))
        raise LabError(outcome.reason)
    value: float | None = outcome.value
    return value

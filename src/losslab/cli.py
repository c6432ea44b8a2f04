"""What `python train.py` and the console commands run. Heavy imports wait until an experiment is certain."""

import argparse
import atexit
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, setup_globals
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from rich import get_console

from losslab import CONF, child, processes, ranks, resolvers, runs, sweep
from losslab.child import Surroundings
from losslab.errors import LabError
from losslab.help import help_text
from losslab.processes import Run
from losslab.runs import RunFolder
from losslab.terminal import ConsoleHandler

logger = logging.getLogger("losslab")


def train() -> None:
    """`python train.py` and `losslab-train`: compose, train, test."""
    if {"--help", "-h"} & set(sys.argv[1:]):
        sys.stdout.write(help_text())
        return
    _find_the_users_code()
    resolvers.register()
    # Hydra prints what goes wrong by itself, over several lines; with this it leaves that to us.
    user_wants_all = os.environ.get("HYDRA_FULL_ERROR", "0") != "0" or "traceback=true" in sys.argv
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        with one_line_errors(show_all=user_wants_all), _no_folder_of_a_sweep_refused():
            hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(_task)()
    except KeyboardInterrupt:
        _close_sweep()
        sys.stderr.write("interrupted\n")
        leave(130)
    except ValueError:
        if sweep.current is None or sweep.current.done:
            raise
        _close_sweep()
        leave(1)  # a sweeper that asks for the best of none
    except SystemExit as ended:
        _close_sweep()
        leave(ended.code if isinstance(ended.code, int) else 1)
    leave(0 if _close_sweep() else 1)


def _find_the_users_code() -> None:
    """Have loss._target_=mine.Loss find mine.py in the working directory; python itself looks beside the script."""
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


@contextmanager
def _no_folder_of_a_sweep_refused() -> Iterator[None]:
    """Leave no folder behind of a sweep whose jobs cannot be composed."""
    try:
        yield
    except BaseException:
        if sweep.current is None:
            for folder in resolvers.sweeps:
                runs.discard_sweep(folder, resolvers.claimed)
        raise


def _close_sweep() -> bool:
    """Show what became of a sweep's jobs, if this was one → whether all is well."""
    if sweep.current is None:
        return True
    sweep.current.write()
    console = get_console()
    logger.info("%s", sweep.current.table(console.width if console.is_terminal else 160))
    logger.info("summary     %s", runs.shown(sweep.current.folder / "summary.json"))
    if sweep.current.bad:
        logger.error("%d of %d jobs are not done", len(sweep.current.bad), len(sweep.current.jobs))
    return not sweep.current.bad


def _task(cfg: DictConfig) -> float | None:
    runtime = HydraConfig.get().runtime
    place = ranks.here()
    try:
        config = resolve(cfg, runtime.choices, runtime.output_dir)
        if place.rank > 0 and not child.is_child():
            logging.getLogger().setLevel(logging.ERROR)  # one process of a run speaks for all
        if runtime.choices.get("trainer") == "slurm" and HydraConfig.get().mode is RunMode.RUN and place.world == 1:
            logger.warning("trainer=slurm submits a job for each run with -m; without, the run is here")
        if place.world == 1 and not child.is_child():  # there, the parent has answered this
            world = ranks.wanted(config["trainer"], lambda: len(processes.gpus()))
            if world > 1:
                return _in_ranks(cfg, world)
        return _experiment(config)
    except LabError as error:
        if cfg.traceback or child.is_child():
            raise
        line = str(error) if place.rank == 0 else f"rank {place.rank}: {error}"
        logger.error("%s", line)  # noqa: TRY400 -- one line on purpose; also into train.log
        if HydraConfig.get().mode is not RunMode.RUN:
            raise  # a sweep goes on, keeps the folder of the job that failed, and says at the end which it was
        if place.rank == 0:
            runs.discard(Path(runtime.output_dir), resolvers.claimed)
        leave(1)


def _in_ranks(cfg: DictConfig, world: int) -> float | None:
    """Run this experiment in `world` processes of this machine, and wait for them."""
    arguments = (HydraConfig.instance().cfg, cfg)
    run = Run(_rank, [arguments] * world, Surroundings(threads=processes.share(world)))
    outcome = processes.follow(run)
    if outcome.reason is not None:
        sys.stderr.write(outcome.trace)
        raise LabError(outcome.reason)
    value: float | None = outcome.value
    return value


def _rank(hydra_cfg: DictConfig, cfg: DictConfig) -> float | None:
    resolvers.register()
    setup_globals()
    HydraConfig.instance().cfg = hydra_cfg  # type: ignore[assignment]
    if ranks.here().rank == 0:
        configure_log(hydra_cfg.hydra.job_logging, hydra_cfg.hydra.verbose)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
    return _task(cfg)


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """`python scripts/evaluate.py RUN_FOLDER` and `losslab-evaluate`: measure a finished run again."""
    if "-sc" in sys.argv[1:]:
        return  # Hydra's completion of `python train.py` asks every script that python runs
    parser = argparse.ArgumentParser(description="Rebuild a run from its folder and print its metrics.")
    parser.add_argument("run_folder", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--split", choices=("test", "val"), default="test")
    parser.add_argument(
        "--ckpt", default="best", metavar="best|last|PATH", help="the weights to evaluate (default: best)"
    )
    options = parser.parse_args(arguments)
    _find_the_users_code()
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[ConsoleHandler()])
    with one_line_errors(show_all=False):
        folder = RunFolder(options.run_folder)
        config = folder.read_config()
        with imports_without_gc():
            from losslab import experiment as lab  # noqa: PLC0415
            from losslab import report  # noqa: PLC0415
        experiment = lab.rebuild(folder, config)
        checkpoint = folder.checkpoint(options.ckpt)
        logger.info("weights     %s", checkpoint)
        lab.load_weights(experiment.learner.network, checkpoint)
        report.results_table(lab.evaluate(experiment, options.split))
    leave(0)


def _experiment(config: dict[str, Any]) -> float | None:
    with imports_without_gc():
        from losslab import experiment as lab  # noqa: PLC0415
        from losslab import report  # noqa: PLC0415
    keep_freed_memory()
    experiment = lab.build(config)
    metric = config["optimized_metric"] or experiment.learner.monitor
    if metric not in experiment.learner.measured:
        message = f"optimized_metric={metric} is none of {', '.join(experiment.learner.measured)}"
        raise LabError(message)
    experiment.data.prepare_data()  # before the header says where the run will be: this may fail
    first = experiment.trainer.is_global_zero
    if first:
        report.header(experiment)
    try:
        results = lab.run(experiment)
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        if first:  # Ctrl-C, which Lightning answers so after it has tidied up
            logger.error("interrupted in epoch %d", experiment.trainer.current_epoch + 1)  # noqa: TRY400
        leave(130)
    if first:
        report.closing(experiment, results)
    value = results.get(metric)
    del experiment
    gc.collect()  # its data, before the next job of a sweep loads its own
    return value


def compose(overrides: Sequence[str], run_dir: str) -> dict[str, Any]:
    """What `python train.py OVERRIDES` would train in `run_dir`, for `experiment.build`: the way in from Python.

    Args:
        overrides: as on the command line, such as ["model=cifar_cnn", "loss.gamma=3"].
        run_dir: the run folder.
    """
    resolvers.register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", list(overrides), return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg["hydra"]
    return resolve(cfg, choices, run_dir)


def resolve(cfg: DictConfig, choices: Mapping[str, str | None], run_dir: str) -> dict[str, Any]:
    """The configuration as plain containers that build again without Hydra.

    Raises:
        LabError: a value that has no default was not given, or one refers to what is not there.
    """
    # First those at the top, to which others may refer: missing_keys() would stumble over these.
    missing = sorted(str(key) for key in cfg if OmegaConf.is_missing(cfg, key)) or sorted(OmegaConf.missing_keys(cfg))
    if missing:
        message = f"a value is missing: add {' '.join(f'{name}=...' for name in missing)}"
        raise LabError(message)
    for name in (
        "train",
        "test",
        "compile",
        "traceback",
        "optimizer.maximize",
        "data.verify",
        "data.flip",
        "data.reflect",
        "data.alternate",
    ):
        value = OmegaConf.select(cfg, name)
        if value is not None and not isinstance(value, bool):
            message = f"{name} must be true or false, got {value!r}"  # Hydra takes no and off for words
            raise LabError(message)
    groups = ("model", "data", "loss", "optimizer", "scheduler", "trainer", "experiment", "debug")
    with open_dict(cfg):
        cfg.choices = {group: choices.get(group) for group in groups}
        cfg.run_dir = run_dir
        model, data, loss = (str(choices[group]) for group in groups[:3])
        cfg.name = cfg.name or runs.name(model, data, loss, cfg.seed)
    try:
        config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise LabError(str(error).splitlines()[0]) from error
    return config


@contextmanager
def one_line_errors(*, show_all: bool) -> Iterator[None]:
    """Print what the user can mend in one line and exit with code 1; let anything else show its traceback."""
    try:
        yield
    except Exception as error:
        line = _line(error)
        if show_all or line is None:
            raise
        _close_sweep()
        sys.stderr.write(f"{line}\n")
        leave(1)


def _line(error: Exception) -> str | None:
    """What to say of an error instead of its traceback; None where only the traceback helps."""
    cause: BaseException | None = error
    while isinstance(cause, OmegaConfBaseException):  # in which OmegaConf wraps what a resolver raises
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, LabError):
        return str(cause)
    if isinstance(error, CompactHydraException):  # before OSError: some of them are OSErrors too
        cause = error.__cause__
        if isinstance(cause, LabError):
            return str(cause)
        return f"{error}\n{cause}" if isinstance(cause, OmegaConfBaseException) else str(error)  # as Hydra prints it
    if isinstance(error, OSError):
        return f"cannot use {error.filename}: {error.strerror}" if error.filename is not None else None
    # What submitit says of a job or of a machine without SLURM, and Hydra of -m with --cfg.
    foreign = type(error).__module__.startswith("submitit.") or str(error).startswith(
        ("Could not detect", "Only one of")
    )
    return str(error).splitlines()[0] if foreign or isinstance(error, OmegaConfBaseException) else None


@contextmanager
def imports_without_gc() -> Iterator[None]:
    """Import with the garbage collector off: torch and lightning make millions of objects that all stay."""
    if "losslab.experiment" in sys.modules:
        yield  # a later job of a sweep: to freeze again would keep the garbage of the job before
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # where the interpreter does end by itself, or its leak check complains


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next batch instead of returning it page by page (Linux only)."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415

    mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(option, 1 << 30)


def leave(code: int) -> NoReturn:
    """End the process now that all is saved: to tear down torch's modules takes the interpreter over a second."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

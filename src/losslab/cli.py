"""What `python train.py` and the console commands run. Heavy imports wait until an experiment is certain."""

import atexit
import gc
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from losslab import CONF, runs
from losslab.errors import LabError

logger = logging.getLogger("losslab")


def train() -> None:
    """`python train.py` and `losslab-train`: compose, train, test."""
    OmegaConf.register_new_resolver("run_path", _run_path, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("sweep_stamp", runs.stamp, use_cache=True, replace=True)
    # Hydra prints what goes wrong by itself, over several lines; with this it leaves that to us.
    user_wants_all = os.environ.get("HYDRA_FULL_ERROR", "0") != "0" or "traceback=true" in sys.argv
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with one_line_errors(show_all=user_wants_all):
        hydra.main(config_path=str(CONF), config_name="train", version_base="1.3")(_task)()
    leave(0)


def _task(cfg: DictConfig) -> float | None:
    config = resolve(cfg)
    folder = Path(config["run_dir"])
    runs.check_writable(folder)
    try:
        with imports_without_gc():
            from losslab import experiment as lab  # noqa: PLC0415
            from losslab import report  # noqa: PLC0415
        keep_freed_memory()
        experiment = lab.build(config)
    except LabError:
        runs.discard(folder)
        raise
    report.header(experiment)
    results = lab.run(experiment)
    report.closing(experiment, results)
    return results.get(config["optimized_metric"] or experiment.learner.monitor)


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers that build again without Hydra."""
    hydra_config = HydraConfig.get()
    groups = ("model", "data", "loss", "optimizer", "scheduler", "trainer", "experiment", "debug")
    choices = {group: hydra_config.runtime.choices.get(group) for group in groups}
    with open_dict(cfg):
        cfg.choices = choices
        cfg.run_dir = hydra_config.runtime.output_dir
        cfg.name = cfg.name or runs.name(choices["model"], choices["data"], choices["loss"], cfg.seed)
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    return config


@contextmanager
def one_line_errors(*, show_all: bool) -> Iterator[None]:
    """Print what the user can mend in one line and exit with code 1; let anything else show its traceback."""
    try:
        yield
    except (LabError, CompactHydraException) as error:
        if show_all:
            raise
        cause = f"\n{error.__cause__}" if isinstance(error, CompactHydraException) and error.__cause__ else ""
        sys.stderr.write(f"{error}{cause}\n")
        leave(1)


@contextmanager
def imports_without_gc() -> Iterator[None]:
    """Import with the garbage collector off: torch and lightning make millions of objects that all stay."""
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


def _run_path(run_dir: str | None, model: str, data: str, loss: str, seed: int) -> str:
    return run_dir or runs.default_path(model, data, loss, seed)

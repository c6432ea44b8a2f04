"""What conf/ calls by name: ${run_path:...} and the like."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from losslab import asking, ranks, runs
from losslab.direction import direction
from losslab.errors import LabError


def register() -> None:
    """Make them known to OmegaConf.

    Those that name folders are cached: Hydra asks more than once, and a name holds the time.
    """
    OmegaConf.register_new_resolver("run_path", _run_path, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("run_name", runs.name, replace=True)
    OmegaConf.register_new_resolver("sweep_path", _sweep_path, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("divisor", _divisor, replace=True)
    OmegaConf.register_new_resolver("on_first_rank", _on_first_rank, replace=True)
    OmegaConf.register_new_resolver("better", _better, replace=True)


def _divisor(of: int, at_most: int | None) -> int:
    """The greatest common divisor, so that what happens every so many epochs happens in the last one too."""
    return math.gcd(of, at_most) if isinstance(at_most, int) and at_most > 0 else of


def _on_first_rank(value: str, otherwise: str | None) -> str | None:
    """What only one of the processes of a run is to do, such as writing train.log."""
    return value if ranks.here().rank == 0 else otherwise


def _better(data: DictConfig, metric: str | None) -> str:
    """Whether an optimizer over runs has to "maximize" or "minimize" a metric; None for the data's own."""
    plain = OmegaConf.to_container(data, resolve=True)
    return f"{asking.ask(_mode, plain, metric)}imize"


def _mode(data: dict[str, Any], metric: str | None) -> str:
    from losslab import experiment, metrics  # noqa: PLC0415

    return direction(metric) if metric else metrics.mode(experiment.facts(data).task)


def _run_path(run_dir: str | None, name: str | None, *named_by: Any) -> str:
    def decide() -> str:
        job = ranks.job_id()

        def named() -> str:
            return runs.default_path(name or runs.name(*named_by), job)

        path = run_dir or (named() if job is not None else None)
        if path is not None and ranks.restarted() and Path(path).is_dir():
            return path  # this job's, from before
        # Claimed now, since Hydra writes into it before the task begins.
        return _claimed(run_dir, named, again=job is None)

    return ranks.agree(ranks.here(), decide)


def _sweep_path(run_dir: str | None, launcher: str) -> str:
    if ranks.here().world > 1:
        message = "a sweep (-m) starts its processes itself: run it without torchrun or srun"
        raise LabError(message)
    if run_dir and launcher.endswith(".LosslabLauncher") and (Path(run_dir) / runs.SUMMARY).is_file():
        return run_dir  # to be completed
    path = _claimed(run_dir, runs.default_sweep_path, runs.SUMMARY)
    sweeps.append(Path(path).absolute())
    return path


def _claimed(asked: str | None, named: Callable[[], str], first: str = "train.log", *, again: bool = True) -> str:
    """The folder that was asked for, or one of a new name: of another where a run of this second drew the same."""
    for chance in reversed(range(100)):
        path = asked or named()
        try:
            claimed.extend(runs.claim(Path(path), first))
        except runs.TakenError:
            if asked or not again or not chance:
                raise
        else:
            return path
    raise AssertionError  # the last chance returns or raises


claimed: list[Path] = []
"""The folders that this process made for its run or sweep."""
sweeps: list[Path] = []
"""The folder of its sweep, if it runs one."""

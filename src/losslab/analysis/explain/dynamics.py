"""What a run's loss did to each example over training, as the callback `dynamics` recorded it. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losslab import CONF
from losslab.analysis.dynamics.figures import pictures
from losslab.analysis.dynamics.record import Record
from losslab.analysis.explain.figures import keep, place
from losslab.analysis.explain.select_runs import labels
from losslab.errors import LabError
from losslab.runs import RunFolder

_MOST = 6


def applies(config: dict[str, Any]) -> bool:
    """Whether a run of this configuration records its dynamics."""
    return bool((config.get("callbacks") or {}).get("dynamics"))


def explain(runs: Sequence[RunFolder], output: Path | None) -> list[Path]:
    """Draw dynamics_*.png, of several runs side by side on the same axes → their paths.

    Args:
        runs: finished, or interrupted after something was recorded.
        output: a folder; None for the one run's own figures.

    Raises:
        LabError: a run has recorded nothing, there are more than fit beside each other, or they share no axis.
    """
    place(runs, output)
    if len(runs) > _MOST:
        raise LabError(f"{len(runs)} runs do not fit beside each other: name {_MOST} at most")
    configs = [run.read_unchecked_config() for run in runs]
    named = zip(labels(configs), runs, configs, strict=True)
    drawn = pictures({label: _record(run, config) for label, run, config in named})
    return [keep(one.figure, name, runs, output, one.findings) for name, one in drawn.items()]


def _record(run: RunFolder, config: dict[str, Any]) -> Record:
    if not run.dynamics.is_file():
        raise LabError(f"{run.path} holds no {run.dynamics.name}: train it again with {_override(config)}")
    return Record.load(run.dynamics)


def _override(config: dict[str, Any]) -> str:
    """What the command line of this run needs besides, which keeps the callbacks it had."""
    choices = {path.stem for path in (CONF / "callbacks").glob("*.yaml")} - {"default", "none"}
    had = [name for name in config.get("callbacks") or {} if name in choices - {"dynamics"}]
    return f"'callbacks=[{','.join([*had, 'dynamics'])}]'" if had else "callbacks=dynamics"

"""What a run's loss did to each example over training, as the callback `dynamics` recorded it. Imports no torch."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losslab import CONF
from losslab.dynamics.drawing import Records, pictures
from losslab.dynamics.record import Record
from losslab.errors import LabError
from losslab.runs import RunFolder, shown

logger = logging.getLogger(__name__)
_MOST = 6


def applies(config: dict[str, Any]) -> bool:
    """Whether a run of this configuration records its dynamics."""
    return bool((config.get("callbacks") or {}).get("dynamics"))


def explain(runs: Sequence[RunFolder], output: Path | None = None) -> list[Path]:
    """Draw the dynamics of one run into its figures, or of several side by side on the same axes.

    Args:
        runs: finished, or interrupted after something was recorded.
        output: the folder of the figures; None for that of the run, or the current folder for several runs.

    Returns:
        The files written.

    Raises:
        LabError: a run has recorded nothing, there are more than fit beside each other, or they share no axis.
    """
    if len(runs) > _MOST:
        message = f"{len(runs)} runs do not fit beside each other: name {_MOST} at most"
        raise LabError(message)
    records = _labelled(runs)
    folder = output or (runs[0].figures if len(runs) == 1 else Path("outputs/figures"))
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, drawn in pictures(records).items():
        path = folder / f"{name}.png"
        drawn.figure.savefig(path, metadata={"Software": None})
        for line in drawn.findings:
            logger.info("%s: %s", shown(path), line)
        written.append(path)
    return written


def _labelled(runs: Sequence[RunFolder]) -> Records:
    """The record of each run, by its loss where that tells them apart, else by its name, else by its folder."""
    configs = [run.read_config() for run in runs]
    names = [str(config["name"]) for config in configs]
    losses = [str(config["choices"]["loss"]) for config in configs]
    candidates = [names] if len(runs) == 1 else [losses, names, [str(shown(run.path)) for run in runs]]
    labels = next((each for each in candidates if len(set(each)) == len(runs)), None)
    if labels is None:
        message = "the same run is named twice"
        raise LabError(message)
    return {label: _record(run, config) for label, run, config in zip(labels, runs, configs, strict=True)}


def _record(run: RunFolder, config: dict[str, Any]) -> Record:
    if not run.dynamics.is_file():
        message = f"{run.path} holds no {run.dynamics.name}: train it again with {_override(config)}"
        raise LabError(message)
    return Record.load(run.dynamics)


def _override(config: dict[str, Any]) -> str:
    """What the command line of this run needs besides, which keeps the callbacks it had."""
    choices = {path.stem for path in (CONF / "callbacks").glob("*.yaml")} - {"default", "none"}
    had = [name for name in config.get("callbacks") or {} if name in choices - {"dynamics"}]
    return f"'callbacks=[{','.join([*had, 'dynamics'])}]'" if had else "callbacks=dynamics"

"""Explanation `dynamics`: figures of what the callback `dynamics` recorded. Imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from losslab import CONF
from losslab.analysis.dynamics.figures import draw_all
from losslab.analysis.dynamics.record import Record
from losslab.analysis.explain.figures import figures_folder, save_figure
from losslab.analysis.explain.select_runs import run_labels
from losslab.errors import LabError
from losslab.runs import RunFolder

_MAX_RUNS = 6


def explain(runs: Sequence[RunFolder], output: Path | None) -> list[Path]:
    """Draw dynamics_*.png and return the paths. Several runs are drawn side by side or as lines of one panel.

    Unfinished runs can be drawn as soon as dynamics.npz exists.

    Raises:
        LabError: a run has no dynamics.npz, there are too many runs, or the tasks of the runs differ.
    """
    figures_folder(runs, output)
    if len(runs) > _MAX_RUNS:
        raise LabError(f"{len(runs)} runs do not fit side by side: name at most {_MAX_RUNS} runs")
    configs = [run.read_unchecked_config() for run in runs]
    records = {}
    for label, run, config in zip(run_labels(configs), runs, configs, strict=True):
        if not run.dynamics.is_file():
            choices = {path.stem for path in (CONF / "callbacks").glob("*.yaml")} - {"default", "none", "dynamics"}
            present = [name for name in config.get("callbacks") or {} if name in choices]
            override = f"'callbacks=[{','.join([*present, 'dynamics'])}]'" if present else "callbacks=dynamics"
            raise LabError(f"{run.path} contains no {run.dynamics.name}: train it again with {override}")
        records[label] = Record.load(run.dynamics)
    drawn = draw_all(records)
    return [save_figure(each.figure, name, runs, output, each.findings) for name, each in drawn.items()]

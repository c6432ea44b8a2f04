"""What the commands of a row gave, as numbers with names."""

import json
from pathlib import Path

from campaigns.campaign import HERE, Result, run, sweep

from choosings.measures import measure
from choosings.row import BARE, Row, Trial


def results_of(row: Row, place: Path) -> list[Result]:
    """Run the commands of a row in a working directory of its own."""
    if row.before:
        run(row.before, HERE, place)
    return [result for trial in row.trials for result in _tried(row, trial, place)]


def _tried(row: Row, trial: Trial, place: Path) -> list[Result]:
    folder = sweep(trial.command, place)
    results = []
    for job in json.loads((folder / "summary.json").read_text())["jobs"]:
        given = dict(override.split("=", 1) for override in job["overrides"])
        label = trial.label or label_of(row, job["overrides"])
        for metric in row.metrics:
            value = measure(metric, folder / job["folder"], job["metrics"])
            results.append(Result(row.name, label, int(given["seed"]), metric, value))
    return results


def label_of(row: Row, overrides: list[str]) -> str:
    """What is said in these overrides and not alike in all sweeps of the row that have no label of their own."""
    sweeps = [trial.settings for trial in row.trials if not trial.label]
    shared = set.intersection(*map(set, sweeps)) if len(sweeps) > 1 else set()
    every = [given for settings in sweeps for given in settings]
    own = [given for given in every if given not in shared] if len(sweeps) > 1 else []
    swept = [given for given in every if "," in given and "[" not in given]
    keys = {given.partition("=")[0] for given in (*own, *swept)} | {"loss"}
    unsaid = shared.union(BARE)
    return " ".join(given for given in overrides if given.partition("=")[0] in keys and given not in unsaid)

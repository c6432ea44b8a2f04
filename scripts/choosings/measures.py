"""What is read from a finished run: its metrics, and what no metric says."""

from math import log, nan
from pathlib import Path

import torch

from losslab import experiment as lab
from losslab import weights
from losslab.runs import RunFolder


def measure(name: str, folder: Path, metrics: dict[str, float], loss: str) -> float:
    """One number of a run.

    Args:
        name: of a metric in metrics.json, "share below" or "Gaussian NLL".
        folder: of the run.
        metrics: of the run.
        loss: the name of its loss.
    """
    if name == "share below":
        return share_below(folder)
    if name == "Gaussian NLL":
        return metrics["test/loss"] if loss == "gaussian_nll" else gaussian_nll(metrics)
    return metrics.get(name, nan)


def gaussian_nll(metrics: dict[str, float]) -> float:
    """(log v + r²/v)/2 on the test set, without the constant, for one variance v: the training MSE."""
    variance = metrics["train/mse"]
    return (log(variance) + metrics["test/mse"] / variance) / 2


def share_below(folder: Path) -> float:
    """The share of the test targets below the prediction, under the weights of the last epoch."""
    run = RunFolder(folder)
    experiment = lab.rebuild(run, run.read_config())
    weights.load(experiment.learner, run.last)
    experiment.data.setup()
    test = experiment.data.splits["test"].take(torch.arange(experiment.data.splits["test"].size))
    with torch.no_grad():
        predictions = experiment.learner.predictions(experiment.learner(test.inputs))
    return float((test.truth < predictions).double().mean())

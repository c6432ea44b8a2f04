"""Values of a finished run: its metrics, and two quantities that are not in metrics.json."""

from math import nan
from pathlib import Path

import torch

from losslab.data.batch import Examples
from losslab.data.corruption.value_noise import Heteroscedastic
from losslab.losses import GaussianNLL
from losslab.runs import RunFolder
from losslab.training import experiment as lab
from losslab.training import weights
from losslab.training.experiment import Experiment


def measure(name: str, folder: Path, metrics: dict[str, float]) -> float:
    """Measure one quantity of a run.

    Args:
        name: name of a metric in metrics.json, "share below" or "error of log σ".
        folder: run folder.
        metrics: content of metrics.json.
    """
    if name == "share below":
        return share_below(folder)
    if name == "error of log σ":
        return deviation_error(folder, metrics)
    return metrics.get(name, nan)


def share_below(folder: Path) -> float:
    """Compute the share of the test targets below the prediction, with the weights of the last epoch."""
    experiment, test = _load_last(folder)
    with torch.no_grad():
        predictions = experiment.learner.predictions(experiment.learner(test.inputs))
    return float((test.truth < predictions).double().mean())


def deviation_error(folder: Path, metrics: dict[str, float]) -> float:
    """Compute the root mean square of log(predicted σ / true σ) over the test inputs.

    A loss that does not predict a variance gets the mean squared training error as the variance of all examples.
    """
    experiment, test = _load_last(folder)
    train, loss = experiment.data.splits["train"], experiment.learner.loss
    (noise,) = experiment.data.corruptions
    assert isinstance(noise, Heteroscedastic)  # noqa: S101 -- for the type checker
    assert isinstance(train, Examples)  # noqa: S101 -- for the type checker
    own_noise = experiment.config["data"]["noise"]  # standard deviation of the noise in all splits
    true = noise.deviation(train, test.inputs).square() + own_noise**2
    predicted = torch.full_like(true, metrics["train/mse_given"])
    if isinstance(loss, GaussianNLL):
        with torch.no_grad():
            predicted = loss.variances(experiment.learner(test.inputs))[:, 0]
    return float(((predicted / true).log() / 2).square().mean().sqrt())


def _load_last(folder: Path) -> tuple[Experiment, Examples]:
    """Load a run with the weights of its last epoch, and its test examples."""
    run = RunFolder(folder)
    experiment = lab.rebuild(run, run.read_config())
    weights.load(experiment.learner, run.last)
    experiment.data.setup()
    test = experiment.data.splits["test"]
    return experiment, test.take(torch.arange(test.size))

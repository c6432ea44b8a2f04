"""Evaluates the runs of a race again, for methods that are fitted after training, and for the score of each test item.

The methods are fitted to the validation outputs of each run, and measured on its test outputs: temperature scaling,
logit adjustment, and tuned thresholds, all of `losslab.analysis.evaluate.calibration`. The scores of the test items
tell how much a difference would change with another test set of the same size.
"""

import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from losslab.errors import LabError
from losslab.io import atomic
from losslab.study.sequential import LEVEL, Interval

if TYPE_CHECKING:
    from losslab.analysis.evaluate.predictions import Predictions
    from losslab.training.experiment import Experiment

Scores = NDArray[np.float64]
PLAIN = ""
"""The name of the run itself, next to those of the methods that are fitted after training."""
_RESAMPLES = 2000


class TestItems(NamedTuple):
    """What the evaluation of a run on its test data gives."""

    metrics: Mapping[str, Mapping[str, float]]
    """The metrics of each method that was fitted after training, by its name and that of the metric."""
    scores: Mapping[str, Scores]
    """The score of each test example (N,), whose mean is the metric, by method; empty if the metric is no mean."""
    index: NDArray[np.int64]
    """The index of each test example in the data set (N,)."""


def read_items(file: Path) -> TestItems | None:
    """Read the file that `evaluate_run` wrote; None if there is none, or it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as content:
            scores = {
                name.partition(":")[2]: content[name].astype(np.float64)
                for name in content.files
                if name.startswith("score:")
            }
            return TestItems(json.loads(str(content["metrics"])), scores, content["index"])
    except (OSError, ValueError, KeyError):
        return None


def evaluate_runs(requests: Sequence[tuple[str, str, str, bool]], trusted: Sequence[str] = ()) -> None:
    """Evaluate runs and write a file for each. Called in a worker, because it imports torch.

    Args:
        requests: for each run its folder, the file to write, the metric, and whether to fit methods after training.
        trusted: the packages that the runs may use in addition to those of `losslab.runs.trust`.
    """
    for folder, file, metric, posthoc in requests:
        items = _evaluate(Path(folder), metric, tuple(trusted), posthoc=posthoc)
        content = BytesIO()
        scores: dict[str, Any] = {f"score:{name}": score.astype(np.float32) for name, score in items.scores.items()}
        np.savez(content, index=items.index, metrics=np.array(json.dumps(items.metrics)), **scores)
        Path(file).parent.mkdir(exist_ok=True)
        atomic.write_bytes(Path(file), content.getvalue())


def _evaluate(folder: Path, metric: str, trusted: tuple[str, ...], *, posthoc: bool) -> TestItems:
    from losslab.analysis.evaluate import calibration  # noqa: PLC0415 -- imports torch, like the others
    from losslab.analysis.evaluate.predictions import interpret_outputs  # noqa: PLC0415
    from losslab.analysis.outputs import collect_outputs  # noqa: PLC0415
    from losslab.training.reopen import EvaluationRequest, reopen  # noqa: PLC0415

    experiment = reopen(EvaluationRequest(folder, trusted=trusted))
    test = collect_outputs(experiment, "test")
    predictions = interpret_outputs(experiment.learner, test)
    scores = {PLAIN: item_scores(predictions, metric)}
    metrics: dict[str, dict[str, float]] = {}
    if posthoc:
        val = collect_outputs(experiment, "val")
        spec, loss = experiment.data.spec, experiment.learner.loss
        fit_logits = calibration.find_logits(loss, val.outputs, spec.task)
        logits, truth = calibration.find_logits(loss, test.outputs, spec.task), predictions.truth
        for name in _methods(experiment):
            try:
                fitted = calibration.fit_calibration(
                    name, fit_logits, val.truth.numpy(), spec.task, class_counts=experiment.data.metadata.class_counts
                )
            except LabError:  # for example, all validation examples are classified correctly
                continue
            metrics[name] = calibration.calibrated_metrics(fitted, logits, truth, spec)
            changed = predictions_of(predictions, fitted.predict(logits, spec.task), fitted.probabilities(logits, spec.task))
            scores[name] = item_scores(changed, metric)
    found = {name: score for name, score in scores.items() if score is not None}
    return TestItems(metrics, found, predictions.index)


def _methods(experiment: "Experiment") -> list[str]:
    """Return the methods that may change something: no thresholds for exclusive classes, no prior that is uniform."""
    from losslab.targets import Task  # noqa: PLC0415

    counts = experiment.data.metadata.class_counts
    methods = ["temperature"]
    if experiment.data.spec.task is not Task.MULTICLASS:
        methods.append("thresholds")
    elif counts is not None and max(counts) > 1.2 * min(counts):
        methods.append("logit_adjustment")
    return methods


def predictions_of(predictions: "Predictions", prediction: Any, probabilities: Any) -> "Predictions":
    """Return predictions for the same examples, with other decisions and probabilities."""
    from dataclasses import replace  # noqa: PLC0415

    return replace(predictions, prediction=prediction, probabilities=probabilities)


def item_scores(predictions: "Predictions", metric: str) -> Scores | None:
    """Return the score of each example (N,), whose mean is the metric; None if the metric is not a mean over examples.

    Those are accuracy, nll, brier, mse and mae.
    """
    truth, count = predictions.truth, len(predictions)
    if metric == "accuracy":
        return np.reshape(predictions.prediction == truth, (count, -1)).mean(axis=1)
    if metric in {"mse", "mae"}:
        errors = np.abs(np.reshape(predictions.prediction - truth, (count, -1)))
        return (errors**2 if metric == "mse" else errors).mean(axis=1)
    probabilities = predictions.probabilities
    if metric not in {"nll", "brier"} or probabilities is None:
        return None
    if truth.ndim == 1 and probabilities.ndim == 2:
        one_hot = np.eye(probabilities.shape[1])[truth]
        if metric == "brier":
            return ((probabilities - one_hot) ** 2).sum(axis=1)
        return -np.log(np.clip(probabilities[np.arange(count), truth], 1.2e-7, None))
    p_true = np.where(truth == 1, probabilities, 1 - probabilities)
    per_label = (1 - p_true) ** 2 if metric == "brier" else -np.log(np.clip(p_true, 1.2e-7, None))
    return np.reshape(per_label, (count, -1)).sum(axis=1)


def item_interval(scores: Scores, other: Scores, *, as_ratio: bool, level: float = LEVEL) -> Interval:
    """Return the difference (or ratio) of two metrics with its interval over test examples, by the bootstrap.

    The examples (S, N) of S common seeds are resampled, the seeds are not: this is the uncertainty that another test
    set of the same size would show, with the same trained networks.

    Source: Efron 1979, *Bootstrap methods: another look at the jackknife* (percentile intervals).
    """

    def statistic(own: Scores, reference: Scores, axis: int = -1) -> Any:
        first, second = own.mean(axis=axis), reference.mean(axis=axis)
        return first / second if as_ratio else first - second

    samples = (scores.mean(axis=0), other.mean(axis=0))
    found = bootstrap(
        samples, statistic, paired=True, vectorized=True, method="percentile", confidence_level=1 - level,
        n_resamples=_RESAMPLES, batch=50, rng=np.random.default_rng(0),
    )  # fmt: skip
    return Interval(float(statistic(*samples)), *map(float, found.confidence_interval))

"""Evaluates the runs of a race again, for methods that are fitted after training, and for the score of each test item.

The methods are fitted to the validation outputs of each run, and measured on its test outputs: temperature scaling,
logit adjustment, and tuned thresholds, all of `losslab.analysis.evaluate.calibration`. The scores of the test items
tell how much a difference would change with another test set of the same size.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, chisquare

from losslab.analysis.compare.statistics import LEVEL
from losslab.errors import LabError
from losslab.io import atomic
from losslab.runs import trust
from losslab.study.sequential import Interval

if TYPE_CHECKING:
    from losslab.analysis.evaluate.predictions import Predictions
    from losslab.training.experiment import Experiment

Scores = NDArray[np.float64]
PLAIN = ""
"""The name of the run itself, next to those of the methods that are fitted after training."""
_RESAMPLES = 2000
_UNEQUAL = 0.001
"""Significance level of the test whether classes are equally frequent."""


class TestItems(NamedTuple):
    """What the evaluation of a run on its test data gives."""

    metrics: Mapping[str, Mapping[str, float]]
    """The metrics of each method that was fitted after training, by its name and that of the metric."""
    scores: Mapping[str, Scores]
    """The score of each test example (N,), whose mean is the metric, by method; empty if the metric is no mean."""
    checksum: int
    """A checksum of the test examples: only runs with equal checksums have the same test data."""


def read_items(file: Path) -> TestItems | None:
    """Read the file that `evaluate_run` wrote; None if there is none, or it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as content:
            scores = {
                name.partition(":")[2]: content[name].astype(np.float64)
                for name in content.files
                if name.startswith("score:")
            }
            return TestItems(json.loads(str(content["metrics"])), scores, int(content["checksum"]))
    except (OSError, ValueError, KeyError):
        return None


class EvaluationJob(NamedTuple):
    """A run to evaluate again."""

    folder: Path
    config: Mapping[str, Any]
    """Its resolved configuration."""
    file: Path
    """The file to write."""
    metric: str
    """The metric, without its split."""
    posthoc: bool
    """Whether to fit methods after training."""


def evaluate_runs(jobs: Sequence[EvaluationJob]) -> None:
    """Evaluate runs, and write a file for each. Called in a worker, because it imports torch."""
    for job in jobs:
        items = _evaluate(job)
        content = BytesIO()
        scores: dict[str, Any] = {f"score:{name}": score.astype(np.float32) for name, score in items.scores.items()}
        np.savez(content, checksum=np.array(items.checksum), metrics=np.array(json.dumps(items.metrics)), **scores)
        job.file.parent.mkdir(exist_ok=True)
        atomic.write_bytes(job.file, content.getvalue())


def _evaluate(job: EvaluationJob) -> TestItems:
    from losslab.analysis.evaluate.predictions import interpret_outputs  # noqa: PLC0415 -- imports torch, like the others
    from losslab.analysis.outputs import collect_outputs  # noqa: PLC0415
    from losslab.training.reopen import EvaluationRequest, reopen  # noqa: PLC0415

    metric = job.metric
    trusted = tuple(trust.packages_to_trust(dict(job.config)))  # the code that trained the run
    experiment = reopen(EvaluationRequest(job.folder, trusted=trusted))
    test = collect_outputs(experiment, "test")
    predictions = interpret_outputs(experiment.learner, test)
    scores = {PLAIN: item_scores(predictions, metric)}
    metrics: dict[str, dict[str, float]] = {}
    if job.posthoc:
        from losslab.analysis.evaluate import calibration  # noqa: PLC0415

        val = collect_outputs(experiment, "val")
        spec, loss = experiment.data.spec, experiment.learner.loss
        truth, methods = predictions.truth, _methods(experiment, metric)
        try:
            fit_logits, logits = (calibration.find_logits(loss, each.outputs, spec.task) for each in (val, test))
        except LabError:  # bce on exclusive classes: its outputs are no logits of a softmax
            methods = []
        for name in methods:
            try:
                fitted = calibration.fit_calibration(
                    name, fit_logits, val.truth.numpy(), spec.task, class_counts=experiment.data.metadata.class_counts
                )
            except LabError:  # for example, all validation examples are classified correctly
                continue
            metrics[name] = calibration.calibrated_metrics(fitted, logits, truth, spec)
            decisions, probabilities = fitted.predict(logits, spec.task), fitted.probabilities(logits, spec.task)
            changed = replace(predictions, prediction=decisions, probabilities=probabilities)
            scores[name] = item_scores(changed, metric)
    found = {name: score for name, score in scores.items() if score is not None}
    checksum = zlib.crc32(predictions.index.tobytes() + np.ascontiguousarray(predictions.truth).tobytes())
    return TestItems(metrics, found, checksum)


def _methods(experiment: "Experiment", metric: str) -> list[str]:
    """Return the methods that may change something: no thresholds for exclusive classes, no prior that is uniform.

    The prior counts as uniform if the class frequencies in training differ by less than a fifth, or no more than a
    random choice of examples from equally frequent classes would make them differ (chi-squared test). Thresholds are
    fitted for the highest accuracy, or if the metric is F1 for the highest F1.
    """
    from losslab.targets import Task  # noqa: PLC0415

    counts = experiment.data.metadata.class_counts
    methods = ["temperature"]
    if experiment.data.spec.task is not Task.MULTICLASS:
        methods.append("f1_thresholds" if metric == "f1" else "thresholds")
    elif counts is not None and max(counts) > 1.2 * min(counts) and chisquare(counts).pvalue < _UNEQUAL:
        methods.append("logit_adjustment")
    return methods


def item_scores(predictions: "Predictions", metric: str) -> Scores | None:
    """Return the score of each example (N,), whose mean is the metric; None if the metric is not a mean over examples.

    Those are accuracy, nll, brier, mse and mae.
    """
    truth, count = predictions.truth, len(predictions)
    if metric == "accuracy":
        return _row_means(predictions.prediction == truth)
    if metric in {"mse", "mae"}:
        errors = np.abs(predictions.prediction - truth)
        return _row_means(errors**2 if metric == "mse" else errors)
    probabilities = predictions.probabilities
    if metric not in {"nll", "brier"} or probabilities is None:
        return None
    if truth.ndim == 1 and probabilities.ndim == 2:
        one_hot = np.eye(probabilities.shape[1])[truth]
        squares, p_true = (probabilities - one_hot) ** 2, probabilities[np.arange(count), truth]
    else:
        p_true = np.where(truth == 1, probabilities, 1 - probabilities)
        squares = (1 - p_true) ** 2
    found = squares if metric == "brier" else -np.log(np.clip(p_true, 1.2e-7, None))
    return np.asarray(np.reshape(found, (count, -1)).sum(axis=1))  # as the metrics, which sum over labels


def _row_means(values: NDArray[Any]) -> Scores:
    return np.asarray(np.reshape(values, (len(values), -1)).mean(axis=1))


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

"""Comparison of predictions with human label distributions: the shares of people who chose each class (CIFAR-10H)."""

from pathlib import Path

import numpy as np
from scipy.special import xlogy
from scipy.stats import spearmanr

from losslab.analysis.evaluate.predictions import Array, Predictions
from losslab.errors import LabError, message_of
from losslab.io.untrusted import open_regular_file

_FLOOR = np.finfo(np.float32).eps
"""Lower bound of probabilities in a logarithm, as in the metric NLL."""


def load(path: Path, predictions: Predictions, size: int = 0) -> Array:
    """Read a .npy file of human label distributions. Return those of the examples in `predictions`, float64 (N, C).

    The file has one row, which sums to 1, for each example of the split, in the order of their indices. If the split is
    a part of a data set of `size` examples, the file may instead have one row for each of these.

    Raises:
        LabError: the file cannot be read, or does not contain such distributions.
    """
    rows = _read(path)
    count, classes = len(predictions), predictions.spec.targets
    is_subset = size > count and not np.array_equal(predictions.index, np.arange(count))
    if rows.ndim != 2 or rows.shape[1] != classes or len(rows) not in {count, size if is_subset else count}:
        other = f", or ({size}, {classes}) in the order of the whole data set" if is_subset else ""
        raise LabError(f"{path} contains an array of shape {rows.shape}, this split needs ({count}, {classes}){other}")
    _check_distributions(rows, path)
    rows = rows.astype(np.float64)
    rows /= rows.sum(1, keepdims=True)  # rows in half precision sum to 1 with an error of about 1e-3
    return rows if len(rows) == count else rows[predictions.index]


def _read(path: Path) -> Array:
    try:
        with open_regular_file(path) as file:
            rows = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise LabError(f"there is no file of soft labels at {path}") from error
    except (OSError, ValueError, EOFError) as error:
        raise LabError(f"cannot read {path} ({message_of(error, 99)}): write a NumPy array with np.save") from error
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu":
        content = f"an array of {rows.dtype}" if isinstance(rows, np.ndarray) else "several arrays"
        raise LabError(f"{path} contains {content}: soft labels are one array of numbers, written with np.save")
    return rows


def _check_distributions(rows: Array, path: Path) -> None:
    with np.errstate(invalid="ignore"):
        invalid = ~np.isfinite(rows).all(1) | (rows < 0).any(1) | (np.abs(rows.sum(1, dtype=np.float64) - 1) > 1e-3)
    if invalid.any():
        first = int(np.flatnonzero(invalid)[0])
        raise LabError(
            f"{path}: rows must be probabilities that sum to 1, but {int(invalid.sum()):,} of {len(rows):,} are not; "
            f"row {first} sums to {rows[first].sum():.4g} (divide counts by the sum of their row)"
        )


def soft_metrics(predictions: Predictions, human: Array) -> dict[str, float]:
    """Compare the network's probabilities p with human distributions h (N, C). Logarithms are natural.

    Cross-entropy H(h, p) and KL(h‖p) = H(h, p) - H(h) are those of Peterson et al., Human uncertainty makes
    classification more robust, 2019 (CIFAR-10H). "accuracy" is the mean human probability of the predicted class.
    "agreement" and "truth_agreement" are the shares of examples whose most likely class under h is the predicted class
    and the true class. "entropy_correlation" is Spearman's correlation between the entropies of p and h.
    """
    assert predictions.probabilities is not None  # noqa: S101 -- for the type checker
    probabilities = predictions.probabilities
    cross, human_entropy, own_entropy = cross_entropy(human, probabilities), entropy(human), entropy(probabilities)
    varied = np.ptp(human_entropy) > 0 and np.ptp(own_entropy) > 0
    return {
        "soft/cross_entropy": float(cross.mean()),
        "soft/entropy": float(human_entropy.mean()),
        "soft/kl": float((cross - human_entropy).mean()),
        "soft/accuracy": float(human[np.arange(len(human)), predictions.prediction].mean()),
        "soft/agreement": float((human.argmax(1) == predictions.prediction).mean()),
        "soft/brier": float(((probabilities - human) ** 2).sum(1).mean()),
        "soft/total_variation": float(np.abs(probabilities - human).sum(1).mean() / 2),
        "soft/entropy_correlation": float(spearmanr(human_entropy, own_entropy).statistic) if varied else float("nan"),
        "soft/truth_agreement": float((human.argmax(1) == predictions.truth).mean()),
    }


def cross_entropy(human: Array, probabilities: Array) -> Array:
    """Return the cross-entropy -Σ h log p of each example (N,)."""
    return np.asarray(-(human * np.log(np.maximum(probabilities, _FLOOR))).sum(1))


def entropy(probabilities: Array) -> Array:
    """Return the entropy -Σ p log p of each row (N,)."""
    return np.asarray(0.0 - xlogy(probabilities, probabilities).sum(1))  # the subtraction from 0.0 avoids -0.0

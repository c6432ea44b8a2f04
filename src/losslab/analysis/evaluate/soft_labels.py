"""A network held against what people say: a distribution over the classes for each example, as in CIFAR-10H."""

from pathlib import Path
from typing import NoReturn

import numpy as np
from scipy.special import xlogy
from scipy.stats import spearmanr

from losslab.analysis.evaluate.predictions import Answers, Array
from losslab.errors import LabError
from losslab.io.untrusted import open_regular_file
from losslab.targets import Task

_FLOOR = np.finfo(np.float32).eps
"""Below it no probability is taken, as for the yardstick NLL."""


def refuse(task: Task) -> NoReturn:
    """Say that only exclusive classes have distributions.

    Raises:
        LabError: always.
    """
    raise LabError(f"--soft-labels are distributions over exclusive classes, these data are {task}: leave it out")


def load(path: Path, answers: Answers, whole: int = 0) -> Array:
    """Read the distributions of the examples of a split, in its order → float64 (N, C).

    A file with a row for each example of the split is in the split's official order (ascending index). Where the split
    was drawn from a larger set, a file of that whole set also does: row i is then that of the example of index i.

    Args:
        path: a .npy file of shape (N, C) whose rows sum to 1.
        answers: of that split.
        whole: how many examples the set has that the split was drawn from.

    Raises:
        LabError: the file cannot be read, or does not hold such distributions.
    """
    rows = _read(path)
    count, classes = len(answers), answers.facts.targets
    drawn = whole > count and not np.array_equal(answers.index, np.arange(count))
    if rows.ndim != 2 or rows.shape[1] != classes or len(rows) not in {count, whole if drawn else count}:
        other = f", or ({whole}, {classes}) in the order of the whole set" if drawn else ""
        raise LabError(f"{path} holds an array of shape {rows.shape}, this split needs ({count}, {classes}){other}")
    _check(rows, path)
    rows = rows.astype(np.float64)
    rows /= rows.sum(1, keepdims=True)  # exactly: files in half precision are off in the third place
    return rows if len(rows) == count else rows[answers.index]


def _read(path: Path) -> Array:
    try:
        with open_regular_file(path) as file:
            rows = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise LabError(f"no file of soft labels at {path}") from error
    except (OSError, ValueError, EOFError) as error:
        raise LabError(
            f"cannot read {path} as an array of NumPy's ({' '.join(str(error).split())[:99]}): save it by np.save"
        ) from error
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu":
        what = f"an array of {rows.dtype}" if isinstance(rows, np.ndarray) else "several arrays"
        raise LabError(f"{path} holds {what}: soft labels are one array of numbers, saved by np.save")
    return rows


def _check(rows: Array, path: Path) -> None:
    with np.errstate(invalid="ignore"):
        bad = ~np.isfinite(rows).all(1) | (rows < 0).any(1) | (np.abs(rows.sum(1, dtype=np.float64) - 1) > 1e-3)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise LabError(
            f"{path}: rows must be probabilities of 0 or more that sum to 1, {int(bad.sum()):,} of {len(rows):,} are "
            f"not; row {first} sums to {rows[first].sum():.4g} (of counts, divide each row by its sum)"
        )


def measures(answers: Answers, people: Array) -> dict[str, float]:
    """What the network has in common with people. Logarithms are natural.

    Cross-entropy H(h, p) and KL(h‖p) = H(h, p) - H(h) of the network's p against people's h (N, C), the measures of
    Peterson et al., Human uncertainty makes classification more robust, 2019 (CIFAR-10H). "accuracy" is how likely a
    person is to agree with the network, "agreement" how often the network's class is the one most people name,
    "entropy_correlation" Spearman's, between the network's doubt and people's.
    """
    assert answers.probabilities is not None  # noqa: S101 -- for the type checker
    probabilities = answers.probabilities
    cross, doubt = cross_entropy(people, probabilities), entropy(people)
    own = entropy(probabilities)
    varied = np.ptp(doubt) > 0 and np.ptp(own) > 0
    return {
        "soft/cross_entropy": float(cross.mean()),
        "soft/entropy": float(doubt.mean()),
        "soft/kl": float((cross - doubt).mean()),
        "soft/accuracy": float(people[np.arange(len(people)), answers.prediction].mean()),
        "soft/agreement": float((people.argmax(1) == answers.prediction).mean()),
        "soft/brier": float(((probabilities - people) ** 2).sum(1).mean()),
        "soft/total_variation": float(np.abs(probabilities - people).sum(1).mean() / 2),
        "soft/entropy_correlation": float(spearmanr(doubt, own).statistic) if varied else float("nan"),
        "soft/truth_agreement": float((people.argmax(1) == answers.truth).mean()),
    }


def cross_entropy(people: Array, probabilities: Array) -> Array:
    """-Σ h log p of each example (N,)."""
    value: Array = -(people * np.log(np.maximum(probabilities, _FLOOR))).sum(1)
    return value


def entropy(probabilities: Array) -> Array:
    """-Σ p log p of each row (N,)."""
    value: Array = 0.0 - xlogy(probabilities, probabilities).sum(1)  # not -0 where there is no doubt
    return value

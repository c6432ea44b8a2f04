"""Metrics of training dynamics, with definitions and sources. Imports no torch.

Shapes: L snapshots, n examples, G layers. g_i = ‖∂ℓ_i/∂z_i‖₂ is the gradient norm of an example with respect to its
outputs. By the chain rule, an example changes the weights only through this gradient.
"""

import math

import numpy as np
from numpy.typing import NDArray

from losslab.analysis.dynamics.record import Numbers, Record

NO_GRADIENT_SHARE = 1e-3
"""An example has no gradient if its norm is below this share of the mean norm in the first snapshot."""


def hardest_share(gradient: Numbers, share: float = 0.1) -> float:
    """Compute the part of Σ g_i that comes from the hardest examples, which are the `share` with the largest g_i (n,).

    The number of hardest examples is rounded up. The result is `share` if all g_i are equal, 1 if all other g_i are 0,
    and NaN if all g_i are 0.
    """
    count = math.ceil(share * len(gradient) - 1e-9)  # 0.1 · 30 is slightly more than 3
    total = gradient.sum(dtype=np.float64)
    return float(np.sort(gradient)[-count:].sum(dtype=np.float64) / total) if 0 < total < math.inf else math.nan


def no_gradient(record: Record) -> NDArray[np.bool_]:
    """Find the examples with (almost) no gradient: g_i < 0.001 · mean g of the first snapshot → (L, n).

    The threshold is relative because a constant factor of the loss changes only the effective learning rate. An
    absolute threshold would select all examples of a loss with small values. A thousand examples at the threshold have
    the effect of one average example before training.
    """
    return np.asarray(record.gradient < NO_GRADIENT_SHARE * record.gradient[0].mean(dtype=np.float64))


def mispredicted(record: Record) -> NDArray[np.bool_]:
    """Find the examples that are not predicted as their target → (L, n). Classification only."""
    return ~(record.margin > 0)


def area_under_margin(record: Record) -> Numbers:
    """Average the margin of each example over the snapshots so far (AUM), except that before training → (L, n).

    A low AUM means that other examples contradict the label, which is then probably wrong (Pleiss et al., Identifying
    mislabeled data using the area under the margin ranking, 2020). The paper averages over training steps, this
    function over snapshots. In a regression, it is the negated mean absolute residual. NaN before training.
    """
    margin = -np.abs(record.margin) if record.is_regression else record.margin
    trained = record.epoch > 0
    count = np.cumsum(trained)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.cumsum(np.where(trained[:, None], margin, 0), axis=0, dtype=np.float64) / count
    return np.where(count > 0, mean, np.nan)


def forgetting_events(record: Record) -> NDArray[np.int64]:
    """Count how often an example is predicted right in one snapshot and wrong in the next → (n,).

    Source: Toneva et al., An empirical study of example forgetting during deep neural network learning, 2019. The paper
    compares consecutive presentations of the example; this function misses changes between two snapshots.
    """
    right = ~mispredicted(record)
    return np.asarray((right[:-1] & ~right[1:]).sum(axis=0), dtype=np.int64)


def auroc(score: Numbers, corrupted: NDArray[np.bool_]) -> float:
    """Compute the AUROC of a score (n,) as a detector of wrong labels.

    This is the probability that a wrong label has a higher score than a right one; 1/2 is as good as guessing. With the
    loss as score, it measures the small-loss trick: networks fit common patterns before they memorise wrong labels
    (Arpit et al., A closer look at memorization in deep networks, 2017; Northcutt et al., Confident learning, 2021).
    NaN if there are no wrong or no right labels, or a score is not finite.
    """
    if not corrupted.any() or corrupted.all() or not np.isfinite(score).all():
        return math.nan
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 -- slow to import, needed with wrong labels only

    return float(roc_auc_score(corrupted, score))


def loss_auroc(record: Record) -> Numbers:
    """Compute the AUROC of a large loss as a detector of wrong labels, at each snapshot → (L,)."""
    return np.array([auroc(loss, record.corrupted) for loss in record.loss])


def margin_auroc(record: Record) -> Numbers:
    """Compute the AUROC of a small area under the margin as a detector of wrong labels, at each snapshot → (L,)."""
    return np.array([auroc(-area, record.corrupted) for area in area_under_margin(record)])


def newest_scalars(record: Record) -> dict[str, float]:
    """Return the finite metrics of the newest snapshot, by their TensorBoard tags."""
    newest = {
        "gradient_share_hardest_10": hardest_share(record.gradient[-1]),
        "no_gradient": float(no_gradient(record)[-1].mean()),
        "gradient_norm_logits": float(record.gradient[-1].mean(dtype=np.float64)),
        "noise_auroc": auroc(record.loss[-1], record.corrupted),
        "noise_auroc_margin": auroc(-area_under_margin(record)[-1], record.corrupted),
    }
    return {f"dynamics/{name}": value for name, value in newest.items() if math.isfinite(value)}


def flow_ratio(record: Record) -> Numbers:
    """Divide the RMS gradient of each layer by that of the last layer → (L, G), NaN where the latter is 0."""
    last = record.flow[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(last > 0, record.flow / last, np.nan)

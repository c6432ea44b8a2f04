"""The numbers of training dynamics, each with its definition. Arrays in, arrays and numbers out; no torch.

Letters: L looks, n examples; g_i = ‖∂ℓ_i/∂z_i‖₂, the norm of an example's gradient with respect to its outputs. It is
the weight that the loss gives to an example: by the chain rule all that the example does to the network passes it.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from losslab.analysis.dynamics.record import Numbers, Record

SILENT = 1e-3
"""An example has no gradient below this share of an untrained network's mean."""


def hardest_share(gradient: Numbers, share: float = 0.1) -> float:
    """The part of Σ g_i that comes from the `share` of examples with the largest g_i.

    `share` itself where all examples pull alike, 1 where only the hardest ones pull; NaN where none does. The number
    of examples is rounded up.

    Args:
        gradient: g (n,).
        share: above 0, at most 1.
    """
    count = math.ceil(share * len(gradient) - 1e-9)  # 0.1 · 30 is a little more than 3
    total = gradient.sum(dtype=np.float64)
    return float(np.sort(gradient)[-count:].sum(dtype=np.float64) / total) if 0 < total < math.inf else math.nan


def silent(record: Record) -> NDArray[np.bool_]:
    """Which examples have no gradient: g_i < 0.001 · mean g before training → (L, n).

    Relative to the first look, since a loss times a constant teaches the same (under Adam) or the same at another
    rate: an absolute bound would call the losses of small numbers silent. A thousandth, since it would take a thousand
    such examples to pull as one did at the start; exact zeros, as of a hinge, are below it anyway.
    """
    return np.asarray(record.gradient < SILENT * record.gradient[0].mean(dtype=np.float64))


def wrong(record: Record) -> NDArray[np.bool_]:
    """Which examples the network does not predict as their target says → (L, n). Of no use to values."""
    return ~(record.margin > 0)


def area_under_margin(record: Record) -> Numbers:
    """AUM: the mean of an example's margin over the looks so far, the one before training left out → (L, n).

    Low where other examples teach the network something else than the label: such labels are likely wrong (Pleiss et
    al., Identifying mislabeled data using the area under the margin ranking, 2020). They take the margins that come by
    in each training step; here they are those of the looks. Of values it is the mean size of the residual, negated.
    NaN in the look before training, if there is one.
    """
    margin = -np.abs(record.margin) if record.of_values else record.margin
    trained = record.epoch > 0
    counted = np.cumsum(trained)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.cumsum(np.where(trained[:, None], margin, 0), axis=0, dtype=np.float64) / counted
    return np.where(counted > 0, mean, np.nan)


def forgotten(record: Record) -> NDArray[np.int64]:
    """How often an example went from right in one look to wrong in the next → (n,).

    The forgetting events of Toneva et al., An empirical study of example forgetting during deep neural network
    learning, 2019, who count between presentations of the example; what happens between two looks is not seen here.
    """
    right = ~wrong(record)
    return np.asarray((right[:-1] & ~right[1:]).sum(axis=0), dtype=np.int64)


def auroc(score: Numbers, corrupted: NDArray[np.bool_]) -> float:
    """How well a score (n,) finds wrong labels: the chance that a wrong one scores higher than a right one.

    The area under the ROC curve, by scikit-learn: 1/2 is guessing. With the loss as score it measures the small-loss
    trick (Arpit et al., A closer look at memorization in deep networks, 2017: networks learn what examples have in
    common before they learn wrong labels by heart; Northcutt et al., Confident learning, 2021, rank labels by such
    scores). NaN unless there are wrong and right labels, and a score that is a number for each.
    """
    if not corrupted.any() or corrupted.all() or not np.isfinite(score).all():
        return math.nan
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415 -- a second to import, and only where labels are wrong

    return float(roc_auc_score(corrupted, score))


def loss_auroc(record: Record) -> Numbers:
    """The AUROC of the loss as a detector of wrong labels, at each look → (L,)."""
    return np.array([auroc(loss, record.corrupted) for loss in record.loss])


def margin_auroc(record: Record) -> Numbers:
    """The AUROC of a small area under the margin, at each look → (L,)."""
    return np.array([auroc(-area, record.corrupted) for area in area_under_margin(record)])


def scalars(record: Record) -> dict[str, float]:
    """The numbers of the newest look, by the names that they have in TensorBoard; without those that are no number."""
    newest = {
        "gradient_share_hardest_10": hardest_share(record.gradient[-1]),
        "no_gradient": float(silent(record)[-1].mean()),
        "gradient_norm_logits": float(record.gradient[-1].mean(dtype=np.float64)),
        "noise_auroc": auroc(record.loss[-1], record.corrupted),
        "noise_auroc_margin": auroc(-area_under_margin(record)[-1], record.corrupted),
    }
    return {f"dynamics/{name}": value for name, value in newest.items() if math.isfinite(value)}


def flow_ratio(record: Record) -> Numbers:
    """The steepness of each layer relative to the last layer's, at each look → (L, G). NaN where that one is 0."""
    last: NDArray[Any] = record.flow[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(last > 0, record.flow / last, np.nan)

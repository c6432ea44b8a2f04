"""scikit-learn: losses that are used as metrics."""

import math

import numpy as np
from sklearn import metrics

from audits.finding import Evidence, Severity, finding
from audits.measure import say


@finding(
    "sklearn.metrics.log_loss",
    claim="-log p of the label",
    source="scikit-learn documentation: p is clipped to [eps, 1 - eps]",
    severity=Severity.WRONG_VALUE,
    losslab="losses take logits and clip nothing; the metric NLL has the limit of 15.9 in float32, as documented",
    documented=True,
)
def clipped_probabilities() -> Evidence:
    """Probabilities are clipped by precision: the loss of a mistake is at most 36 in float64, and 15.9 in float32."""
    double, single = (
        metrics.log_loss([1], np.array([1e-30], dtype), labels=[0, 1]) for dtype in (np.float64, np.float32)
    )
    seen = f"p = 1e-30: {say(double)} in float64, {say(single)} in float32; exactly {say(-math.log(1e-30))}"
    return Evidence(seen, holds=double < 60)


@finding(
    "sklearn.metrics.brier_score_loss",
    claim="Σ_k (p_k - t_k)², between 0 and 2, for any number of classes",
    source="Brier, Verification of forecasts expressed in terms of probability, 1950; scale_by_half is documented",
    severity=Severity.DIFFERS,
    losslab="brier has the same formula for every number of classes",
    documented=True,
)
def half_for_two_classes() -> Evidence:
    """By default, the score is halved for two classes only, so a third class that never occurs doubles the score."""
    truth, two = [0, 1], np.array([[0.7, 0.3], [0.2, 0.8]])
    three = np.hstack([two, np.zeros((2, 1))])
    without, with_third = metrics.brier_score_loss(truth, two), metrics.brier_score_loss(truth, three, labels=[0, 1, 2])
    seen = f"the same predictions: {say(without)} as two classes, {say(with_third)} as three"
    return Evidence(seen, holds=abs(with_third - without) > 0.01)


FINDINGS = (clipped_probabilities, half_for_two_classes)

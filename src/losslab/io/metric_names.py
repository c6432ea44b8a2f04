"""Whether a metric is better when lower or higher. Imports no torch."""

_LOWER_IS_BETTER = {"loss", "mse", "mae", "nll", "brier", "ece"}


MONITORED = ("val/accuracy", "val/mse")
"""The metrics that select the best epoch: accuracy in classification, mean squared error in regression."""


def direction(metric: str) -> str:
    """Return "min" if lower values of a metric (such as "val/ece"), loss or loss term are better, otherwise "max"."""
    return "min" if _LOWER_IS_BETTER.intersection(metric.removesuffix("_given").split("/")) else "max"

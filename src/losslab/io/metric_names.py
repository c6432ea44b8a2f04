"""Tells by the name of a metric whether it may be monitored, and whether lower values are better. Imports no torch."""

_LOWER_IS_BETTER = {"loss", "mse", "mae", "nll", "brier", "ece"}

MONITORED = ("val/accuracy", "val/mse")
"""The metrics that select the best epoch: accuracy for classification, mean squared error for regression."""


def direction(metric: str) -> str:
    """Return "min" if lower values of a metric, a loss or a loss term are better, otherwise "max"."""
    return "min" if _LOWER_IS_BETTER.intersection(metric.removesuffix("_given").split("/")) else "max"

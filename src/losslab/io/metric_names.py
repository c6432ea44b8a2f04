"""Which way each metric improves. Imports no torch."""

_LOWER_IS_BETTER = {"loss", "mse", "mae", "nll", "brier", "ece"}


MONITORED = ("val/accuracy", "val/mse")
"""The metrics by which runs are monitored: a run has the one of its task."""


def direction(metric: str) -> str:
    """Return "min" or "max": which value of a metric such as "val/ece", or of a loss or one of its terms, is better."""
    return "min" if _LOWER_IS_BETTER.intersection(metric.removesuffix("_given").split("/")) else "max"

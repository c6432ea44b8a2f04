"""Which way each metric is better. Imports no torch."""

_LESS = {"loss", "mse", "mae", "nll", "brier", "ece"}


def direction(metric: str) -> str:
    """Whether a metric, such as "val/ece", or a loss or one of its terms, is better "min" or "max"."""
    return "min" if _LESS.intersection(metric.removesuffix("_given").split("/")) else "max"

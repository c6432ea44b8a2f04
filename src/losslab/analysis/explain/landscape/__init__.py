"""The loss landscape of networks around a solution, with filter-normalised directions."""

from losslab.analysis.explain.landscape.explaining import applies, explain

__all__ = ["applies", "explain"]

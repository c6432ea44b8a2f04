"""The loss landscape of networks around a solution, with filter-normalised directions."""

from losslab.explanation.landscape.explaining import OPTIONS, applies, explain

__all__ = ["OPTIONS", "applies", "explain"]

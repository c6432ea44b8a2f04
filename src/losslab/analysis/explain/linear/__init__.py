"""The linear model, of which everything can be drawn."""

from losslab.analysis.explain.linear.explaining import applies, explain

__all__ = ["applies", "explain"]

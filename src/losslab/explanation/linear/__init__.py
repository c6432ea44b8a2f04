"""The linear model, of which everything can be drawn."""

from losslab.explanation.linear.explaining import applies, explain

__all__ = ["applies", "explain"]

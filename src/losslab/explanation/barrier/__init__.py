"""The line between solutions: whether they lie in one valley."""

from losslab.explanation.barrier.explaining import applies, explain

__all__ = ["applies", "explain"]

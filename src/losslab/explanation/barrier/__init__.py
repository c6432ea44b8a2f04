"""The line between solutions: whether they lie in one valley."""

from losslab.explanation.barrier.explaining import OPTIONS, applies, explain

__all__ = ["OPTIONS", "applies", "explain"]

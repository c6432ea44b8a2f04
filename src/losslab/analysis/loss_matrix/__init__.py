"""Trained models measured under every loss: a matrix of "trained with" and "measured by"."""

from losslab.analysis.loss_matrix.measure import Cell, Matrix, measure

__all__ = ["Cell", "Matrix", "measure"]

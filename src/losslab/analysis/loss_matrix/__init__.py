"""Every trained model measured under every loss: trained with x, measured by y."""

from losslab.analysis.loss_matrix.measuring import Cell, Matrix, measure

__all__ = ["Cell", "Matrix", "measure"]

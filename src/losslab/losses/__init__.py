"""All losses, and the base classes and declarations for a loss of your own.

There is one module per loss or family. `base` has the base classes, `hyperparameters` the declaration of constructor
arguments, `card` the facts that a loss declares, `catalog` the losses of conf/loss by name, and `contract` the checks
that every loss passes. `adapter` makes criteria of other libraries into losses.
"""

from losslab.losses.base import ClassLoss, Loss, ResidualLoss
from losslab.losses.bce import BCE, PriorSigmoid
from losslab.losses.bi_tempered import BiTempered
from losslab.losses.card import BoundedCard, Card, Parameter, Slope
from losslab.losses.cross_entropy import CrossEntropy, Distillation, KLDiv, Poly1
from losslab.losses.focal import Focal, SigmoidFocal
from losslab.losses.hinge import Hinge, MultiMargin, SquaredHinge
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.losses.imbalance import LDAM, LogitAdjusted
from losslab.losses.jensen_shannon import GJS, JS
from losslab.losses.likelihoods import GaussianNLL, PoissonNLL, Tweedie
from losslab.losses.mse import L1, MSE, Brier, Expectile, Quantile, RescaledMSE
from losslab.losses.noisy_labels import AGCE, AUL, GCE, MAE, NCE, NFL, RCE
from losslab.losses.robust import Barron, Cauchy, Charbonnier, GemanMcClure, Huber, LogCosh, SmoothL1, Tukey, Welsch
from losslab.losses.scaled_logits import CosineSoftmax, LogitNorm, LogitPenalty
from losslab.losses.weighted_sum import Smoothed, WeightedSum

__all__ = [
    "AGCE", "AUL", "BCE", "GCE", "GJS", "JS", "L1", "LDAM", "MAE", "MSE", "NCE", "NFL", "RCE", "Barron",
    "BiTempered", "BoundedCard", "Brier", "Card", "Cauchy", "Charbonnier", "ClassLoss", "CosineSoftmax", "CrossEntropy",
    "Distillation", "Expectile", "Focal", "GaussianNLL", "GemanMcClure", "Hinge", "Huber", "KLDiv", "LogCosh",
    "LogitAdjusted", "LogitNorm", "LogitPenalty", "Loss", "MultiMargin", "Parameter", "PoissonNLL", "Poly1",
    "PriorSigmoid", "Quantile", "RescaledMSE", "ResidualLoss", "SigmoidFocal", "Slope", "SmoothL1", "Smoothed",
    "SquaredHinge", "Tukey", "Tweedie", "WeightedSum", "Welsch", "argument", "hyperparameter",
]  # fmt: skip

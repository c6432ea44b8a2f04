"""All losses: `Loss`, its subclasses, and what a loss of your own is made of.

One module per loss or family. `base` has the base classes, `hyperparameters` the declaration of constructor arguments,
`card` the facts that a loss claims, `catalog` the losses of conf/loss by name, `contract` the checks that every loss
passes, and `adapter` turns criteria of other libraries into losses.
"""

from losslab.losses.asymmetric import AGCE, AUL
from losslab.losses.barron import Barron
from losslab.losses.base import ClassLoss, Loss, ResidualLoss
from losslab.losses.bce import BCE, PriorSigmoid
from losslab.losses.bi_tempered import BiTempered
from losslab.losses.brier import Brier, RescaledMSE
from losslab.losses.card import BoundedCard, Card, Parameter, Slope
from losslab.losses.cross_entropy import CrossEntropy, KLDiv, Poly1
from losslab.losses.distillation import Distillation
from losslab.losses.focal import Focal, SigmoidFocal
from losslab.losses.hinge import Hinge, MultiMargin, SquaredHinge
from losslab.losses.huber import Huber, LogCosh, SmoothL1
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.losses.imbalance import LDAM, LogitAdjusted
from losslab.losses.jensen_shannon import GJS, JS
from losslab.losses.likelihoods import GaussianNLL, PoissonNLL, Tweedie
from losslab.losses.mae import GCE, MAE, RCE
from losslab.losses.mse import L1, MSE
from losslab.losses.normalised import NCE, NFL
from losslab.losses.quantile import Expectile, Quantile
from losslab.losses.robust import Cauchy, Charbonnier, GemanMcClure, Tukey, Welsch
from losslab.losses.scaled_logits import CosineSoftmax, LogitNorm, LogitPenalty
from losslab.losses.smoothed import Smoothed
from losslab.losses.weighted_sum import WeightedSum

__all__ = [
    "AGCE", "AUL", "BCE", "GCE", "GJS", "JS", "L1", "LDAM", "MAE", "MSE", "NCE", "NFL", "RCE", "Barron",
    "BiTempered", "BoundedCard", "Brier", "Card", "Cauchy", "Charbonnier", "ClassLoss", "CosineSoftmax", "CrossEntropy",
    "Distillation", "Expectile", "Focal", "GaussianNLL", "GemanMcClure", "Hinge", "Huber", "KLDiv", "LogCosh",
    "LogitAdjusted", "LogitNorm", "LogitPenalty", "Loss", "MultiMargin", "Parameter", "PoissonNLL", "Poly1",
    "PriorSigmoid", "Quantile", "RescaledMSE", "ResidualLoss", "SigmoidFocal", "Slope", "SmoothL1", "Smoothed",
    "SquaredHinge", "Tukey", "Tweedie", "WeightedSum", "Welsch", "argument", "hyperparameter",
]  # fmt: skip

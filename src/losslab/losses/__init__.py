"""All losses: `Loss`, its subclasses, and what a loss of your own is made of.

One module per loss or family. `base` has the base classes, `hyperparameters` the declaration of constructor arguments,
`card` the facts that a loss claims, `catalog` the losses of conf/loss by name, `contract` the checks that every loss
passes, and `adapter` turns criteria of other libraries into losses.
"""

from losslab.losses.asymmetric import AGCE, AUL
from losslab.losses.barron import Barron
from losslab.losses.base import ClassLoss, Loss, ResidualLoss
from losslab.losses.bce import BCE
from losslab.losses.bi_tempered import BiTempered
from losslab.losses.brier import Brier
from losslab.losses.card import Card, Parameter, Slope
from losslab.losses.cross_entropy import CrossEntropy
from losslab.losses.distillation import Distillation
from losslab.losses.focal import Focal
from losslab.losses.gaussian_nll import GaussianNLL
from losslab.losses.gce import GCE
from losslab.losses.generalised_jensen_shannon import GJS
from losslab.losses.hinge import Hinge, SquaredHinge
from losslab.losses.huber import Huber, SmoothL1
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.losses.jensen_shannon import JS
from losslab.losses.kl_div import KLDiv
from losslab.losses.l1 import L1
from losslab.losses.ldam import LDAM
from losslab.losses.log_cosh import LogCosh
from losslab.losses.logit_adjusted import LogitAdjusted
from losslab.losses.logit_penalty import LogitPenalty
from losslab.losses.mae import MAE, RCE
from losslab.losses.mse import MSE
from losslab.losses.multi_margin import MultiMargin
from losslab.losses.normalised import NCE, NFL
from losslab.losses.poisson_nll import PoissonNLL
from losslab.losses.poly1 import Poly1
from losslab.losses.prior_sigmoid import PriorSigmoid
from losslab.losses.quantile import Expectile, Quantile
from losslab.losses.rescaled_mse import RescaledMSE
from losslab.losses.robust import Cauchy, Charbonnier, GemanMcClure, Welsch
from losslab.losses.scaled_logits import CosineSoftmax, LogitNorm
from losslab.losses.sigmoid_focal import SigmoidFocal
from losslab.losses.smoothed import Smoothed
from losslab.losses.tukey import Tukey
from losslab.losses.tweedie import Tweedie
from losslab.losses.weighted_sum import WeightedSum

__all__ = [
    "AGCE",
    "AUL",
    "BCE",
    "GCE",
    "GJS",
    "JS",
    "L1",
    "LDAM",
    "MAE",
    "MSE",
    "NCE",
    "NFL",
    "RCE",
    "Barron",
    "BiTempered",
    "Brier",
    "Card",
    "Cauchy",
    "Charbonnier",
    "ClassLoss",
    "CosineSoftmax",
    "CrossEntropy",
    "Distillation",
    "Expectile",
    "Focal",
    "GaussianNLL",
    "GemanMcClure",
    "Hinge",
    "Huber",
    "KLDiv",
    "LogCosh",
    "LogitAdjusted",
    "LogitNorm",
    "LogitPenalty",
    "Loss",
    "MultiMargin",
    "Parameter",
    "PoissonNLL",
    "Poly1",
    "PriorSigmoid",
    "Quantile",
    "RescaledMSE",
    "ResidualLoss",
    "SigmoidFocal",
    "Slope",
    "SmoothL1",
    "Smoothed",
    "SquaredHinge",
    "Tukey",
    "Tweedie",
    "WeightedSum",
    "Welsch",
    "argument",
    "hyperparameter",
]

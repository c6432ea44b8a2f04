"""Squared and absolute error, their asymmetric forms expectile and quantile, and squared errors of classifiers."""

import torch
from torch import Tensor

from losslab.losses.base import ClassLoss, ResidualLoss
from losslab.losses.card import BoundedCard, Card, Slope
from losslab.losses.hyperparameters import hyperparameter
from losslab.losses.numerics import log_softmax_tails, sum_of_others

_LEVEL = "τ, the weight of targets above the output; targets below it have the weight 1 - τ"


class MSE(ResidualLoss):
    """Mean squared error: r², r = z - t, averaged over the outputs of an example.

    The outputs estimate the conditional mean. With class probabilities as targets this is a least-squares classifier.
    """

    card = Card(
        formula=r"(z - t)^2",
        plain="(z - t)²",
        source="Gauss, Theoria motus corporum coelestium, 1809",
        far=Slope.GROWS,
        convex=True,
        elicits="mean",
        note="The gradient of an outlier increases with its distance.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        return residual.square()


class L1(ResidualLoss):
    """Mean absolute error: |r|, r = z - t, averaged over the outputs of an example.

    The outputs estimate the conditional median, which a few outliers change little.
    """

    card = Card(
        formula=r"\lvert z - t\rvert",
        plain="|z - t|",
        source="Laplace, Mémoire sur la probabilité des causes par les évènements, 1774",
        near=Slope.STAYS,
        far=Slope.STAYS,
        convex=True,
        elicits="median",
        note="The gradient is ±1 at every distance, and 0 at the target, as in torch. Steps get smaller near the "
        "minimum only if the learning rate decreases.",
    )

    def penalty(self, residual: Tensor) -> Tensor:
        return residual.abs()


class Quantile(ResidualLoss):
    """Quantile (or pinball) loss: τ |r| if the target is above the output, else (1 - τ) |r|; r = z - t.

    It is averaged over the outputs of an example. Its minimum is the τ-quantile of the target. Two quantiles bound an
    interval that contains a given share of the targets. At τ = 1/2 it is half the absolute error.
    """

    tau: float | Tensor = hyperparameter(
        _LEVEL, "(0, 1)", "scikit-learn's GradientBoostingRegressor", (0.1, 0.5, 0.9), default=0.9
    )

    @property
    def card(self) -> Card:
        tau = float(self.tau)
        return Card(
            formula=r"\max(\tau (t - z),\ (\tau - 1) (t - z))",
            plain="τ (t - z) if t > z, else (1 - τ) (z - t)",
            source="Koenker & Bassett, Regression quantiles, 1978",
            near=Slope.STAYS,
            far=Slope.STAYS,
            convex=True,
            elicits="median" if tau == 0.5 else f"{tau:g}",
            note="The metrics mse and mae measure means and medians. At other τ they may rise while the loss falls.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        return (1 - self.tau) * residual.relu() + self.tau * (-residual).relu()


class Expectile(ResidualLoss):
    """Expectile loss: τ r² if the target is above the output, else (1 - τ) r²; r = z - t.

    It is averaged over the outputs of an example. Expectiles generalise the mean as quantiles generalise the median.
    The loss is smooth, and sensitive to the distance of outliers. At τ = 1/2 it is half the squared error.
    """

    tau: float | Tensor = hyperparameter(_LEVEL, "(0, 1)", "as for quantile", (0.1, 0.5, 0.9), default=0.9)

    @property
    def card(self) -> Card:
        return Card(
            formula=r"\lvert \tau - \mathbf{1}[z > t] \rvert\, (z - t)^2",
            plain="τ (t - z)² if t > z, else (1 - τ) (z - t)²",
            source="Newey & Powell, Asymmetric least squares estimation and testing, 1987",
            far=Slope.GROWS,
            convex=True,
            elicits="mean" if float(self.tau) == 0.5 else None,
            note="Offline reinforcement learning (IQL, Kostrikov et al. 2022) uses τ of 0.7 to 0.9. The loss is as "
            "sensitive to outliers as the squared error.",
        )

    def penalty(self, residual: Tensor) -> Tensor:
        square = residual.square()
        return torch.where(residual < 0, self.tau * square, (1 - self.tau) * square)


class Brier(ClassLoss):
    """Brier score: (1 - p_y)² + Σ_{i≠y} p_i² with p = softmax(z), the squared distance of p from the one-hot target.

    For soft targets it is the expected loss Σ_k t_k L(z, k). This exceeds the squared distance Σ_k (p_k - t_k)² by
    1 - Σ_k t_k², and has the same gradient. Classes are exclusive; a binary problem has two classes.
    """

    @property
    def card(self) -> Card:
        return BoundedCard(
            formula=r"\sum_k (p_k - t_k)^2",
            plain="(1 - p_y)² + Σ_{i≠y} p_i²",
            source="Brier, Verification of forecasts expressed in terms of probability, 1950",
            high="2",
            uniform="(K - 1) / K",
            proper=self.weight is None,
            note="Its gradient fades to 0 where the network is confident and wrong. So wrong labels have little "
            "influence, and training hardly recovers from a bad start.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        log_p, log_one_minus_p = log_softmax_tails(outputs)
        return (2 * log_one_minus_p).exp() + sum_of_others((2 * log_p).exp())


class RescaledMSE(ClassLoss):
    """Rescaled squared error on logits: (1/C) (k (z_y - M)² + Σ_{i≠y} z_i²).

    At k = M = 1 it is the squared error between the logits and one-hot targets. With many classes the targets of 0
    outweigh the target of 1; k and M compensate for that.
    """

    k: float | Tensor = hyperparameter(
        "k, the weight of the output of the label, relative to every other output",
        "(0, inf)",
        "the paper's for fewer than 42 classes; 15 for the 1000 of ImageNet",
        (1.0, 5.0, 15.0),
        default=1.0,
    )
    m: float | Tensor = hyperparameter(
        "M, the target of the output of the label",
        "(0, inf)",
        "the paper's for fewer than 42 classes; 15 from 42, 30 for the 1000 of ImageNet",
        (1.0, 15.0, 30.0),
        default=1.0,
    )

    @property
    def card(self) -> Card:
        return Card(
            formula=r"\frac{1}{K} \Bigl(k (z_y - M)^2 + \sum_{i \ne y} z_i^2\Bigr)",
            plain="(1/K) (k (z_y - M)² + Σ_{i≠y} z_i²)",
            source="Hui & Belkin, Evaluation of neural architectures trained with square loss vs cross-entropy in "
            "classification tasks, 2021",
            near=Slope.GROWS,
            far=Slope.GROWS,
            convex=True,
            uniform="k * m**2 / K",
            proper=self.weight is None,
            note="An output above M has the same loss as an output equally far below. The gradient is larger at larger "
            "k and M, so the learning rate must be smaller.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        squares = outputs.square()
        # The squares of the other outputs are summed from the left and from the right. The sum of all squares minus z²
        # would lose digits, and a matrix product would run in half precision under autocast.
        zero = torch.zeros_like(squares[:, :1])
        left = torch.cat([zero, squares[:, :-1]], 1).cumsum(1)
        right = torch.cat([squares[:, 1:], zero], 1).flip(1).cumsum(1).flip(1)
        others = left + right
        return (self.k * (outputs - self.m).square() + others) / outputs.shape[1]

    def to_probabilities(self, outputs: Tensor) -> Tensor:
        """Return the probabilities q (N, C) at which the outputs z minimise the expected loss, clamped to [ε, 1].

        q solves z = q k M / (q k + 1 - q); at k = 1 it is z/M. Rows need not sum to 1: the metrics of exclusive classes
        normalise them.
        """
        share = (outputs / self.m).clamp(0, 1)
        return (share / (self.k * (1 - share) + share)).clamp(min=torch.finfo(torch.float32).eps)

    def to_logits(self, outputs: Tensor) -> None:
        """Return None: the outputs are multiples of probabilities, not logits."""

"""The Jensen-Shannon loss of a prediction, and its generalisation to predictions for two views of each example."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from losslab.losses.base import ClassLoss
from losslab.losses.card import BoundedCard
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.losses.numerics import log_softmax_tails, scalar

SOURCE = "Englesson & Azizpour, Generalized Jensen-Shannon divergence loss for learning with noisy labels, 2021"
TARGET_WEIGHT = (
    "π, the weight of the target, from cross-entropy (near 0) to MAE (near 1)",
    "(0, 1)",
    "the paper's code for CIFAR-10 with 40 % symmetric noise",
    (0.1, 0.5, 0.7, 0.9),
)
MINUS_Z = "((1 - pi1) * log(1 - pi1))"
UNIFORM = (
    "((pi1 + (1 - pi1) / K) * log(pi1 + (1 - pi1) / K) + (1 - pi1) * log(K) / K"
    f" + (1 - pi1) * (1 - 1/K) * log(1 - pi1)) / {MINUS_Z}"
)
HIGHEST = f"((pi1 * log(pi1) + (1 - pi1) * log(1 - pi1)) / {MINUS_Z})"


class JS(ClassLoss):
    """Jensen-Shannon loss: (π KL(t ‖ m) + (1 - π) KL(p ‖ m)) / Z, with m = π t + (1 - π) p and p = softmax(z).

    With the scale Z = -(1 - π) log(1 - π) it approaches cross-entropy as π → 0 and MAE as π → 1. It is for noisy
    labels.

    A soft target t is compared with p as a distribution: the loss is 0 only at p = t. So the loss is not linear in the
    target, and not the expected loss of a class drawn from t as for other class losses. It has no class weights.
    """

    supports_class_weights = False
    weight: Any = argument(default=None, init=False)
    pi1: float | Tensor = hyperparameter(*TARGET_WEIGHT, default=0.7)

    card = BoundedCard(
        formula=r"\frac{\pi\, D(t \,\|\, m) + (1 - \pi)\, D(p \,\|\, m)}{-(1 - \pi) \log(1 - \pi)}, \quad "
        r"m = \pi t + (1 - \pi) p",
        plain="(π KL(t ‖ m) + (1 - π) KL(p ‖ m)) / (-(1 - π) log(1 - π)), m = π t + (1 - π) p",
        source=SOURCE,
        high=HIGHEST,
        uniform=UNIFORM,
        note="Its gradient fades to 0 on confidently wrong examples, faster at a larger π. The paper uses a larger π "
        "for more noise, and a different learning rate for each π.",
    )

    def classwise(self, outputs: Tensor) -> Tensor:
        return self._from_classes(*log_softmax_tails(outputs))

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        if target.dtype.is_floating_point:
            return self._from_distribution(target, log_softmax_tails(outputs)[0])
        return super().score(outputs, target)

    def _weights(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return π, 1 - π, log π and log(1 - π), () each, computed from the unrounded π and then cast like `like`."""
        pi, logs = self.pi1, math if isinstance(self.pi1, float) else torch
        parts = (pi, 1 - pi, logs.log(pi), logs.log1p(-pi))
        return tuple(scalar(part, like) for part in parts)  # type: ignore[return-value]

    def _from_classes(self, log_p: Tensor, log_one_minus_p: Tensor) -> Tensor:
        """Compute the costs (N, C). The cost of class k depends only on p_k and 1 - p_k."""
        pi, w, log_pi, log_w = self._weights(log_p)
        one_minus_p = log_one_minus_p.exp()
        is_near_1 = w * one_minus_p < 0.5
        # log m_k, from p or 1 - p so that no digits cancel. where() differentiates both sides: unused 1 - p become 0.
        near_1 = torch.log1p(-w * one_minus_p.where(is_near_1, 0.0))
        log_m = torch.where(is_near_1, near_1, torch.logaddexp(log_pi, log_w + log_p))
        # In KL(p ‖ m), log(m_i / p_i) is log(1 + (1/p_k - 1) π) for i = k, the label, and log(1 - π) for other i.
        log_excess = log_pi + log_one_minus_p - log_p  # the logarithm of (1/p_k - 1) π
        log_ratio = torch.logaddexp(log_excess, torch.zeros_like(log_excess))
        return pi / (w * log_w) * log_m + (log_p.exp() * log_ratio + one_minus_p * log_w) / log_w

    def _from_distribution(self, target: Tensor, log_p: Tensor) -> Tensor:
        """Compute the scores (N,) from soft targets (N, C) and log p (N, C)."""
        pi, w, log_pi, log_w = self._weights(log_p)
        log_t = torch.where(target > 0, target, 1.0).log().where(target > 0, -torch.inf)
        log_ratio = log_t - log_p
        target_term = _kl_to_mean(target, (-log_ratio).where(target > 0, 0.0), log_w, log_pi)
        output_term = _kl_to_mean(log_p.exp(), log_ratio, log_pi, log_w)
        return -(pi / w * target_term + output_term) / log_w


def _kl_to_mean(p: Tensor, log_ratio: Tensor, log_w: Tensor, log_one_minus_w: Tensor) -> Tensor:
    """Return KL(p ‖ (1 - w) p + w q) = -Σ_k p_k log(1 - w + w q_k / p_k), (N,), of distributions p and q (N, C).

    `log_ratio` is log(q / p), which is -inf where q is 0.
    """
    return -(p * torch.logaddexp(log_one_minus_w, log_w + log_ratio)).sum(1)


_LOG_2 = math.log(2)
# The loss of two certain predictions: one right and one wrong, or two different wrong classes.
_ONE_RIGHT = f"(((1 + pi1) / 2 * log((1 + pi1) / 2) + (1 - pi1) / 2 * log((1 - pi1) / 2)) / {MINUS_Z})"
_TWO_WRONG = f"((pi1 * log(pi1) + (1 - pi1) * log((1 - pi1) / 2)) / {MINUS_Z})"


class GJS(JS):
    """Generalised Jensen-Shannon loss of a target and the predictions p' and p'' for two views of the example.

    (π KL(t ‖ m) + (1 - π)/2 KL(p' ‖ m) + (1 - π)/2 KL(p'' ‖ m)) / Z, with m = π t + (1 - π) (p' + p'')/2 and Z as in
    JS. This is JS of the mean prediction, plus a term that is 0 if both predictions are equal. In training, the network
    also processes `view(inputs)`, which doubles the cost of a step. In evaluation p'' = p', and the loss is JS.

    Args:
        view: a function that returns a randomly changed copy of inputs (N, ...), such as an augmentation. None uses the
            inputs twice; both predictions then differ only if the network is random, for example by dropout.
    """

    n_views = 2
    pi1: float | Tensor = hyperparameter(*TARGET_WEIGHT, default=0.9)
    view: Callable[[Tensor], Tensor] | None = argument(default=None)

    card = BoundedCard(
        formula=r"\frac{\pi\, D(t \,\|\, m) + \frac{1 - \pi}{2} \bigl(D(p' \,\|\, m) + D(p'' \,\|\, m)\bigr)}"
        r"{-(1 - \pi) \log(1 - \pi)}, \quad m = \pi t + \frac{1 - \pi}{2} (p' + p'')",
        plain="(π KL(t ‖ m) + (1 - π)/2 (KL(p' ‖ m) + KL(p'' ‖ m))) / (-(1 - π) log(1 - π)), "
        "m = π t + (1 - π) (p' + p'')/2",
        source=SOURCE,
        # The loss is convex in both predictions, so at its maximum each prediction has probability 1 for one class.
        high=f"Piecewise(({_TWO_WRONG}, K >= 3), (Max({HIGHEST}, {_ONE_RIGHT}), True))",
        uniform=UNIFORM,
        note="Each training step runs the network twice. The paper's best learning rate is ten times that of JS.",
    )

    def classwise(self, outputs: Tensor) -> Tensor:
        """Compute the costs (N, C) from the outputs for both views (N, 2C)."""
        log_p, log_one_minus_p, divergence = _mean_and_divergence(outputs)
        return self._from_classes(log_p, log_one_minus_p) - divergence.unsqueeze(1) / self._weights(outputs)[-1]

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Compute the scores (N,) from the outputs for both views (N, 2C) and a target (N,) or (N, C)."""
        if target.dtype.is_floating_point:
            log_p, _, divergence = _mean_and_divergence(outputs)
            return self._from_distribution(target, log_p) - divergence / self._weights(outputs)[-1]
        return super().score(outputs, target)

    def loss_inputs(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:
        """Return (N, 2C): in training the outputs for both views, in evaluation the same outputs twice."""
        if not self.training:
            return torch.cat([outputs, outputs], dim=1)
        return torch.cat([outputs, network(inputs if self.view is None else self.view(inputs))], dim=1)


def _mean_and_divergence(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return log p and log(1 - p), (N, C) each, of p = (p' + p'')/2, and the JS divergence (N,) of p' and p''."""
    (log_1, log_not_1), (log_2, log_not_2) = (log_softmax_tails(view) for view in outputs.chunk(2, dim=1))
    log_p = torch.logaddexp(log_1, log_2) - _LOG_2
    log_one_minus_p = torch.logaddexp(log_not_1, log_not_2) - _LOG_2
    log_half = torch.full((), -_LOG_2, dtype=log_p.dtype, device=log_p.device)
    forward = _kl_to_mean(log_1.exp(), log_2 - log_1, log_half, log_half)
    backward = _kl_to_mean(log_2.exp(), log_1 - log_2, log_half, log_half)
    return log_p, log_one_minus_p, (forward + backward) / 2

"""The Jensen-Shannon loss, and its generalisation to two views of each example."""

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
SCALE = "((1 - pi1) * log(1 - pi1))"
UNIFORM = (
    "((pi1 + (1 - pi1) / K) * log(pi1 + (1 - pi1) / K) + (1 - pi1) * log(K) / K"
    f" + (1 - pi1) * (1 - 1/K) * log(1 - pi1)) / {SCALE}"
)
HIGHEST = "((pi1 * log(pi1) + (1 - pi1) * log(1 - pi1)) / ((1 - pi1) * log(1 - pi1)))"


class JS(ClassLoss):
    """Jensen-Shannon loss: (π KL(t ‖ m) + (1 - π) KL(p ‖ m)) / Z, with m = π t + (1 - π) p and p = softmax(z).

    With the scale Z = -(1 - π) log(1 - π) it approaches cross-entropy as π → 0 and MAE as π → 1. It is for noisy
    labels.

    A soft target t is compared with p as a distribution: the loss is 0 only at p = t. Unlike other class losses it is
    not linear in the target. So it is not the expected loss of a class drawn from t, and there are no class weights.
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
        """π, 1 - π, log π and log(1 - π), each rounded only once → () each."""
        pi, logs = self.pi1, math if isinstance(self.pi1, float) else torch
        parts = (pi, 1 - pi, logs.log(pi), logs.log1p(-pi))
        return tuple(scalar(part, like) for part in parts)  # type: ignore[return-value]

    def _from_classes(self, log_p: Tensor, log_rest: Tensor) -> Tensor:
        """The loss of each class k as the target, which depends only on p_k and 1 - p_k → (N, C)."""
        pi, w, log_pi, log_w = self._weights(log_p)
        rest = log_rest.exp()
        near_1 = w * rest < 0.5
        # log m_k, computed from p or 1 - p so that nothing cancels. where() differentiates both sides.
        near = torch.log1p(-w * rest.where(near_1, 0.0))
        log_m = torch.where(near_1, near, torch.logaddexp(log_pi, log_w + log_p))
        # In KL(p ‖ m), log(m_k / p_k) is log(1 + (1/p_k - 1) π) for the class itself and log(1 - π) for all others.
        odds = log_pi + log_rest - log_p
        own = torch.logaddexp(odds, torch.zeros_like(odds))
        return pi / (w * log_w) * log_m + (log_p.exp() * own + rest * log_w) / log_w

    def _from_distribution(self, target: Tensor, log_p: Tensor) -> Tensor:
        """The loss of soft targets: (N, C), (N, C) → (N,)."""
        pi, w, log_pi, log_w = self._weights(log_p)
        log_t = torch.where(target > 0, target, 1.0).log().where(target > 0, -torch.inf)
        ratio = log_t - log_p
        target_term = _kl_to_mean(target, (-ratio).where(target > 0, 0.0), log_w, log_pi)
        output_term = _kl_to_mean(log_p.exp(), ratio, log_pi, log_w)
        return -(pi / w * target_term + output_term) / log_w


def _kl_to_mean(p: Tensor, ratio: Tensor, log_weight: Tensor, log_rest: Tensor) -> Tensor:
    """KL(p ‖ (1 - w) p + w q) = -Σ_k p_k log(1 - w + w q_k / p_k) of distributions p and q (N, C) → (N,).

    `ratio` is log(q / p), which is -inf where q is 0; `log_weight` is log w and `log_rest` is log(1 - w).
    """
    return -(p * torch.logaddexp(log_rest, log_weight + ratio)).sum(1)


_LOG_2 = math.log(2)
_APART = f"(((1 + pi1) / 2 * log((1 + pi1) / 2) + (1 - pi1) / 2 * log((1 - pi1) / 2)) / {SCALE})"
_THREE = f"((pi1 * log(pi1) + (1 - pi1) * log((1 - pi1) / 2)) / {SCALE})"


class GJS(JS):
    """Generalised Jensen-Shannon loss of a target and the predictions p' and p'' for two views of the example.

    (π KL(t ‖ m) + (1 - π)/2 KL(p' ‖ m) + (1 - π)/2 KL(p'' ‖ m)) / Z, with m = π t + (1 - π) (p' + p'')/2 and Z as in
    JS. This is JS of the mean prediction, plus a term that is 0 where both views agree. In training, the network also
    processes `view` of the inputs, which doubles the cost of a step. In evaluation its outputs are used twice, and the
    loss is JS.

    Args:
        view: a function from inputs (N, ...) to a randomly changed copy with the same meaning. None uses the inputs
            twice; the outputs then differ only if the network is random, for example by dropout.
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
        high=f"Piecewise(({_THREE}, K >= 3), (Max({HIGHEST}, {_APART}), True))",
        uniform=UNIFORM,
        note="Each training step runs the network twice. The paper's best learning rate is ten times that of JS.",
    )

    def classwise(self, outputs: Tensor) -> Tensor:
        """The loss of each class as the target: outputs (N, 2C) → (N, C)."""
        mean, rest, distance = _mean_and_distance(outputs)
        return self._from_classes(mean, rest) - distance.unsqueeze(1) / self._weights(outputs)[-1]

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Outputs (N, 2C), target (N,) or (N, C) → (N,)."""
        if target.dtype.is_floating_point:
            mean, _, distance = _mean_and_distance(outputs)
            return self._from_distribution(target, mean) - distance / self._weights(outputs)[-1]
        return super().score(outputs, target)

    def loss_inputs(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:
        """The outputs for both views in training, and the outputs twice in evaluation → (N, 2C)."""
        if not self.training:
            return torch.cat([outputs, outputs], dim=1)
        return torch.cat([outputs, network(inputs if self.view is None else self.view(inputs))], dim=1)


def _mean_and_distance(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For p = (p' + p'')/2: log p and log(1 - p), (N, C) each; and the JS divergence of p' and p'', (N,)."""
    (first, first_rest), (second, second_rest) = (log_softmax_tails(view) for view in outputs.chunk(2, dim=1))
    mean = torch.logaddexp(first, second) - _LOG_2
    rest = torch.logaddexp(first_rest, second_rest) - _LOG_2
    log_half = torch.full((), -_LOG_2, dtype=mean.dtype, device=mean.device)
    forward, backward = (_kl_to_mean(p.exp(), q - p, log_half, log_half) for p, q in ((first, second), (second, first)))
    return mean, rest, (forward + backward) / 2

"""Generalised Jensen-Shannon loss."""

from collections.abc import Callable
from math import log

import torch
from torch import Tensor, nn

from losslab.losses.card import Card, Slope
from losslab.losses.hyperparameters import argument, hyperparameter
from losslab.losses.jensen_shannon import HIGHEST, JS, SCALE, SOURCE, TARGET_WEIGHT, UNIFORM, kl_to_mean
from losslab.losses.numerics import log_softmax_tails

_LOG_2 = log(2)
_APART = f"(((1 + pi1) / 2 * log((1 + pi1) / 2) + (1 - pi1) / 2 * log((1 - pi1) / 2)) / {SCALE})"
_THREE = f"((pi1 * log(pi1) + (1 - pi1) * log((1 - pi1) / 2)) / {SCALE})"


class GJS(JS):
    """Generalised Jensen-Shannon loss of a target and the predictions p' and p'' for two views of the example.

    (π KL(t ‖ m) + (1 - π)/2 KL(p' ‖ m) + (1 - π)/2 KL(p'' ‖ m)) / Z, with m = π t + (1 - π) (p' + p'')/2, Z as in JS:
    this is JS of the mean prediction, plus a term that is 0 where both views agree. In training the network also
    processes `view` of the inputs, which doubles the cost of a step; in evaluation its outputs are used twice, and the
    loss is JS.

    Args:
        view: from inputs (N, ...) to a randomly changed copy with the same meaning. None repeats the inputs, whose
            outputs differ only if the network is random, for example by dropout.
    """

    n_views = 2
    pi1: float | Tensor = hyperparameter(*TARGET_WEIGHT, default=0.9)
    view: Callable[[Tensor], Tensor] | None = argument(default=None)

    @property
    def card(self) -> Card:
        """JS's facts, with a higher maximum where the views disagree."""
        return Card(
            formula=r"\frac{\pi\, D(t \,\|\, m) + \frac{1 - \pi}{2} \bigl(D(p' \,\|\, m) + D(p'' \,\|\, m)\bigr)}"
            r"{-(1 - \pi) \log(1 - \pi)}, \quad m = \pi t + \frac{1 - \pi}{2} (p' + p'')",
            plain="(π KL(t ‖ m) + (1 - π)/2 (KL(p' ‖ m) + KL(p'' ‖ m))) / (-(1 - π) log(1 - π)), "
            "m = π t + (1 - π) (p' + p'')/2",
            source=SOURCE,
            near=Slope.FADES,
            far=Slope.FADES,
            convex=False,
            # It is convex in both predictions, so the maximum is where each has all its probability in one class.
            high=f"Piecewise(({_THREE}, K >= 3), (Max({HIGHEST}, {_APART}), True))",
            uniform=UNIFORM,
            shift_invariant=True,
            proper=False,
            note="Each step runs the network twice. The paper's best learning rate is ten times that of JS.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """The divergence from each class: outputs (N, 2C) → (N, C)."""
        mean, rest, distance = _mean_and_distance(outputs)
        return self._from_classes(mean, rest) - distance.unsqueeze(1) / self._weights(outputs)[-1]

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, 2C), (N,) or (N, C) → (N,)."""
        if target.dtype.is_floating_point:
            mean, _, distance = _mean_and_distance(outputs)
            return self._from_distribution(target, mean) - distance / self._weights(outputs)[-1]
        return super().score(outputs, target)

    def loss_inputs(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:
        """The outputs for both views in training, the same outputs twice in evaluation → (N, 2C)."""
        if not self.training:
            return torch.cat([outputs, outputs], dim=1)
        return torch.cat([outputs, network(inputs if self.view is None else self.view(inputs))], dim=1)


def _mean_and_distance(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For p = (p' + p'')/2: log p and log(1 - p), (N, C) each, and JS of p' and p'' with equal weights (N,)."""
    (first, first_rest), (second, second_rest) = (log_softmax_tails(view) for view in outputs.chunk(2, dim=1))
    mean = torch.logaddexp(first, second) - _LOG_2
    rest = torch.logaddexp(first_rest, second_rest) - _LOG_2
    log_half = torch.full((), -_LOG_2, dtype=mean.dtype, device=mean.device)
    forward, backward = (kl_to_mean(p.exp(), q - p, log_half, log_half) for p, q in ((first, second), (second, first)))
    return mean, rest, (forward + backward) / 2

"""Generalised Jensen-Shannon loss."""

from collections.abc import Callable
from math import log

import torch
from torch import Tensor, nn

from losslab.losses.card import Card, Slope
from losslab.losses.jensen_shannon import HIGHEST, JS, SCALE, SOURCE, UNIFORM, kl_to_mean
from losslab.losses.numerics import log_softmax_tails

_LOG_2 = log(2)
_APART = f"(((1 + pi1) / 2 * log((1 + pi1) / 2) + (1 - pi1) / 2 * log((1 - pi1) / 2)) / {SCALE})"
_THREE = f"((pi1 * log(pi1) + (1 - pi1) * log((1 - pi1) / 2)) / {SCALE})"


class GJS(JS):
    """Generalised Jensen-Shannon loss: of a target and the predictions for two views of the example, p' and p''.

    (π KL(t ‖ m) + (1 - π)/2 KL(p' ‖ m) + (1 - π)/2 KL(p'' ‖ m)) / Z, with m = π t + (1 - π) (p' + p'')/2, Z as in JS:
    that is JS of the mean prediction, and a term that is 0 where both views agree. While training, the network sees
    each example a second time through `view`; otherwise its outputs count twice, and the loss is JS. An example then
    costs twice as much to train on.

    Args:
        pi1: π, the weight of the target.
        view: from inputs (N, ...) to others that mean the same, drawn anew at each call. None shows the inputs again,
            which differ only if the network has dropout or the like.
        ignore_index: examples of this index count neither in the sum nor in the mean.
    """

    n_views: int = 2

    def __init__(
        self, pi1: float | Tensor = 0.9, view: Callable[[Tensor], Tensor] | None = None, ignore_index: int = -100
    ) -> None:
        super().__init__(pi1, ignore_index)
        self.view = view

    @property
    def card(self) -> Card:
        """JS's facts, and more to lose where the views disagree."""
        return Card(
            formula=r"\frac{\pi\, D(t \,\|\, m) + \frac{1 - \pi}{2} \bigl(D(p' \,\|\, m) + D(p'' \,\|\, m)\bigr)}"
            r"{-(1 - \pi) \log(1 - \pi)}, \quad m = \pi t + \frac{1 - \pi}{2} (p' + p'')",
            plain="(π KL(t ‖ m) + (1 - π)/2 (KL(p' ‖ m) + KL(p'' ‖ m))) / (-(1 - π) log(1 - π)), "
            "m = π t + (1 - π) (p' + p'')/2",
            source=SOURCE,
            near=Slope.FADES,
            far=Slope.FADES,
            convex=False,
            # It is convex in both predictions, so it is greatest where each is sure of one class.
            high=f"Piecewise(({_THREE}, K >= 3), (Max({HIGHEST}, {_APART}), True))",
            uniform=UNIFORM,
            shift_invariant=True,
            proper=False,
            note="Each step runs the network twice. The learning rate that the paper finds best is ten times JS's.",
        )

    def classwise(self, outputs: Tensor) -> Tensor:
        """The divergence from each class: outputs (N, 2C) → (N, C)."""
        mean, rest, apart = _mean_and_distance(outputs)
        return self._from_classes(mean, rest) - apart.unsqueeze(1) / self._weights(outputs)[-1]

    def score(self, outputs: Tensor, target: Tensor) -> Tensor:
        """(N, 2C), (N,) or (N, C) → (N,)."""
        if target.dtype.is_floating_point:
            mean, _, apart = _mean_and_distance(outputs)
            return self._from_distribution(target, mean) - apart / self._weights(outputs)[-1]
        return super().score(outputs, target)

    def loss_inputs(self, outputs: Tensor, inputs: Tensor, network: nn.Module) -> Tensor:
        """The outputs for both views while training, else the same outputs twice → (N, 2C)."""
        if not self.training:
            return torch.cat([outputs, outputs], dim=1)
        return torch.cat([outputs, network(inputs if self.view is None else self.view(inputs))], dim=1)


def _mean_and_distance(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For p = (p' + p'')/2: log p and log(1 - p), (N, C) each, and JS of p' and p'' with equal weights (N,)."""
    (first, first_rest), (second, second_rest) = (log_softmax_tails(view) for view in outputs.chunk(2, dim=1))
    mean = torch.logaddexp(first, second) - _LOG_2
    rest = torch.logaddexp(first_rest, second_rest) - _LOG_2
    log_half = torch.full((), -_LOG_2, dtype=mean.dtype, device=mean.device)
    apart = [kl_to_mean(p.exp(), q - p, log_half, log_half) for p, q in ((first, second), (second, first))]
    return mean, rest, (apart[0] + apart[1]) / 2

"""What a network would say under other weights, without giving it any."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from losslab.data.batch import Batch
from losslab.explanation.landscape.directions import Weights
from losslab.explanation.solution import Solution, encoded
from losslab.targets import Task


class Score(NamedTuple):
    """Of all examples together."""

    loss: float
    """The mean of the run's own loss."""
    metric: float
    """The share of wrong decisions; of values, the mean squared error."""


class Passes:
    """Scores a solution's network and loss under given weights, on the same examples each time.

    The weights are passed in by torch.func.functional_call; the learner keeps its own.

    Args:
        solution: whose network, loss and measures they are.
        batches: the examples, on the network's device.
        recompute: take BatchNorm's statistics anew from these examples under each set of weights. Without, the
            statistics of training are kept. Weights between two solutions need new ones: the old say nothing of them
            (Izmailov et al. 2018; Jordan et al., "REPAIR", 2023).
    """

    def __init__(self, solution: Solution, batches: Sequence[Batch], *, recompute: bool = False) -> None:
        self.learner = solution.learner
        self._pair = _Pair(self.learner.network, self.learner.loss).eval()
        self._batches = [(batch, encoded(self.learner, batch.target, batch.inputs.dtype)) for batch in batches]
        self._norms = [module for module in self.learner.network.modules() if isinstance(module, _BatchNorm)]
        self.recompute = recompute and any(norm.track_running_stats for norm in self._norms)

    @property
    def normalised(self) -> bool:
        """Whether the network has statistics that could be kept or taken anew."""
        return any(norm.track_running_stats for norm in self._norms)

    @property
    def weights(self) -> Weights:
        """The learner's own, of network ("network.…") and loss ("loss.…")."""
        return {name: value.detach() for name, value in self._pair.named_parameters()}

    @property
    def examples(self) -> int:
        """How many examples each pass looks at."""
        return sum(len(batch.truth) for batch, _ in self._batches)

    def seconds(self) -> float:
        """About how long one pass takes: a batch is timed, after another that warms up."""
        batch, _ = self._batches[0]
        for _ in range(2):
            start = time.perf_counter()
            with torch.no_grad():
                outputs, _ = self._pair(batch.inputs)
                float(outputs.sum())  # waits for an accelerator
            passed = time.perf_counter() - start
        return passed * len(self._batches) * (2 if self.recompute else 1)

    @torch.no_grad()
    def at(self, weights: Mapping[str, Tensor]) -> Score:
        """The score under these weights; those that are not named are the learner's own."""
        state = {**self._statistics(weights), **weights}
        sums = torch.zeros(4, dtype=torch.float64)
        for batch, target in self._batches:
            outputs, seen = torch.func.functional_call(self._pair, state, (batch.inputs,))
            total = self.learner.loss.total(seen, target)
            right = self.learner.quick(outputs, batch.truth)
            parts = (total.value, total.weight, right, torch.tensor(len(batch.truth)))
            sums += torch.stack([part.double().cpu() for part in parts])
        loss, metric = float(sums[0] / sums[1]), float(sums[2] / sums[3])
        return Score(loss, metric if self.learner.facts.task is Task.REGRESSION else 1 - metric)

    def _statistics(self, weights: Mapping[str, Tensor]) -> Weights:
        """BatchNorm's buffers under these weights, averaged over the batches; none if they are to stay."""
        if not self.recompute:
            return {}
        fresh = {name: value.clone() for name, value in self._pair.named_buffers()}
        momenta = [norm.momentum for norm in self._norms]
        for name, module in self._pair.named_modules():
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                fresh[f"{name}.running_mean"].zero_()
                fresh[f"{name}.running_var"].fill_(1)
                fresh[f"{name}.num_batches_tracked"].zero_()
                module.momentum = None  # the plain average over the batches
                module.train()
        try:
            for batch, _ in self._batches:
                torch.func.functional_call(self._pair, {**fresh, **weights}, (batch.inputs,))
        finally:
            for norm, momentum in zip(self._norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
        return fresh


class _Pair(nn.Module):
    """A network and its loss as one module, so that the weights of both can be replaced at once."""

    def __init__(self, network: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of the network, and what the loss is to see."""
        outputs = self.network(inputs)
        return outputs, self.loss.seen(outputs, inputs, self.network)  # type: ignore[operator]

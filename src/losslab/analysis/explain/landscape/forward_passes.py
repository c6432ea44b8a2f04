"""Random directions in the space of a network's weights, in which networks can be compared.

What a network would say under other weights, without giving it any.

What many passes cost, said before and shown while they are made.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from losslab.analysis.explain.solution import Solution, encoded
from losslab.data.batch import Batch
from losslab.targets import Task

Weights = dict[str, Tensor]


def filter_normalised(network: nn.Module, random: torch.Generator, fixed: Collection[str] = ()) -> Weights:
    """A random direction whose every filter is as long as the network's own filter in that place.

    A filter is what makes one output of a layer: a row of a linear layer, an output channel of a convolution. To move
    by 1 along the direction is to move each filter by its own length, so a network whose weights are twice as large
    and mean the same is moved twice as far. Biases, the scales and shifts of normalisation, and what is not learnt do
    not move. Li et al., "Visualizing the loss landscape of neural nets", 2018, arXiv 1712.09913, section 4.

    Args:
        network: whose weights are (outputs, ...).
        random: a generator on the CPU: the same directions wherever the network is.
        fixed: the names of weights that were not learnt.
    """
    direction = {}
    for name, weight in network.named_parameters():
        drawn = torch.randn(weight.shape, generator=random, dtype=torch.float64)
        if weight.ndim < 2 or name in fixed:
            direction[name] = torch.zeros_like(weight)
            continue
        own, given = (values.flatten(1).norm(dim=1) for values in (weight.detach().double().cpu(), drawn))
        scale = (own / given).view(-1, *[1] * (weight.ndim - 1))
        direction[name] = (drawn * scale).to(weight)
    return direction


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
            right = self.learner.batch_metric_sum(outputs, batch.truth)
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
        return outputs, self.loss.loss_inputs(outputs, inputs, self.network)  # type: ignore[operator]


logger = logging.getLogger("losslab")


@contextmanager
def counted(what: str, wanted: Sequence[tuple[Passes, int]]) -> Iterator[Callable[[], object]]:
    """Say how many passes there will be and about how long they take; give what is to be called after each.

    Args:
        what: is computed.
        wanted: so many passes of each of these.
    """
    count = sum(number for _, number in wanted)
    seconds = sum(number * passes.seconds() for passes, number in wanted)
    examples = wanted[0][0].examples
    logger.info(
        "%-11s %s forward passes over %s examples, about %s; fewer with --points or --examples",
        what, f"{count:,}", f"{examples:,}", _time(seconds),
    )  # fmt: skip
    columns = (TextColumn(f"{what:<11}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=get_console(), transient=True, disable=not get_console().is_terminal) as bar:
        task = bar.add_task(what, total=count)
        yield lambda: bar.advance(task)


def _time(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"

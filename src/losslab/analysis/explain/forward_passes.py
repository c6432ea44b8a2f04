"""Loss and metric of a network whose weights are replaced for a forward pass."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from losslab.analysis.explain.solution import Solution
from losslab.data.batch import Batch
from losslab.models.learner import Learner

Weights = dict[str, Tensor]
logger = logging.getLogger("losslab")


class Score(NamedTuple):
    """Loss and metric, averaged over all examples."""

    loss: float
    """Mean of the loss that the run was trained with."""
    metric: float
    """Mean squared error in a regression, otherwise the error rate."""


class ForwardPasses:
    """Computes loss and metric of a network with different weights on the same examples.

    The weights are passed to torch.func.functional_call; those of the learner do not change.

    Args:
        solution: the run with the network and the loss.
        batches: the examples, on the network's device.
        recompute: whether to recompute the BatchNorm statistics from the examples for each set of weights. If not,
            the statistics of training are used, which are wrong for weights between two solutions (Izmailov et al.
            2018; Jordan et al., "REPAIR", 2023).
    """

    def __init__(self, solution: Solution, batches: Sequence[Batch], *, recompute: bool = False) -> None:
        self.solution, self.learner = solution, solution.learner
        self.on_pass: Callable[[], object] = lambda: None  # called after each pass
        self._model = _Model(self.learner).eval()
        self._batches = [(batch, self.learner.encode_target(batch.target, batch.inputs.dtype)) for batch in batches]
        modules = self.learner.network.named_modules(prefix="network")
        self._norms = {name: m for name, m in modules if isinstance(m, _BatchNorm) and m.track_running_stats}
        self.has_batch_norm = bool(self._norms)
        self.recompute = recompute and self.has_batch_norm

    @property
    def examples(self) -> int:
        """Number of examples in a pass."""
        return sum(len(batch.truth) for batch, _ in self._batches)

    def seconds(self) -> float:
        """Estimate the seconds that a pass takes, from the second of two passes over the first batch."""
        batch, target = self._batches[0]
        for _ in range(2):
            start = time.perf_counter()
            with torch.no_grad():
                float(self._model(batch, target)[0])  # waits for an accelerator
            elapsed = time.perf_counter() - start
        return elapsed * len(self._batches) * (2 if self.recompute else 1)

    @torch.no_grad()
    def score(self, weights: Mapping[str, Tensor]) -> Score:
        """Compute loss and metric with these weights. Weights that are not given are those of the learner."""
        state = {**self._batch_norm_statistics(weights), **weights}
        sums = torch.zeros(3, dtype=torch.float64)
        for batch, target in self._batches:
            parts = torch.func.functional_call(self._model, state, (batch, target))
            sums += torch.stack([part.double().cpu() for part in parts])
        self.on_pass()
        loss, metric = float(sums[0] / sums[1]), float(sums[2] / self.examples)
        return Score(loss, metric if self.solution.is_regression else 1 - metric)

    def _batch_norm_statistics(self, weights: Mapping[str, Tensor]) -> Weights:
        """Return BatchNorm statistics with these weights, averaged over the batches; empty unless `recompute`."""
        if not self.recompute:
            return {}
        buffers = {name: value.clone() for name, value in self._model.named_buffers()}
        momenta = [norm.momentum for norm in self._norms.values()]
        for name, norm in self._norms.items():
            buffers[f"{name}.running_mean"].zero_()
            buffers[f"{name}.running_var"].fill_(1)
            buffers[f"{name}.num_batches_tracked"].zero_()
            norm.momentum = None  # a plain average over the batches
            norm.train()
        try:
            for batch, target in self._batches:
                torch.func.functional_call(self._model, {**buffers, **weights}, (batch, target))
        finally:
            for norm, momentum in zip(self._norms.values(), momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
        return buffers


class _Model(nn.Module):
    """The network and the loss of a learner as one module, so that one call can replace the weights of both."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.network, self.loss = learner.network, learner.loss
        self._learner = (learner,)  # in a tuple, so that it is not a submodule

    def forward(self, batch: Batch, target: Tensor) -> tuple[Tensor, ...]:
        """Return the sums of the weighted losses, the weights and the metric over a batch, each a scalar."""
        (learner,) = self._learner
        outputs = learner(batch.inputs)
        value, weight, _ = learner.loss.total(learner.loss.loss_inputs(outputs, batch.inputs, learner.network), target)
        return value, weight, learner.batch_metric_sum(outputs, batch.truth)


@contextmanager
def show_progress(name: str, planned: Sequence[ForwardPasses], passes_each: int) -> Iterator[None]:
    """Log number and duration of the passes, `passes_each` for each item of `planned`, and show a progress bar."""
    count = passes_each * len(planned)
    seconds = passes_each * sum(passes.seconds() for passes in planned)
    duration = f"{max(1, round(seconds))} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    logger.info(
        "%-11s %s forward passes over %s examples, about %s; fewer with --points or --examples",
        name, f"{count:,}", f"{planned[0].examples:,}", duration,
    )  # fmt: skip
    columns = (TextColumn(f"{name:<11}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=get_console(), transient=True, disable=not get_console().is_terminal) as bar:
        task = bar.add_task(name, total=count)
        for passes in planned:
            passes.on_pass = lambda: bar.advance(task)
        yield

"""Loss and metric of a network with substituted weights; its own weights do not change."""

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
    """Mean of the loss that trained the run."""
    metric: float
    """Error rate, or mean squared error in a regression."""


class ForwardPasses:
    """Computes loss and metric of a network for different weights on fixed examples.

    torch.func.functional_call substitutes the weights; the weights of the learner do not change.

    Args:
        solution: the run with the network and the loss.
        batches: the examples, on the network's device.
        recompute: whether to recompute the BatchNorm statistics from these examples for each set of weights, instead
            of using the statistics of training, which do not fit weights between two solutions (Izmailov et al. 2018;
            Jordan et al., "REPAIR", 2023).
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
        """Estimate the time of a pass from one timed batch after a warm-up."""
        batch, target = self._batches[0]
        for _ in range(2):
            start = time.perf_counter()
            with torch.no_grad():
                float(self._model(batch, target)[0])  # waits for an accelerator
            elapsed = time.perf_counter() - start
        return elapsed * len(self._batches) * (2 if self.recompute else 1)

    @torch.no_grad()
    def score(self, weights: Mapping[str, Tensor]) -> Score:
        """Score the network with these weights; for missing names, the learner's own weights are used."""
        state = {**self._batch_norm_statistics(weights), **weights}
        sums = torch.zeros(3, dtype=torch.float64)
        for batch, target in self._batches:
            parts = torch.func.functional_call(self._model, state, (batch, target))
            sums += torch.stack([part.double().cpu() for part in parts])
        self.on_pass()
        loss, metric = float(sums[0] / sums[1]), float(sums[2] / self.examples)
        return Score(loss, metric if self.solution.is_regression else 1 - metric)

    def _batch_norm_statistics(self, weights: Mapping[str, Tensor]) -> Weights:
        """Compute the BatchNorm buffers for these weights, averaged over the batches; empty unless `recompute`."""
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
    """The network and the loss of a learner as one module, so that the weights of both can be substituted."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.network, self.loss = learner.network, learner.loss
        self._learner = (learner,)  # in a tuple, so that it is not a submodule

    def forward(self, batch: Batch, target: Tensor) -> tuple[Tensor, ...]:
        """Compute the sums of loss, weight and metric over a batch."""
        (learner,) = self._learner
        outputs = learner(batch.inputs)
        value, weight, _ = learner.loss.total(learner.loss.loss_inputs(outputs, batch.inputs, learner.network), target)
        return value, weight, learner.batch_metric_sum(outputs, batch.truth)


@contextmanager
def show_progress(name: str, planned: Sequence[ForwardPasses], each: int) -> Iterator[None]:
    """Log number and estimated duration of the planned passes, `each` for every item, and show a progress bar."""
    count = each * len(planned)
    seconds = each * sum(passes.seconds() for passes in planned)
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

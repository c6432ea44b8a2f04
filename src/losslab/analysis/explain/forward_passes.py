"""Loss and metric of a network under other weights, without changing its own."""

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

Weights = dict[str, Tensor]
logger = logging.getLogger("losslab")


class Score(NamedTuple):
    """Averages over all examples."""

    loss: float
    """The mean of the run's own loss."""
    metric: float
    """The error rate, or in a regression the mean squared error."""


class ForwardPasses:
    """Scores a network and its loss under given weights, on the same examples each time.

    torch.func.functional_call substitutes the weights; the learner keeps its own. `on_pass` is called after each pass.

    Args:
        solution: the run.
        batches: the examples, on the network's device.
        recompute: compute BatchNorm's statistics from these examples for each set of weights, instead of keeping those
            of training. Weights between two solutions need this, as no old statistics fit them (Izmailov et al. 2018;
            Jordan et al., "REPAIR", 2023).
    """

    def __init__(self, solution: Solution, batches: Sequence[Batch], *, recompute: bool = False) -> None:
        self.solution, self.learner = solution, solution.learner
        self.on_pass: Callable[[], object] = lambda: None
        self._model = _NetworkAndLoss(self.learner.network, self.learner.loss).eval()
        self._batches = [(batch, self.learner.encode_target(batch.target, batch.inputs.dtype)) for batch in batches]
        self._norms = [module for module in self.learner.network.modules() if isinstance(module, _BatchNorm)]
        self.recompute = recompute and self.has_batch_norm

    @property
    def has_batch_norm(self) -> bool:
        """Whether the network has BatchNorm with running statistics."""
        return any(norm.track_running_stats for norm in self._norms)

    @property
    def examples(self) -> int:
        """The number of examples in a pass."""
        return sum(len(batch.truth) for batch, _ in self._batches)

    def seconds(self) -> float:
        """The estimated time of a pass, from one timed batch after a warm-up."""
        batch, _ = self._batches[0]
        for _ in range(2):
            start = time.perf_counter()
            with torch.no_grad():
                outputs, _ = self._model(batch.inputs)
                float(outputs.sum())  # waits for an accelerator
            elapsed = time.perf_counter() - start
        return elapsed * len(self._batches) * (2 if self.recompute else 1)

    @torch.no_grad()
    def score(self, weights: Mapping[str, Tensor]) -> Score:
        """The score under these weights; missing names keep the learner's own."""
        state = {**self._batch_norm_statistics(weights), **weights}
        sums = torch.zeros(4, dtype=torch.float64)
        for batch, target in self._batches:
            outputs, loss_inputs = torch.func.functional_call(self._model, state, (batch.inputs,))
            total = self.learner.loss.total(loss_inputs, target)
            metric_sum = self.learner.batch_metric_sum(outputs, batch.truth)
            parts = (total.value, total.weight, metric_sum, torch.tensor(len(batch.truth)))
            sums += torch.stack([part.double().cpu() for part in parts])
        self.on_pass()
        loss, metric = float(sums[0] / sums[1]), float(sums[2] / sums[3])
        return Score(loss, metric if self.solution.is_regression else 1 - metric)

    def _batch_norm_statistics(self, weights: Mapping[str, Tensor]) -> Weights:
        """BatchNorm's buffers under these weights, averaged over the batches; empty unless `recompute`."""
        if not self.recompute:
            return {}
        buffers = {name: value.clone() for name, value in self._model.named_buffers()}
        momenta = [norm.momentum for norm in self._norms]
        for name, module in self._model.named_modules():
            if isinstance(module, _BatchNorm) and module.track_running_stats:
                buffers[f"{name}.running_mean"].zero_()
                buffers[f"{name}.running_var"].fill_(1)
                buffers[f"{name}.num_batches_tracked"].zero_()
                module.momentum = None  # a plain average over the batches
                module.train()
        try:
            for batch, _ in self._batches:
                torch.func.functional_call(self._model, {**buffers, **weights}, (batch.inputs,))
        finally:
            for norm, momentum in zip(self._norms, momenta, strict=True):
                norm.momentum = momentum
                norm.eval()
        return buffers


class _NetworkAndLoss(nn.Module):
    """A network and its loss as one module, so that the weights of both can be substituted at once."""

    def __init__(self, network: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the network's outputs, and what the loss takes as its inputs."""
        outputs = self.network(inputs)
        return outputs, self.loss.loss_inputs(outputs, inputs, self.network)  # type: ignore[operator]


@contextmanager
def show_progress(name: str, planned: Sequence[tuple[ForwardPasses, int]]) -> Iterator[None]:
    """Log the number and estimated time of the planned passes of an explanation, and show a progress bar."""
    count = sum(number for _, number in planned)
    seconds = sum(number * passes.seconds() for passes, number in planned)
    duration = f"{max(1, round(seconds))} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    logger.info(
        "%-11s %s forward passes over %s examples, about %s; fewer with --points or --examples",
        name, f"{count:,}", f"{planned[0][0].examples:,}", duration,
    )  # fmt: skip
    columns = (TextColumn(f"{name:<11}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=get_console(), transient=True, disable=not get_console().is_terminal) as bar:
        task = bar.add_task(name, total=count)
        for passes, _ in planned:
            passes.on_pass = lambda: bar.advance(task)
        yield

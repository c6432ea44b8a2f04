"""Computation of the values in a snapshot of training dynamics. It does not change the run."""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from losslab.analysis.dynamics.record import Numbers, RecordedExamples, Snapshot
from losslab.data import random_keys
from losslab.data.batch import Batch
from losslab.doctor.probe import preserve_state, uncompiled
from losslab.models.learner import Learner
from losslab.targets import Kind, Task, encode

LINE: Numbers = np.sinh(np.linspace(-math.asinh(1000), math.asinh(1000), 241))
"""The margins or residuals (P,), from -1000 to 1000 and denser around 0, at which `loss_slope` is computed."""
_STREAM = 1  # makes these random draws independent of others that also use random_keys.STATISTICS


def draw_rows(size: int, count: int, seed: int) -> Tensor:
    """Return the numbers of `count` random rows out of `size`, or of all if there are fewer, int64, ascending."""
    rows = torch.randperm(size, generator=random_keys.generator(seed, random_keys.STATISTICS, _STREAM))[:count]
    return rows.sort().values


def describe_examples(learner: Learner, batches: Iterable[Batch]) -> RecordedExamples:
    """Collect what is the same in all snapshots: the index, target and truth of each example."""
    target, truth, index = (torch.cat(parts).cpu() for parts in zip(*(batch[1:] for batch in batches), strict=True))
    corrupted = (_as_truth(learner, target) != truth).reshape(len(index), -1).any(1)
    columns = (index, target, truth, corrupted)
    arrays = ((part.float() if part.dtype is torch.bfloat16 else part).numpy() for part in columns)  # no bf16 in NumPy
    return RecordedExamples(*arrays)


def take_snapshot(
    learner: Learner,
    batches: Iterable[Batch],
    epoch: int,
    step: int,
    context: AbstractContextManager[object] | None = None,
) -> Snapshot:
    """Compute outputs, losses and gradients of all batches in evaluation mode.

    The states of random number generators, layer statistics and `.grad` do not change. The batches must be on the
    learner's device. `context` is a new forward context of the trainer's precision plugin.
    """
    columns: list[tuple[Tensor, ...]] = []
    parameters = {name: p for name, p in learner.network.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    total_weight: Tensor | float = 0.0
    with preserve_state(learner.network, learner.loss), uncompiled(learner.network), context or nullcontext():
        learner.network.eval()
        learner.loss.eval()
        random_keys.seed_torch(0, learner.device)  # a loss that draws a random view draws the same in every snapshot
        for batch in batches:
            per_example, gradients, weight = _forward_backward(learner, batch, parameters)
            columns.append(per_example)
            total_weight = total_weight + weight
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    sums[name] += gradient
        slope = loss_slope(learner)
    outputs, loss, margins, truth_margins, norms = (
        torch.cat(parts).float().cpu().numpy() for parts in zip(*columns, strict=True)
    )
    flow = rms_by_layer(learner.network, {name: total / total_weight for name, total in sums.items()})
    return Snapshot(epoch, step, outputs, loss, margins, truth_margins, norms, flow, slope)


def _forward_backward(
    learner: Learner, batch: Batch, parameters: dict[str, nn.Parameter]
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...], Tensor]:
    """Return the recorded values of each example, the gradients of the summed loss, and the sum of example weights."""
    with torch.enable_grad():
        raw = learner.network(batch.inputs)
        outputs = raw.to(torch.promote_types(raw.dtype, torch.float32))
        target = learner.encode_target(batch.target, outputs.dtype)
        inputs = learner.loss.loss_inputs(outputs, batch.inputs, learner.network)
        if learner.loss.scores_examples:
            loss = learner.loss.per_example(inputs, target)
            total = loss.sum()
        else:
            total = learner.loss.total(inputs, target).value
            loss = outputs.new_full((len(outputs),), torch.nan)
        by_outputs, *gradients = torch.autograd.grad(total, [outputs, *parameters.values()], allow_unused=True)
    by_outputs = torch.zeros_like(outputs) if by_outputs is None else by_outputs
    outputs, loss = outputs.detach(), loss.detach()
    margins = [margin(learner, outputs, reference) for reference in (batch.target, batch.truth)]
    per_example = (outputs, loss, *margins, by_outputs.flatten(1).norm(dim=1))
    return per_example, tuple(gradients), learner.loss.example_weight(target).sum()


def margin(learner: Learner, outputs: Tensor, reference: Tensor) -> Tensor:
    """Return the margin (N,) of each example: how clearly its prediction s favours the reference (target or truth).

    Multiclass: s_y - max_{k≠y} s_k, where y is the class of the reference; positive if y is predicted.
    Binary and multilabel: the smallest margin of a label, which is s - c for a label 1 and c - s for a label 0, where c
    is `decision_threshold`; positive if all labels are predicted.
    Regression: instead, the residual s - t; for several values, the root mean square of their residuals.
    """
    scores = learner.predictions(outputs)
    reference = _as_truth(learner, reference)
    if learner.spec.task is Task.REGRESSION:
        residual = scores - reference
        return residual[:, 0] if residual.shape[1] == 1 else residual.square().mean(1).sqrt()
    if learner.spec.task is not Task.MULTICLASS:
        sign = torch.where(reference > 0.5, 1, -1)
        return (sign * (scores - decision_threshold(learner))).min(1).values
    own = reference[:, None]
    return (scores.gather(1, own) - scores.scatter(1, own, -torch.inf).max(1, keepdim=True).values)[:, 0]


def _as_truth(learner: Learner, reference: Tensor) -> Tensor:
    """Convert class probabilities to the most likely class, as in the truth. Other targets stay as they are."""
    soft = learner.spec.kind is Kind.PROBABILITIES and reference.is_floating_point()
    return reference.argmax(1) if soft else reference


def decision_threshold(learner: Learner) -> float:
    """Return the output at which a label has probability 1/2: 0 for logits, 1/2 if the outputs are probabilities."""
    candidates = torch.tensor([[0.0], [0.5]], device=learner.device).expand(2, learner.spec.targets)
    probabilities = learner.probabilities(candidates)
    assert probabilities is not None  # noqa: S101 -- for the type checker: never called for a regression
    distance = (probabilities - 0.5).abs()[:, 0]
    return 0.5 if bool(distance[1] < distance[0]) else 0.0


def layer_titles(network: nn.Module) -> list[str]:
    """Return name and class, such as "0 Conv2d", of each layer with parameters of its own, in network order."""
    classes = {name: type(layer).__name__ for name, layer in network.named_modules()}
    return [f"{name} {classes[name]}" if name in classes else name for name in _by_layer(network, {})]


def rms_by_layer(network: nn.Module, gradients: dict[str, Tensor]) -> Numbers:
    """Return the root mean square of these gradients in each layer (G,); NaN for layers without gradients."""
    nan = torch.full((), torch.nan, device=next(iter(gradients.values())).device)
    squares = [torch.cat(parts).square().mean() if parts else nan for parts in _by_layer(network, gradients).values()]
    rms: Numbers = torch.stack(squares).sqrt().cpu().numpy()
    return rms


def _by_layer(network: nn.Module, gradients: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """Return the flattened gradients of each layer, by layer name; the argument has them by parameter name."""
    layers: dict[str, list[Tensor]] = {}
    for name, _ in network.named_parameters():
        parts = layers.setdefault(name.rpartition(".")[0] or type(network).__name__.lower(), [])
        if name in gradients:
            parts.append(gradients[name].flatten().float())
    return layers


def loss_slope(learner: Learner) -> Numbers:
    """Return ‖∂ℓ/∂z‖₂ at each margin m in `LINE` (P,); all NaN if the margin does not determine the loss.

    Multiclass: the target class has output m, the others 0; averaged over the first ten classes as the target.
    Binary and multilabel: all labels have margin m; averaged over two targets, all labels 1 and all labels 0.
    Regression: all values have residual m.
    """
    norms = []
    for outputs, target in _outputs_along_line(learner):
        outputs.requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(learner.loss.per_example(outputs, target).sum(), outputs)
        norms.append(gradient.norm(dim=1))
    return torch.stack(norms).mean(0).cpu().double().numpy() if norms else np.full(len(LINE), np.nan)


def _outputs_along_line(learner: Learner) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of outputs (P, Z) and targets with the margins `LINE`; none if these do not determine the loss."""
    loss, task, columns, count = learner.loss, learner.spec.task, learner.spec.targets, len(LINE)
    if loss.n_views > 1 or not loss.scores_examples or (task is not Task.REGRESSION and loss.outputs_per_target > 1):
        return []
    dtype = torch.float32 if learner.device.type == "mps" else torch.float64
    line = torch.as_tensor(LINE, device=learner.device, dtype=dtype)
    if task is Task.REGRESSION:
        outputs = line.new_zeros(count, loss.outputs(columns))
        outputs[:, :columns] = line[:, None]
        same = torch.equal(learner.predictions(outputs), outputs[:, :columns])
        return [(outputs, line.new_zeros(count, columns))] if same else []
    if task is not Task.MULTICLASS:
        margins, threshold = line[:, None].expand(-1, columns), decision_threshold(learner)
        return [(threshold + sign * margins, torch.full_like(margins, float(sign > 0))) for sign in (1, -1)]
    pairs = []
    for right in range(min(columns, 10)):
        outputs = line.new_zeros(count, columns)
        outputs[:, right] = line
        target = torch.full((count,), right, device=line.device)
        pairs.append((outputs, encode(target, Kind.INDEX, learner.kind, columns, line.dtype)))
    return pairs

"""One snapshot of the recorded examples, with its gradients, that leaves the run unchanged."""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from losslab.analysis.dynamics.record import Examples, Numbers, Snapshot
from losslab.data import random_keys
from losslab.data.batch import Batch
from losslab.doctor.probe import preserve_state
from losslab.models.learner import Learner, uncompiled
from losslab.targets import Kind, Task, encode

LINE: Numbers = np.sinh(np.linspace(-math.asinh(1000), math.asinh(1000), 241))
"""Margins or residuals from -1000 to 1000, denser around 0 (P,)."""
_MAX_CLASSES = 10
_STREAM = 1  # separates these draws from the other draws for statistics


def draw_rows(size: int, count: int, seed: int) -> Tensor:
    """Draw `count` of the rows 0..size-1, or all if there are no more → ascending int64."""
    rows = torch.randperm(size, generator=random_keys.generator(seed, random_keys.STATISTICS, _STREAM))[:count]
    return rows.sort().values


def has_weight(learner: Learner, target: Tensor) -> Tensor:
    """Whether the loss counts an example: its weight is not 0 and its target not ignored → bool (N,)."""
    return learner.loss.example_weight(learner.encode_target(target, torch.float32)) > 0


def describe_examples(learner: Learner, batches: Iterable[Batch]) -> Examples:
    """What all snapshots of these examples share."""
    target, truth, index = (torch.cat(parts).cpu() for parts in zip(*(batch[1:] for batch in batches), strict=True))
    corrupted = (_as_truth(learner, target) != truth).reshape(len(index), -1).any(1)
    columns = (index, target, truth, corrupted)
    arrays = ((part.float() if part.dtype is torch.bfloat16 else part).numpy() for part in columns)  # no bf16 in NumPy
    return Examples(*arrays)


def take_snapshot(
    learner: Learner,
    batches: Iterable[Batch],
    epoch: int,
    step: int,
    context: AbstractContextManager[object] | None = None,
) -> Snapshot:
    """Run all batches forward in evaluation mode and backward from the loss.

    The run does not change: generators, layer statistics and `.grad` stay as they are. The batches, on the learner's
    device, are the same in each snapshot; the context is a fresh forward context of the trainer's precision plugin.
    """
    columns: list[tuple[Tensor, ...]] = []
    parameters = {name: p for name, p in learner.network.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    total_weight: Tensor | float = 0.0
    with preserve_state(learner.network, learner.loss), uncompiled(learner.network), context or nullcontext():
        learner.network.eval()
        learner.loss.eval()
        torch.default_generator.manual_seed(0)  # a loss with a random view sees the same view in every snapshot
        if learner.device.type in {"cuda", "mps"}:
            getattr(torch, learner.device.type).manual_seed(0)
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
    """Outputs, loss, both margins and gradient norm of each example; gradients of the summed loss; summed weight ()."""
    with torch.enable_grad():
        raw = learner.network(batch.inputs)
        outputs = raw.to(torch.promote_types(raw.dtype, torch.float32))
        target = learner.encode_target(batch.target, outputs.dtype)
        loss = learner.loss.per_example(learner.loss.loss_inputs(outputs, batch.inputs, learner.network), target)
        by_outputs, *gradients = torch.autograd.grad(loss.sum(), [outputs, *parameters.values()], allow_unused=True)
    by_outputs = torch.zeros_like(outputs) if by_outputs is None else by_outputs
    outputs, loss = outputs.detach(), loss.detach()
    margins = [margin(learner, outputs, reference) for reference in (batch.target, batch.truth)]
    per_example = (outputs, loss, *margins, by_outputs.flatten(1).norm(dim=1))
    return per_example, tuple(gradients), learner.loss.example_weight(target).sum()


def margin(learner: Learner, outputs: Tensor, reference: Tensor) -> Tensor:
    """By how much the network's scores s favour a reference, which is a target or a truth → (N,).

    Multiclass: s_y - max_{k≠y} s_k, positive where y is predicted (y the likeliest class of probabilities). Binary and
    multilabel: the smallest ±(z - c) over the columns, c the decision threshold; positive where all labels are right.
    Regression: the residual s - t, or the root mean square of several residuals.
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
    """A target in the form of a truth: probabilities become their likeliest class."""
    soft = learner.spec.kind is Kind.PROBABILITIES and reference.is_floating_point()
    return reference.argmax(1) if soft else reference


def decision_threshold(learner: Learner) -> float:
    """The output at which a label has probability 1/2: 0 for logits, 1/2 where outputs are probabilities."""
    candidates = torch.tensor([[0.0], [0.5]], device=learner.device).expand(2, learner.spec.targets)
    probabilities = learner.probabilities(candidates)
    assert probabilities is not None  # noqa: S101 -- for the type checker: never called for a regression
    distance = (probabilities - 0.5).abs()[:, 0]
    return 0.5 if bool(distance[1] < distance[0]) else 0.0


def layer_titles(network: nn.Module) -> list[str]:
    """Name and class of each layer with parameters of its own, in the order of the network, such as "0 Conv2d"."""
    classes = {name: type(layer).__name__ for name, layer in network.named_modules()}
    return [f"{name} {classes[name]}" if name in classes else name for name in _by_layer(network, {})]


def rms_by_layer(network: nn.Module, gradients: dict[str, Tensor]) -> Numbers:
    """Root mean square of each layer's gradient → (G,), NaN for layers without trainable parameters."""
    nan = torch.full((), torch.nan, device=next(iter(gradients.values())).device)
    by_layer = _by_layer(network, gradients).values()
    rms: Numbers = (
        torch.stack([torch.cat(parts).square().mean() if parts else nan for parts in by_layer]).sqrt().cpu().numpy()
    )
    return rms


def _by_layer(network: nn.Module, gradients: dict[str, Tensor]) -> dict[str, list[Tensor]]:
    """The gradients of each layer's parameters (...,), flat, by layer name."""
    layers: dict[str, list[Tensor]] = {}
    for name, _ in network.named_parameters():
        parts = layers.setdefault(name.rpartition(".")[0] or type(network).__name__.lower(), [])
        if name in gradients:
            parts.append(gradients[name].flatten().float())
    return layers


def loss_slope(learner: Learner) -> Numbers:
    """‖∂ℓ/∂z‖₂ along `LINE` → (P,), all NaN for a loss that needs more than the outputs.

    The outputs at margin m depend on the task. Multiclass: z = (m, 0, ..., 0) with the first class right, as in
    docs/losses.md, averaged over which of the first ten classes is right. Binary and multilabel: z = ±m in all columns,
    averaged over both labels. Regression: residual m in all columns.
    """
    loss, spec = learner.loss, learner.spec
    batches = []
    if loss.n_views == 1 and (spec.task is Task.REGRESSION or loss.outputs_per_target == 1):
        dtype = torch.float32 if learner.device.type == "mps" else torch.float64
        batches = _outputs_along(learner, torch.as_tensor(LINE, device=learner.device, dtype=dtype))
    norms = []
    for outputs, target in batches:
        outputs.requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss.per_example(outputs, target).sum(), outputs)
        norms.append(gradient.norm(dim=1))
    return torch.stack(norms).mean(0).cpu().double().numpy() if norms else np.full(len(LINE), np.nan)


def _outputs_along(learner: Learner, line: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Pairs of outputs with these margins and their targets; none if a regression's outputs are not its predictions."""
    task, columns, count = learner.spec.task, learner.spec.targets, len(line)
    if task is Task.REGRESSION:
        outputs = line.new_zeros(count, learner.loss.outputs(columns))
        outputs[:, :columns] = line[:, None]
        same = torch.equal(learner.predictions(outputs), outputs[:, :columns])
        return [(outputs, line.new_zeros(count, columns))] if same else []
    if task is not Task.MULTICLASS:
        margins, threshold = line[:, None].expand(-1, columns), decision_threshold(learner)
        return [(threshold + sign * margins, torch.full_like(margins, float(sign > 0))) for sign in (1, -1)]
    pairs = []
    for right in range(min(columns, _MAX_CLASSES)):
        outputs = line.new_zeros(count, columns)
        outputs[:, right] = line
        target = torch.full((count,), right, device=line.device)
        pairs.append((outputs, encode(target, Kind.INDEX, learner.kind, columns, line.dtype)))
    return pairs

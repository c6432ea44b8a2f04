"""Which examples are recorded, and one snapshot of them that leaves the run unchanged."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from losslab.analysis.dynamics.gradients import decision_threshold, loss_slope, rms_by_layer
from losslab.analysis.dynamics.record import Examples, Snapshot
from losslab.data import random_keys
from losslab.data.batch import Batch
from losslab.doctor.probe import preserve_state
from losslab.models.learner import Learner, uncompiled
from losslab.targets import Kind, Task

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
    differs = _as_truth(learner, target) != truth
    corrupted = differs.flatten(1).any(1) if differs.ndim > 1 else differs
    columns = (index, target, truth, corrupted)
    arrays = ((part.float() if part.dtype is torch.bfloat16 else part).numpy() for part in columns)  # no bf16 in NumPy
    return Examples(*arrays)


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


def take_snapshot(
    learner: Learner,
    batches: Iterable[Batch],
    epoch: int,
    step: int,
    context: AbstractContextManager[object] | None = None,
) -> Snapshot:
    """Run all batches forward in evaluation mode and backward from the loss.

    The run does not change: generators, layer statistics and `.grad` stay as they are.

    Args:
        learner: the network and its loss.
        batches: the same in each snapshot, on the learner's device.
        epoch: number of finished epochs.
        step: number of optimizer steps taken.
        context: a fresh forward context of the trainer's precision plugin.
    """
    columns: list[tuple[Tensor, ...]] = []
    parameters = {name: p for name, p in learner.network.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    total_weight: Tensor | float = 0.0
    with preserve_state(learner.network, learner.loss), uncompiled(learner.network), context or nullcontext():
        learner.network.eval()
        learner.loss.eval()
        _seed(learner.device)  # a loss with a random view sees the same view in every snapshot
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


def _seed(device: torch.device) -> None:
    torch.default_generator.manual_seed(0)
    if device.type == "cuda":
        torch.cuda.manual_seed(0)
    elif device.type == "mps":
        torch.mps.manual_seed(0)


def _as_truth(learner: Learner, reference: Tensor) -> Tensor:
    """A target in the form of a truth: probabilities become their likeliest class."""
    soft = learner.spec.kind is Kind.PROBABILITIES and reference.is_floating_point()
    return reference.argmax(1) if soft else reference

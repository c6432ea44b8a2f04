"""Which examples are watched, and one look at them that leaves no trace in the run."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from losslab.analysis.dynamics.gradients import by_layer, centre, slope
from losslab.analysis.dynamics.record import Examples, Look
from losslab.data import random_keys
from losslab.data.batch import Batch
from losslab.doctor.probe import preserve_state
from losslab.models.learner import Learner, uncompiled
from losslab.targets import Kind, Task, encode

_WATCHED = 1  # keeps these draws apart from others that are made for statistics


def drawn(size: int, count: int, seed: int) -> Tensor:
    """`count` of the rows 0..size-1, all if there are no more, ascending → int64."""
    rows = torch.randperm(size, generator=random_keys.generator(seed, random_keys.STATISTICS, _WATCHED))[:count]
    return rows.sort().values


def counts(learner: Learner, target: Tensor) -> Tensor:
    """Which examples the loss does not pass over, as it does those of weight 0 and of an ignored index → bool (N,)."""
    return learner.loss.example_weight(_encoded(learner, target, torch.float32)) > 0


def examples(learner: Learner, batches: Iterable[Batch]) -> Examples:
    """What stays the same of the watched examples."""
    target, truth, index = (torch.cat(parts).cpu() for parts in zip(*(batch[1:] for batch in batches), strict=True))
    differs = _plain(learner, target) != truth
    corrupted = differs.flatten(1).any(1) if differs.ndim > 1 else differs
    known = (part.float() if part.dtype is torch.bfloat16 else part for part in (index, target, truth, corrupted))
    return Examples(*(part.numpy() for part in known))  # numpy has no bfloat16


def margin(learner: Learner, outputs: Tensor, reference: Tensor) -> Tensor:
    """By how much the network's scores s are right about a target or a truth → (N,).

    Of classes s_y - max_{k≠y} s_k, positive where y is what is predicted (y the likeliest class of probabilities). Of
    0/1 labels the least over the columns of ±(z - c), with c where the loss finds a label as likely as not: positive
    where all are right. Of values the residual s - t; of several values its root mean square.
    """
    scores = learner.predictions(outputs)
    reference = _plain(learner, reference)
    if learner.facts.task is Task.REGRESSION:
        residual = scores - reference
        return residual[:, 0] if residual.shape[1] == 1 else residual.square().mean(1).sqrt()
    if learner.facts.task is not Task.MULTICLASS:
        sign = torch.where(reference > 0.5, 1, -1)
        return (sign * (scores - centre(learner))).min(1).values
    own = reference[:, None]
    return (scores.gather(1, own) - scores.scatter(1, own, -torch.inf).max(1, keepdim=True).values)[:, 0]


def look(
    learner: Learner,
    batches: Iterable[Batch],
    epoch: int,
    step: int,
    context: AbstractContextManager[object] | None = None,
) -> Look:
    """Pass all batches through the network in evaluation mode, and their losses back.

    Nothing of the run is changed: no generator, no statistics of a layer, no gradient that a step would use.

    Args:
        learner: as it is.
        batches: the same in each look, on the learner's device.
        epoch: so many are over.
        step: so many were taken.
        context: the precision's own, a new one each time.
    """
    seen: list[tuple[Tensor, ...]] = []
    parameters = {name: p for name, p in learner.network.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in parameters.items()}
    weight: Tensor | float = 0.0
    with preserve_state(learner.network, learner.loss), uncompiled(learner.network), context or nullcontext():
        learner.network.eval()
        learner.loss.eval()
        _seed(learner.device)  # of losses that look at a random view, the same one each time
        for batch in batches:
            each, gradients, mass = _passed(learner, batch, parameters)
            seen.append(each)
            weight = weight + mass
            for name, part in zip(parameters, gradients, strict=True):
                if part is not None:
                    sums[name] += part
        weights = slope(learner)
    outputs, loss, own, others, gradient = (torch.cat(parts).float().cpu().numpy() for parts in zip(*seen, strict=True))
    flow = by_layer(learner.network, {name: total / weight for name, total in sums.items()})
    return Look(epoch, step, outputs, loss, own, others, gradient, flow, weights)


def _passed(
    learner: Learner, batch: Batch, parameters: dict[str, nn.Parameter]
) -> tuple[tuple[Tensor, ...], tuple[Tensor | None, ...], Tensor]:
    """What is kept of each example, the gradients of their summed loss, and their summed weight ()."""
    with torch.enable_grad():
        plain = learner.network(batch.inputs)
        outputs = plain.to(torch.promote_types(plain.dtype, torch.float32))
        target = _encoded(learner, batch.target, outputs.dtype)
        loss = learner.loss.per_example(learner.loss.loss_inputs(outputs, batch.inputs, learner.network), target)
        own, *gradients = torch.autograd.grad(loss.sum(), [outputs, *parameters.values()], allow_unused=True)
    own = torch.zeros_like(outputs) if own is None else own
    outputs, loss = outputs.detach(), loss.detach()
    margins = [margin(learner, outputs, reference) for reference in (batch.target, batch.truth)]
    each = (outputs, loss, *margins, own.flatten(1).norm(dim=1))
    return each, tuple(gradients), learner.loss.example_weight(target).sum()


def _seed(device: torch.device) -> None:
    torch.default_generator.manual_seed(0)
    if device.type == "cuda":
        torch.cuda.manual_seed(0)
    elif device.type == "mps":
        torch.mps.manual_seed(0)


def _encoded(learner: Learner, target: Tensor, dtype: torch.dtype) -> Tensor:
    return encode(target, learner.facts.kind, learner.kind, learner.facts.targets, dtype)


def _plain(learner: Learner, reference: Tensor) -> Tensor:
    """A target as a truth is given: probabilities as their likeliest class."""
    soft = learner.facts.kind is Kind.PROBABILITIES and reference.is_floating_point()
    return reference.argmax(1) if soft else reference

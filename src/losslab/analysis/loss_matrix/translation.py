"""Outputs that were trained under one loss, as another loss would read them."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from losslab.losses.base import Loss

Reading = Callable[[Tensor], Tensor]
"""What outputs stand for: probabilities (N, C) or (N, K), or values (N, D)."""


def translated(outputs: Tensor, trained: Loss, measuring: Loss, *, values: bool, exclusive: bool) -> tuple[Tensor, str]:
    """The outputs that mean to `measuring` what these mean to `trained`, and how they were found; "" for not at all.

    "as they are" where both read them alike. Else "translated": the probabilities (for exclusive classes normalised, as
    metrics do) or values that they mean, taken back through the other's reading if that is a softmax or sigmoid of
    scores, a linear function, or an exponential, and only if it then reads these very probabilities or values.

    Args:
        outputs: (N, ...) of a network trained under `trained`.
        trained: reads them.
        measuring: is to read them.
        values: whether they stand for values and not for probabilities.
        exclusive: whether the probabilities are those of exclusive classes.
    """
    outputs = outputs.double()
    read = measuring.to_predictions if values else measuring.to_probabilities
    meant = trained.to_predictions(outputs) if values else trained.to_probabilities(outputs)
    if trained.outputs_per_target == measuring.outputs_per_target and _alike(_read(read, outputs), meant):
        return outputs, "as they are"
    if measuring.outputs_per_target > 1:
        return outputs, ""
    meant = meant / meant.sum(1, keepdim=True) if exclusive else meant
    for guess in _guesses(read, meant, values=values):
        found = _read(read, guess)
        if found is not None and exclusive:
            found = found / found.sum(1, keepdim=True)
        if guess.isfinite().all() and _alike(found, meant):
            return guess, "translated"
    return outputs, ""


def _read(read: Reading, outputs: Tensor) -> Tensor | None:
    try:
        return read(outputs)
    except (RuntimeError, ValueError):  # another's loss, which takes other shapes
        return None


def _alike(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5)


def _guesses(read: Reading, meant: Tensor, *, values: bool) -> Iterator[Tensor]:
    """What outputs would be, if the reading were of this or that kind."""
    if values:
        yield meant
        yield meant.log()
        return
    at = [_read(read, row.expand(1, meant.shape[1])) for row in _probes(meant)]
    if any(one is None for one in at):
        return
    zero, half, one, first = (one[0] for one in at if one is not None)
    inside = meant.clamp(1e-12, 1 - 1e-12)
    yield (meant - zero) / (half - zero) / 2
    yield (inside.logit() - zero.logit()) / (one.logit() - zero.logit())
    if meant.shape[1] > 1:
        yield inside.log() / (first[0] / first[1]).log()


def _probes(meant: Tensor) -> Iterator[Tensor]:
    """All 0, all ½, all 1; and 1 in the first column alone."""
    for value in (0.0, 0.5, 1.0):
        yield meant.new_full(meant.shape[1:], value)
    yield torch.nn.functional.pad(meant.new_ones(1), (0, meant.shape[1] - 1))

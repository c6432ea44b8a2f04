"""Batches in which every example is mixed with another."""

from collections.abc import Callable
from typing import Any

import torch

from losslab.data import keys
from losslab.data.batch import Batch
from losslab.errors import LabError
from losslab.targets import Kind, encode


class Mix:
    """Mixes a training batch by one of torchvision's transforms; targets become probabilities, the truth stays.

    Draws are keyed by (seed, epoch, batch) as all others are, and made for the global batch.

    Args:
        transform: torchvision.transforms.v2.MixUp or CutMix, which of an alpha makes a map from images (N, channels,
            height, width) and probabilities (N, C) to the same.
        alpha: of the Beta distribution that the share is drawn from.

    Raises:
        LabError: alpha is not above 0.
    """

    def __init__(self, transform: Callable[..., Any], alpha: float) -> None:
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not alpha > 0:
            message = f"mix.alpha must be a number above 0, got {alpha!r}"
            raise LabError(message)
        self.transform = transform(alpha=alpha)

    def __call__(self, classes: int, seed: int, batch: Batch, epoch: int, number: int) -> Batch:
        """Mix batch `number` of an epoch, whose targets are indices (N,) or probabilities (N, C)."""
        spelt = spell_out(classes, batch)
        if len(batch.truth) == 0:
            return spelt
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(keys.key(seed, keys.MIXING, epoch, number))
            inputs, target = self.transform(spelt.inputs, spelt.target)
        return spelt._replace(inputs=inputs, target=target)


def spell_out(classes: int, batch: Batch, *_: int) -> Batch:
    """The same batch with its class indices as probabilities (N, C)."""
    if batch.target.is_floating_point():
        return batch
    return batch._replace(target=encode(batch.target, Kind.INDEX, Kind.PROBABILITIES, classes, torch.float32))

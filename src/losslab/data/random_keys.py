"""Keyed random draws: each generator's seed is a hash of (seed, purpose, epoch, batch).

Two losses trained with one seed get the same initial weights, batches and augmentations, and a resumed run draws what
the uninterrupted run would have drawn.
"""

from hashlib import blake2b

import torch

ORDER, AUGMENTATION, STEP, SPLIT, SYNTHESIS, STATISTICS, SIDES, MIXING = range(8)
LONG_TAIL, LABEL_NOISE, VALUE_NOISE = range(8, 11)


def key(seed: int, purpose: int, *position: int) -> int:
    """A 63-bit seed: equal for equal arguments, unrelated for different ones.

    Args:
        seed: seed of the run, of the split or of the synthetic data.
        purpose: one of the constants above; two purposes never share draws.
        position: usually (epoch,) or (epoch, batch).
    """
    # numpy's SeedSequence takes twenty times as long, as much as a training step of a tiny network.
    return int.from_bytes(blake2b(repr((seed, purpose, *position)).encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: int, *position: int) -> torch.Generator:
    """A CPU generator seeded by `key`, so that draws do not depend on the device of the data."""
    return torch.Generator().manual_seed(key(seed, purpose, *position))

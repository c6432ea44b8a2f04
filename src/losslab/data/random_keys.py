"""Randomness as a function: every draw is keyed by what it is for, so that any run can make it again.

Two losses with one seed see the same initial weights, batches and augmentations; a run that is killed and resumed
draws what it would have drawn.
"""

from hashlib import blake2b

import torch

ORDER, AUGMENTATION, STEP, SPLIT, SYNTHESIS, STATISTICS, SIDES, MIXING = range(8)
LONG_TAIL, LABEL_NOISE, VALUE_NOISE = range(8, 11)


def key(seed: int, purpose: int, *place: int) -> int:
    """A 63-bit seed that is the same for the same arguments and unrelated for any others.

    Args:
        seed: of the run (or of the split, or of the synthesis).
        purpose: one of the constants above, so that no two uses of a seed share draws.
        place: usually (epoch,) or (epoch, batch).
    """
    # A hash, at a twentieth of the time of numpy's SeedSequence, which is as long as a step of a tiny network.
    return int.from_bytes(blake2b(repr((seed, purpose, *place)).encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: int, *place: int) -> torch.Generator:
    """A CPU generator seeded by `key`: the same draws whatever the device of the data."""
    return torch.Generator().manual_seed(key(seed, purpose, *place))

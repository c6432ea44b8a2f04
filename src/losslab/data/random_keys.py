"""Keyed random draws: the seed of each generator is a hash of (seed, purpose, epoch, batch number).

Therefore, runs of different losses with one seed have the same initial weights, batches and augmentations, and a
resumed run draws the same numbers as an uninterrupted run.
"""

from hashlib import blake2b

import torch

ORDER, AUGMENTATION, STEP, SPLIT, SYNTHESIS, STATISTICS, SIDES, MIXING = range(8)
LONG_TAIL, LABEL_NOISE, VALUE_NOISE = range(8, 11)


def key(seed: int, purpose: int, *position: int) -> int:
    """Hash the arguments to a 63-bit seed.

    `purpose` is one of the constants above, so that no two purposes share draws. `position` is usually (epoch,) or
    (epoch, batch number).
    """
    # NumPy's SeedSequence takes twenty times as long, about the time of a training step of a tiny network.
    return int.from_bytes(blake2b(repr((seed, purpose, *position)).encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: int, *position: int) -> torch.Generator:
    """Create a generator with the seed `key(...)`, on the CPU so that draws do not depend on the device of the data."""
    return torch.Generator().manual_seed(key(seed, purpose, *position))


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed torch's own generators of the CPU and of this device."""
    # torch.manual_seed would record a stack trace for each device type that is not available.
    torch.default_generator.manual_seed(seed)
    if device.type in {"cuda", "mps"}:
        getattr(torch, device.type).manual_seed(seed)

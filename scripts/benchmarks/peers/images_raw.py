"""Peer: a plain training loop on losslab's tensors and augmentation, without callbacks and metrics."""

import torch

from benchmarks.peers import plain_loop
from benchmarks.timing import Job
from losslab.data.batch import Examples
from losslab.data.loader import Loader
from losslab.data.machine import keep_freed_memory
from losslab.data.transforms import Augment, Normalise


def examples(count: int) -> Examples:
    """Make random uint8 images (N, 32, 32, 3) and labels (N,)."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 32, 32, 3), dtype=torch.uint8, generator=random)
    return Examples.of(images, torch.randint(10, (count,), generator=random))


def normalise() -> Normalise:
    """Make the transform of uint8 pixels to values from about -2 to 2."""
    half = torch.full((3,), 127.5)
    return Normalise(half, half / 2)


def rate(job: Job) -> float:
    """Measure the training images per second."""
    keep_freed_memory()
    loader = Loader(
        examples(job.images).to(torch.device(job.device)),
        job.batch_size,
        shuffle=True,
        augment=Augment(crop=2, flip=True),
        transform=normalise(),
    )
    return plain_loop.rate(job, job.network().to(memory_format=torch.channels_last), loader)

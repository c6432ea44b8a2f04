"""Peer: images loaded one by one through PIL in a DataLoader, and a plain training loop."""

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.peers import plain_loop
from benchmarks.timing import Job

AUGMENT = transforms.Compose(
    [
        transforms.RandomCrop(32, padding=2),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
    ]
)


class Images(Dataset[tuple[torch.Tensor, int]]):
    """Random images and labels, read in the same way as by torchvision's CIFAR10."""

    def __init__(self, count: int) -> None:
        random = np.random.default_rng(0)
        self.data = random.integers(256, size=(count, 32, 32, 3), dtype=np.uint8)
        self.labels = random.integers(10, size=count).tolist()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return AUGMENT(Image.fromarray(self.data[index])), self.labels[index]


def rate(job: Job) -> float:
    """Measure the training images per second."""
    loader = DataLoader(
        Images(job.images),
        batch_size=job.batch_size,
        shuffle=True,
        num_workers=job.workers,
        persistent_workers=job.workers > 0,
        pin_memory=job.device == "cuda",
    )
    return plain_loop.rate(job, job.network(), loader)

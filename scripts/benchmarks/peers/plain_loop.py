"""The training loop of a tutorial: only forward, zero_grad, backward and step."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from benchmarks.timing import Job, Stopwatch


def rate(job: Job, network: nn.Module, loader: Iterable[Any]) -> float:
    """Measure the training images per second; the first two items of a batch are images and labels."""
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    stopwatch = Stopwatch(job)
    while True:
        for images, labels, *_ in loader:
            inputs, target = images.to(job.device, non_blocking=True), labels.to(job.device, non_blocking=True)
            with job.autocast:
                loss = criterion(network(inputs), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if stopwatch.step():
                return stopwatch.rate

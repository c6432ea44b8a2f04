"""The teacher for distillation, which is the network of a finished run."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from losslab.losses.base import Loss
from losslab.runs import RunFolder
from losslab.training import weights
from losslab.training.instantiate import make_data, make_loss
from losslab.training.network import make_network

_trusted: ContextVar[tuple[str, ...]] = ContextVar("trusted", default=())


@contextmanager
def trusting(packages: tuple[str, ...]) -> Iterator[None]:
    """Within this context, trust these packages when a teacher is instantiated.

    They are not an argument of the teacher, because arguments come from the configuration, which must not decide what
    is trusted.
    """
    token = _trusted.set(packages)
    try:
        yield
    finally:
        _trusted.reset(token)


def network_of(run: str | None) -> nn.Module | None:
    """Return a network that computes logits (N, C) with the best weights of a finished run; None if `run` is None.

    Raises:
        LabError: the run does not exist, or has no weights.
    """
    if run is None:
        return None
    folder = RunFolder(Path(run), _trusted.get())
    config = with_teacher(None, folder.read_config())  # the teacher's own teacher is not needed for inference
    data = make_data(config["data"])
    loss = make_loss(config["loss"], data.spec.kind, data.spec.targets, warn="nothing")
    network = make_network(config, data.spec, loss)
    weights.load_network(network, folder.weights if folder.weights.is_file() else folder.checkpoint("best"))
    return _Teacher(network, loss, loss.outputs(data.spec.targets))


def with_teacher(run: str | None, config: Any) -> Any:
    """Return a copy of a configuration in which the run folder `run`, or None, replaces the teacher, if it has one."""
    if not isinstance(config, dict):
        return config
    if config.get("_target_") == "losslab.training.teacher.network_of":
        return config | {"run": run}
    return {key: with_teacher(run, value) for key, value in config.items()}


class _Teacher(nn.Module):
    """A network that returns logits (N, C), whose softmax are the probabilities that the loss of its run computes.

    They are the outputs themselves if the loss takes the softmax of its outputs. Otherwise (one-vs-all, squared error)
    they are the logarithms of the probabilities, of which those below the smallest normal number are raised to it.

    Args:
        network: trained network.
        loss: loss of its training run.
        outputs: number of outputs of the network.
    """

    def __init__(self, network: nn.Module, loss: Loss, outputs: int) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        sample = torch.randn(8, outputs, generator=torch.Generator().manual_seed(0))
        logits, probabilities = loss.to_logits(sample), loss.to_probabilities(sample)
        # The probabilities of a large margin are 0 in float32, but at a high temperature they count.
        self._gives_logits = logits is not None and torch.allclose(logits.softmax(1), probabilities, atol=1e-6)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.network(inputs)
        logits = self.loss.to_logits(outputs) if self._gives_logits else None
        if logits is not None:
            return logits
        probabilities = self.loss.to_probabilities(outputs)
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()

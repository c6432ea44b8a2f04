"""The teacher of a distillation: the network of a finished run."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from losslab.data.module import ExperimentDataModule
from losslab.losses.base import Loss
from losslab.runs import RunFolder
from losslab.training import weights
from losslab.training.instantiate import make, make_loss, make_network


def network_of(run: str | None) -> nn.Module | None:
    """The network of a finished run under its best weights, for a loss to ask; None where no run is named.

    Raises:
        LabError: there is no such run, or it kept no weights.
    """
    if run is None:
        return None
    folder = RunFolder(Path(run))
    config = taught_by(None, folder.read_config())  # whoever taught the teacher is not needed any more
    data: ExperimentDataModule = make("data", config["data"])
    loss = make_loss(config["loss"], data.spec.kind, data.spec.targets)
    network = make_network(config, data.spec, loss)
    weights.load_network(network, folder.weights if folder.weights.is_file() else folder.checkpoint("best"))
    return _Teacher(network, loss)


def taught_by(run: str | None, config: Any) -> Any:
    """A configuration with another teacher, wherever it names one."""
    if not isinstance(config, dict):
        return config
    if config.get("_target_") == "losslab.training.teacher.network_of":
        return config | {"run": run}
    return {key: taught_by(run, value) for key, value in config.items()}


class _Teacher(nn.Module):
    """The logarithms of the probabilities that a network means under the loss it was trained with → (N, C).

    For a network of logits they are these, but for a number that all of an example share.
    """

    def __init__(self, network: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, inputs: Tensor) -> Tensor:
        probabilities = self.loss.to_probabilities(self.network(inputs))
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()

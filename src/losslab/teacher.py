"""The teacher of a distillation: the network of a finished run."""

from pathlib import Path
from typing import Any

from torch import nn

from losslab import weights
from losslab.data.module import MemoryDataModule
from losslab.making import make, make_loss, make_network
from losslab.runs import RunFolder


def network_of(run: str | None) -> nn.Module | None:
    """The network of a finished run under its best weights, for a loss to ask; None where no run is named.

    Raises:
        LabError: there is no such run, or it kept no weights.
    """
    if run is None:
        return None
    folder = RunFolder(Path(run))
    config = taught_by(None, folder.read_config())  # whoever taught the teacher is not needed any more
    data: MemoryDataModule = make("data", config["data"])
    network = make_network(config, data.facts, make_loss(config["loss"], data.facts.kind, data.facts.targets))
    weights.load_network(network, folder.weights if folder.weights.is_file() else folder.checkpoint("best"))
    return network


def taught_by(run: str | None, config: Any) -> Any:
    """A configuration with another teacher, wherever it names one."""
    if not isinstance(config, dict):
        return config
    if config.get("_target_") == "losslab.teacher.network_of":
        return config | {"run": run}
    return {key: taught_by(run, value) for key, value in config.items()}

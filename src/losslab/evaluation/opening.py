"""A finished run, opened again from its folder: built, with its weights, ready to be asked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from losslab import experiment as lab
from losslab import teacher, weights
from losslab.data import cifar_files
from losslab.data.knowledge import Knowledge
from losslab.errors import LabError
from losslab.evaluation import changes
from losslab.experiment import Experiment
from losslab.learner import Learner, learner_for
from losslab.making import make_loss, make_network
from losslab.runs import RunFolder

SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class Look:
    """What is looked at: a run, its weights, and a split of its data.

    Raises:
        LabError: there is no such split.
    """

    run: Path
    """Its folder; a str becomes one."""
    split: str = "test"
    """test, val or train."""
    checkpoint: str = "best"
    """best, last, or a path."""
    data: tuple[str, ...] = ()
    """KEY=VALUE pairs by which the data are not the run's own."""

    def __post_init__(self) -> None:
        plain = {"run": Path(self.run), "checkpoint": str(self.checkpoint)}
        plain |= {"data": (self.data,) if isinstance(self.data, str) else tuple(self.data)}
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        if self.split not in SPLITS:
            message = f"split must be {' or '.join(SPLITS)}, got {self.split!r}"
            raise LabError(message)


def open_run(look: Look) -> Experiment:
    """Build the run again, with the data that were asked for and the weights of the checkpoint.

    Raises:
        LabError: there is no run or no checkpoint, one of them is damaged, they do not belong together, or the data
            are not there.
    """
    folder = RunFolder(look.run)
    config = folder.read_config()
    checkpoint = found_checkpoint(folder, look.checkpoint)
    changed = changes.parse(look.data, config["data"])
    config = config | {"data": located(folder, config["data"], changed) | _from_home(config["data"], changed) | changed}
    experiment = lab.rebuild(folder, config)
    experiment.data.fetches = "dir" in changed
    if changed and look.split != "train":  # which is all that faults are of
        experiment.data.corrupt(())
        experiment.data.promised = None
    weights.load(experiment.learner, checkpoint)
    check_finite(experiment.learner, checkpoint)
    return experiment


def _from_home(data: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """What has to be fetched to a place that was named here comes from its home and is verified, unless said so too."""
    if "dir" not in changed or Path(str(changed["dir"]), cifar_files.FOLDER).is_dir():
        return {}
    return {key: value for key, value in (("url", None), ("verify", True)) if key in data}


def open_network(run: Path, checkpoint: str) -> tuple[Learner, Knowledge]:
    """Build the network of a run and its loss without the data, as far as the run kept what is needed of them.

    Raises:
        LabError: as `open_run` does; of data only where the run is an older one.
    """
    folder = RunFolder(run)
    config, content, path = folder.read_config(), folder.read_data(), found_checkpoint(folder, checkpoint)
    if content is None:
        return _with_data(Look(run, checkpoint=checkpoint))
    known = Knowledge.from_json(content, folder.data)
    if folder.teacher.is_dir():
        config = teacher.taught_by(str(folder.teacher), config)
    loss = make_loss(config["loss"], known.facts.kind, known.facts.targets)
    if known.class_counts is not None:
        loss.set_class_counts(known.class_counts)
    network = make_network(config, known.facts, loss)
    learner = learner_for(known.facts.task)(network, loss, known.facts)
    weights.load(learner, path)
    check_finite(learner, path)
    return learner.eval(), known


def _with_data(look: Look) -> tuple[Learner, Knowledge]:
    try:
        experiment = open_run(look)
        experiment.data.prepare_data()
        experiment.data.setup()
    except LabError as error:
        message = f"{look.run} is an older run, which kept no data.json, and its data are needed: {error}"
        raise LabError(message) from error
    return experiment.learner.eval(), experiment.data.knowledge


def found_checkpoint(folder: RunFolder, name: str) -> Path:
    """The file of "best", "last" or a path.

    Raises:
        LabError: it is not there.
    """
    path = folder.checkpoint(name)
    if path.is_file():
        return path
    others = [str(each) for each in sorted(folder.best.parent.glob("*.ckpt"))]
    hint = f"there is {', '.join(others)}" if others else "the run saved none, train it again"
    message = f"no checkpoint at {path}: {hint}, or name a file with --ckpt PATH"
    raise LabError(message)


def located(folder: RunFolder, data: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """The data's configuration with a folder that can be found from here.

    A relative data.dir refers to where the run was started. Nothing is downloaded for a run that is over.

    Raises:
        LabError: it lies neither here nor there.
    """
    place = data.get("dir")
    if "dir" in changed or not isinstance(place, str):
        return data
    path = Path(place).expanduser()
    if path.exists():
        return data
    if path.is_absolute():
        message = f"no data here: data.dir={place} is not there. Say where they are: --data dir=FOLDER"
        raise LabError(message)
    home = folder.started_in
    if home is not None and (home / path).exists():
        return data | {"dir": str(home / path)}
    origin = f", and was relative to {home}" if home is not None and home != Path.cwd() else ""
    message = f"no data here: data.dir={place} is a relative path{origin}. Say where they are: --data dir=FOLDER"
    raise LabError(message)


def check_finite(network: nn.Module, path: Path) -> None:
    """Refuse weights by which nothing can be computed.

    Raises:
        LabError: one is NaN or infinite.
    """
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            message = f"{path} holds NaN or infinite values ({name}): the run diverged, evaluate another checkpoint"
            raise LabError(message)

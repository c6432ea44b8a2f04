"""`--data KEY=VALUE`: the data of a finished run with some of their options changed.

A finished run, opened again from its folder: built, with its weights, ready to be asked.
"""

import inspect
import os
import types
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from torch import nn

from losslab.data import cifar10_files
from losslab.data.metadata import DataMetadata
from losslab.errors import LabError
from losslab.models.learner import Learner, learner_for
from losslab.runs import RunFolder
from losslab.training import experiment as lab
from losslab.training import teacher, weights
from losslab.training.experiment import Experiment
from losslab.training.instantiate import class_of, make_loss, make_network

RESPLITTING_OPTIONS = {"split_seed", "val_size", "data_seed", "subset"}
"""Options by which training and held-out examples change places."""


def parse(given: Sequence[str], data: dict[str, Any]) -> dict[str, Any]:
    """The options of `KEY=VALUE`, read as Hydra reads them on the command line of train.py.

    Args:
        given: as typed; "data.KEY=VALUE" is understood too.
        data: the configuration of the run's data.

    Raises:
        LabError: what was typed is no such pair, the data have no such option, or it takes no such value.
    """
    accepted = _accepted(data) if given else {}
    changes = {}
    for typed in given:
        name, _, _ = typed.removeprefix("data.").partition("=")
        key, value = _pair(typed)
        known = [key for key in data if not key.startswith("_")]
        if key not in known and key not in accepted:
            everything = sorted({*known, *accepted})
            near = get_close_matches(key, everything)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(everything)}"
            raise LabError(f"--data {name}: these data have no such option; {hint}")
        if key in accepted and not _is(value, accepted[key]):
            raise LabError(f"--data {typed}: {key} must be {_named(accepted[key])}, got {value!r}")
        changes[key] = value
    return changes


def _pair(typed: str) -> tuple[str, Any]:
    if "=" not in typed:
        raise LabError(f"--data takes KEY=VALUE, as in --data dir=/somewhere: got {typed}")
    try:
        override = OverridesParser.create().parse_override(typed.removeprefix("data."))
    except HydraException as error:
        raise LabError(
            f"--data {typed}: {str(error).splitlines()[0]} (quote what has spaces or brackets: 'KEY=\"a b\"')"
        ) from error
    if override.is_sweep_override() or override.is_delete() or override.is_add() or override.package is not None:
        raise LabError(f"--data {typed}: one value is evaluated at a time, as KEY=VALUE")
    return override.key_or_group, override.value()


def _accepted(data: dict[str, Any]) -> dict[str, Any]:
    """What the data module may be given by name, and the types it declares."""
    parameters = inspect.signature(class_of("data", data), eval_str=True).parameters.values()
    return {p.name: p.annotation for p in parameters if p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL}}


_PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null"}


def _is(value: Any, declared: Any) -> bool:
    """Whether a value is of a declared type, as far as that can be said; True where it cannot."""
    if get_origin(declared) in (Union, types.UnionType):
        return any(_is(value, each) for each in get_args(declared))
    if (get_origin(declared) or declared) in (os.PathLike, Path):
        return isinstance(value, str)
    if declared not in _PLAIN:
        return True
    if isinstance(value, bool):
        return declared is bool
    return isinstance(value, int | float if declared is float else declared)


def _named(declared: Any) -> str:
    options = get_args(declared) if get_origin(declared) in (Union, types.UnionType) else (declared,)
    return " or ".join(dict.fromkeys(_PLAIN.get(option, "a path") for option in options))


SPLITS = ("test", "val", "train")


@dataclass(frozen=True)
class EvaluationRequest:
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
            raise LabError(f"split must be {' or '.join(SPLITS)}, got {self.split!r}")


def open_run(look: EvaluationRequest) -> Experiment:
    """Build the run again, with the data that were asked for and the weights of the checkpoint.

    Raises:
        LabError: there is no run or no checkpoint, one of them is damaged, they do not belong together, or the data
            are not there.
    """
    folder = RunFolder(look.run)
    config = folder.read_config()
    checkpoint = find_checkpoint(folder, look.checkpoint)
    changed = parse(look.data, config["data"])
    found = with_found_data(folder, config["data"], changed)
    config = config | {"data": found | _from_home(config["data"], changed) | changed}
    experiment = lab.rebuild(folder, config)
    experiment.data.may_download = "dir" in changed
    if changed and look.split != "train":  # which is all that faults are of
        experiment.data.corrupt(())
        experiment.data.expected_manifest = None
    weights.load(experiment.learner, checkpoint)
    check_finite(experiment.learner, checkpoint)
    return experiment


def _from_home(data: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """What has to be fetched to a place that was named here comes from its home and is verified, unless said so too."""
    if "dir" not in changed or Path(str(changed["dir"]), cifar10_files.FOLDER).is_dir():
        return {}
    return {key: value for key, value in (("url", None), ("verify", True)) if key in data}


def reopen_network(run: Path, checkpoint: str) -> tuple[Learner, DataMetadata]:
    """Build the network of a run and its loss without the data, as far as the run kept what is needed of them.

    Raises:
        LabError: as `open_run` does; of data only where the run is an older one.
    """
    folder = RunFolder(run)
    config, content, path = folder.read_config(), folder.read_metadata(), find_checkpoint(folder, checkpoint)
    if content is None:
        return _with_data(EvaluationRequest(run, checkpoint=checkpoint))
    known = DataMetadata.from_json(content, folder.metadata)
    if folder.teacher.is_dir():
        config = teacher.taught_by(str(folder.teacher), config)
    loss = make_loss(config["loss"], known.spec.kind, known.spec.targets)
    if known.class_counts is not None:
        loss.set_class_counts(known.class_counts)
    network = make_network(config, known.spec, loss)
    learner = learner_for(known.spec.task)(network, loss, known.spec)
    weights.load(learner, path)
    check_finite(learner, path)
    return learner.eval(), known


def _with_data(look: EvaluationRequest) -> tuple[Learner, DataMetadata]:
    try:
        experiment = open_run(look)
        experiment.data.prepare_data()
        experiment.data.setup()
    except LabError as error:
        raise LabError(
            f"{look.run} is an older run, which kept no data.json, and its data are needed: {error}"
        ) from error
    return experiment.learner.eval(), experiment.data.metadata


def find_checkpoint(folder: RunFolder, name: str) -> Path:
    """The file of "best", "last" or a path.

    Raises:
        LabError: it is not there.
    """
    path = folder.checkpoint(name)
    if path.is_file():
        return path
    others = [str(each) for each in sorted(folder.best.parent.glob("*.ckpt"))]
    hint = f"there is {', '.join(others)}" if others else "the run saved none, train it again"
    raise LabError(f"no checkpoint at {path}: {hint}, or name a file with --ckpt PATH")


def with_found_data(folder: RunFolder, data: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
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
        raise LabError(f"no data here: data.dir={place} is not there. Say where they are: --data dir=FOLDER")
    home = folder.launch_dir
    if home is not None and (home / path).exists():
        return data | {"dir": str(home / path)}
    origin = f", and was relative to {home}" if home is not None and home != Path.cwd() else ""
    raise LabError(f"no data here: data.dir={place} is a relative path{origin}. Say where they are: --data dir=FOLDER")


def check_finite(network: nn.Module, path: Path) -> None:
    """Refuse weights by which nothing can be computed.

    Raises:
        LabError: one is NaN or infinite.
    """
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise LabError(
                f"{path} holds NaN or infinite values ({name}): the run diverged, evaluate another checkpoint"
            )

"""Reopens a finished run to evaluate, explain or export it: rebuilds its experiment with the trained weights."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from losslab.data import cifar10
from losslab.data.module import DataMetadata
from losslab.errors import LabError
from losslab.models.learner import Learner, learner_for
from losslab.runs import RunFolder
from losslab.training import instantiate, weights
from losslab.training.experiment import Experiment, rebuild
from losslab.training.network import make_network
from losslab.training.teacher import trusting, with_teacher

SPLITS = ("test", "val", "train")
RESPLITTING_OPTIONS = {"split_seed", "val_size", "data_seed", "subset"}
"""Data options that move examples between the training split and the held-out splits."""


@dataclass(frozen=True)
class EvaluationRequest:
    """A run, its weights, and a split of its data.

    Raises:
        LabError: the split does not exist.
    """

    run: Path
    """The run folder; a str is converted."""
    split: str = "test"
    """The split: test, val or train."""
    checkpoint: str = "best"
    """The checkpoint with the weights: best, last, or a path."""
    data: tuple[str, ...] = ()
    """Overrides of the run's data options, as KEY=VALUE."""
    trusted: tuple[str, ...] = ()
    """Packages that the user trusts, in addition to those that `losslab.runs.trust` allows."""

    def __post_init__(self) -> None:
        values = {"run": Path(self.run), "checkpoint": str(self.checkpoint), "trusted": tuple(self.trusted)}
        values |= {"data": (self.data,) if isinstance(self.data, str) else tuple(self.data)}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if self.split not in SPLITS:
            raise LabError(f"split must be {' or '.join(SPLITS)}, got {self.split!r}")

    @property
    def folder(self) -> RunFolder:
        """The run folder."""
        return RunFolder(self.run, self.trusted)


def reopen(request: EvaluationRequest) -> Experiment:
    """Build the experiment of a run with the requested data and weights, for this machine.

    The data are not read yet: `experiment.data.prepare_data()` and `setup()` read them.

    Raises:
        LabError: the run, the checkpoint or the data are missing or damaged, or do not match.
    """
    folder = request.folder
    config = folder.read_config()
    checkpoint = find_checkpoint(folder, request.checkpoint)
    overrides = parse_data_overrides(request.data, config["data"])
    data = locate_data(folder, config["data"], overrides)
    if "dir" in overrides and not cifar10.has_batches(Path(str(overrides["dir"]))):
        # The data may be downloaded into this folder: from their public source and verified, not from the run's URL.
        safe_options = {"url": None, "verify": True}
        data = data | {key: value for key, value in safe_options.items() if key in data}
    experiment = rebuild(folder, config | {"data": data | overrides})
    experiment.data.may_download = "dir" in overrides
    if overrides and request.split != "train":  # only the training split is corrupted, so other splits need no check
        experiment.data.corrupt(())
        experiment.data.expected_manifest = None
    weights.load(experiment.learner, checkpoint)
    weights.check_finite(experiment.learner, checkpoint)
    return experiment


def reopen_network(run: RunFolder | Path, checkpoint: str = "best") -> tuple[Learner, DataMetadata]:
    """Build the network and the loss of a run from its data.json, without its data.

    Raises:
        LabError: see `reopen`; the data are needed only if the run has no data.json.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    config, content = folder.read_config(), folder.read_metadata()
    path = find_checkpoint(folder, checkpoint)
    if content is None:
        try:
            experiment = reopen(EvaluationRequest(folder.path, checkpoint=checkpoint, trusted=folder.trusted))
            experiment.data.prepare_data()
            experiment.data.setup()
        except LabError as error:
            raise LabError(
                f"{folder.path} is a run of an early version without data.json, so its data are needed: {error}"
            ) from error
        return experiment.learner.eval(), experiment.data.metadata
    metadata = DataMetadata.from_json(content, folder.metadata)
    if folder.teacher.is_dir():
        config = with_teacher(str(folder.teacher), config)
    spec = metadata.spec
    with trusting(folder.trusted):
        loss = instantiate.make_loss(config["loss"], spec.kind, spec.targets, warn="metrics")
    if metadata.class_counts is not None:
        loss.set_class_counts(metadata.class_counts)
    learner = learner_for(spec.task)(make_network(config, spec, loss), loss, spec)
    weights.load(learner, path)
    weights.check_finite(learner, path)
    return learner.eval(), metadata


def find_checkpoint(folder: RunFolder, name: str) -> Path:
    """Return the path of a checkpoint, which may be "best", "last" or a path.

    Raises:
        LabError: the file does not exist.
    """
    path = folder.checkpoint(name)
    if path.is_file():
        return path
    if path.is_dir():
        return weights.find(path)
    others = [str(each) for each in sorted(folder.best.parent.glob("*.ckpt"))]
    hint = f"choose one with --ckpt, such as {', '.join(others)}" if others else "the run saved no checkpoint"
    raise LabError(f"no checkpoint at {path}: {hint}")


def locate_data(folder: RunFolder, data: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the data options with an existing `dir`, relative to the working directory or to that of the training run.

    Raises:
        LabError: the folder exists in neither of these directories.
    """
    configured = data.get("dir")
    if "dir" in overrides or not isinstance(configured, str):
        return data
    path, advice = Path(configured).expanduser(), "Set the folder of the data: --data dir=FOLDER"
    if path.exists():
        return data
    if path.is_absolute():
        raise LabError(f"no data found: data.dir={configured} does not exist. {advice}")
    launch_dir = folder.launch_dir
    if launch_dir is not None and (launch_dir / path).exists():
        return data | {"dir": str(launch_dir / path)}
    origin = f" or in {launch_dir}, where the run was started" if launch_dir not in (None, Path.cwd()) else ""
    raise LabError(f"no data found: data.dir={configured} does not exist in {Path.cwd()}{origin}. {advice}")


def parse_data_overrides(overrides: Sequence[str], data: dict[str, Any]) -> dict[str, Any]:
    """Parse overrides "KEY=VALUE" or "data.KEY=VALUE" of data options with the grammar of Hydra.

    Raises:
        LabError: an override cannot be parsed, or the data do not accept the option or the value.
    """
    if not overrides:
        return {}
    parameters = inspect.signature(instantiate.import_class("data", data), eval_str=True).parameters.values()
    named = [p for p in parameters if p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL}]
    accepted = {p.name: Any if p.annotation is p.empty else p.annotation for p in named}
    known = sorted({*(key for key in data if not key.startswith("_")), *accepted})
    values = {}
    for override in overrides:
        key, value = _parse_override(override)
        if key not in known:
            similar = get_close_matches(key, known)
            hint = f"did you mean {' or '.join(similar)}?" if similar else f"there are {', '.join(known)}"
            name = override.removeprefix("data.").partition("=")[0]
            raise LabError(f"--data {name}: these data have no such option; {hint}")
        text = override.partition("=")[2]
        if key in accepted and not instantiate.matches_annotation(value, accepted[key]):
            value = text if instantiate.matches_annotation(text, accepted[key]) else value  # a path such as 1e3
        if key in accepted and not instantiate.matches_annotation(value, accepted[key]):
            raise LabError(
                f"--data {override}: {key} must be {instantiate.describe_annotation(accepted[key])}, got {value!r}"
            )
        values[key] = value
    return values


def _parse_override(text: str) -> tuple[str, Any]:
    if "=" not in text:
        raise LabError(f"--data needs KEY=VALUE, as in --data dir=/somewhere: got {text}")
    try:
        override = OverridesParser.create().parse_override(text.removeprefix("data."))
    except HydraException as error:
        key, _, value = text.removeprefix("data.").partition("=")
        if key.isidentifier():
            return key, value  # a text with characters that are syntax for Hydra, such as # or é
        raise LabError(f"--data {text}: {key!r} is not the name of an option") from error
    if override.is_sweep_override() or override.is_delete() or override.is_add() or override.package is not None:
        raise LabError(f"--data {text}: only a single value is accepted, as KEY=VALUE")
    return override.key_or_group, override.value()

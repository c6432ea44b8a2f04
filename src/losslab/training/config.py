"""Keys of a configuration that nothing reads: most are misspelt.

What conf/ calls by name: ${run_path:...} and the like.

From a command line to a configuration.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from losslab import CONF, runs
from losslab.errors import LabError
from losslab.io import conf_groups
from losslab.io.metric_names import direction
from losslab.runs.renames import rename_targets
from losslab.training.distributed import environment, spawn

OWN = "notes"
"""Under which users may keep whatever they like."""
_READ = (
    "teacher",
    OWN,
    "hydra",
    "choices",
)  # the last is added when it is resolved, as a run of several processes is twice


def check(cfg: DictConfig, choices: Mapping[str, Any]) -> None:
    """Refuse a group that is none of the choices, and a key at the top that nothing reads.

    A key that another value refers to is read, and so is what a group of the user's own holds.

    Raises:
        LabError: it names what was meant, if that can be told.
    """
    for group in conf_groups.REQUIRED:
        if not isinstance(choices.get(group), str):
            raise LabError(f"{group} is not chosen: choose {group}={', '.join(conf_groups.choices(group))}")
    # As train.yaml names them: its own keys, and the groups of its defaults list.
    plain = OmegaConf.load(CONF / "train.yaml")
    groups = [str(next(iter(each))) for each in plain.defaults if isinstance(each, DictConfig)]
    known = [*(str(key) for key in plain if key != "defaults"), *groups]
    read = {*known, *choices, *_READ, *_referred_to(OmegaConf.to_container(cfg, resolve=False))}
    strange = [f"scheduler.{key}" for key in cfg.scheduler or {} if key not in ("interval", "scheduler")]
    if strange:
        raise LabError(f"{strange[0]} is set and nothing reads it: did you mean scheduler.{strange[0]}?")
    for key in map(str, cfg):
        if key not in read:
            alike = get_close_matches(key, [each for each in known if each.isidentifier()])
            meant = f"did you mean {alike[0]}?" if alike else f"keys of your own may stand under +{OWN}."
            raise LabError(f"{key} is set and nothing reads it: {meant}")


def _referred_to(value: Any) -> Iterator[str]:
    """The first names of all keys that values refer to, such as "lr" of ${lr} and ${oc.select:lr,1}."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _referred_to(each)
    elif isinstance(value, str) and "${" in value:
        yield from re.findall(r"[A-Za-z_]\w*", value)


def register() -> None:
    """Make them known to OmegaConf.

    Those that name folders are cached: Hydra asks more than once, and a name holds the time.
    """
    OmegaConf.register_new_resolver("run_path", _run_path, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("run_name", runs.default_name, replace=True)
    OmegaConf.register_new_resolver("sweep_path", _sweep_path, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("divisor", _divisor, replace=True)
    OmegaConf.register_new_resolver("on_first_rank", _on_first_rank, replace=True)
    OmegaConf.register_new_resolver("better", _better, replace=True)


def _divisor(of: int, at_most: int | None) -> int:
    """The greatest common divisor, so that what happens every so many epochs happens in the last one too."""
    return math.gcd(of, at_most) if isinstance(at_most, int) and at_most > 0 else of


def _on_first_rank(value: str, otherwise: str | None) -> str | None:
    """What only one of the processes of a run is to do, such as writing train.log."""
    return value if environment.current_rank().rank == 0 else otherwise


def _better(data: DictConfig, metric: str | None) -> str:
    """Whether an optimizer over runs has to "maximize" or "minimize" a metric; None for the data's own."""
    plain = OmegaConf.to_container(data, resolve=True)
    return f"{spawn.run_in_subprocess(_mode, plain, metric)}imize"


def _mode(data: dict[str, Any], metric: str | None) -> str:
    from losslab.models import metrics  # noqa: PLC0415
    from losslab.training import experiment  # noqa: PLC0415

    return direction(metric) if metric else metrics.monitor_mode(experiment.facts(data).task)


def _run_path(run_dir: str | None, name: str | None, *named_by: Any) -> str:
    def decide() -> str:
        job = environment.job_id()

        def named() -> str:
            return runs.default_run_dir(name or runs.default_name(*named_by), job)

        path = run_dir or (named() if job is not None else None)
        if path is not None and environment.is_restart() and Path(path).is_dir():
            return path  # this job's, from before
        # Claimed now, since Hydra writes into it before the task begins.
        return _claimed(run_dir, named, again=job is None)

    return environment.broadcast_decision(environment.current_rank(), decide)


def _sweep_path(run_dir: str | None, launcher: str) -> str:
    if environment.current_rank().world_size > 1:
        raise LabError("a sweep (-m) starts its processes itself: run it without torchrun or srun")
    if run_dir and launcher.endswith(".LosslabLauncher") and (Path(run_dir) / runs.SUMMARY).is_file():
        return run_dir  # to be completed
    path = _claimed(run_dir, runs.default_sweep_dir, runs.SUMMARY)
    sweeps.append(Path(path).absolute())
    return path


def _claimed(asked: str | None, named: Callable[[], str], first: str = "train.log", *, again: bool = True) -> str:
    """The folder that was asked for, or one of a new name: of another where a run of this second drew the same."""
    for chance in reversed(range(100)):
        path = asked or named()
        try:
            claimed.extend(runs.claim(Path(path), first))
        except runs.FolderTakenError:
            if asked or not again or not chance:
                raise
        else:
            return path
    raise AssertionError  # the last chance returns or raises


claimed: list[Path] = []
"""The folders that this process made for its run or sweep."""
sweeps: list[Path] = []
"""The folder of its sweep, if it runs one."""


def compose(overrides: Sequence[str], run_dir: str) -> dict[str, Any]:
    """What `python train.py OVERRIDES` would train in `run_dir`, for `experiment.build`: the way in from Python.

    Args:
        overrides: as on the command line, such as ["model=cifar_cnn", "loss.gamma=3"].
        run_dir: the run folder.
    """
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", list(overrides), return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    with open_dict(cfg):
        del cfg["hydra"]
    return resolve(cfg, choices, run_dir)


def resolve(cfg: DictConfig, choices: Mapping[str, str | None], run_dir: str) -> dict[str, Any]:
    """The configuration as plain containers that build again without Hydra.

    Beside what was composed it holds `choices`, the choice of each group, and `per_run`, the keys whose values follow
    from the seed, the name or the folder of the run: in these alone do runs differ that only repeat each other.

    Raises:
        LabError: a value that has no default was not given, or one refers to what is not there.
    """
    check(cfg, choices)
    for group in conf_groups.UNSET:
        chosen = OmegaConf.select(cfg, group)
        if chosen and "_target_" not in chosen:
            raise LabError(conf_groups.nothing_chosen(group, next(iter(chosen))))
    # First those at the top, to which others may refer: missing_keys() would stumble over these.
    missing = sorted(str(key) for key in cfg if OmegaConf.is_missing(cfg, key)) or sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise LabError(f"a value is missing: add {' '.join(f'{name}=...' for name in missing)}")
    _check_values(cfg)
    with open_dict(cfg):
        cfg.choices = {group: choices.get(group) for group in conf_groups.RECORDED}
        for group in conf_groups.CORRUPTIONS:
            if cfg.choices[group] == "none":
                cfg.choices[group] = None  # the same run, whichever way it was said
        cfg.run_dir = run_dir
        model, data, loss = (str(choices[group]) for group in ("model", "data", "loss"))
        cfg.name = cfg.name or runs.default_name(
            model, data, loss, cfg.seed, choices.get("imbalance"), choices.get("noise")
        )
    config: dict[str, Any] = rename_targets(_resolved(cfg))
    # The runs of a comparison are alike in all but these: to be told from the settings that differ on purpose.
    other = deepcopy(cfg)  # the processes of a run are handed the configuration itself
    with open_dict(other):
        other.seed, other.name, other.run_dir = cfg.seed + 1 if isinstance(cfg.seed, int) else None, f"{cfg.name}+", "+"
    return config | {"per_run": _differing(config, rename_targets(_resolved(other)))}


def _check_values(cfg: DictConfig) -> None:
    """Those at the top, which nothing is made of, and switches that Hydra takes for words."""
    for name in (
        "train",
        "test",
        "compile",
        "traceback",
        "examine",
        "optimizer.maximize",
        "data.verify",
        "data.flip",
        "data.reflect",
        "data.alternate",
    ):
        value = OmegaConf.select(cfg, name)
        if value is not None and not isinstance(value, bool):
            message = f"{name} must be true or false, got {value!r}"  # Hydra takes no and off for words
            raise LabError(message)
    if isinstance(cfg.name, int | float):
        cfg.name = str(cfg.name)  # name=1
    for name in ("name", "ckpt_path", "optimized_metric", "teacher"):
        value = OmegaConf.select(cfg, name)
        if not isinstance(value, str | None):
            raise LabError(f"{name} must be a word or null, got {value!r}")


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    try:
        config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        place = f" ({error.full_key})" if error.full_key else ""
        raise LabError(f"{str(error).splitlines()[0]}{place}") from error
    for key, text in _texts(config):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise LabError(f"{key} is set to {text!a}, which is no text in UTF-8: no file could hold it") from error
    return config


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """All words in a configuration, by their keys."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict | list):
        for name, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(each, f"{path}.{name}".lstrip("."))


def _differing(config: Any, other: Any, path: str = "") -> list[str]:
    """The keys of values that are not the same in two configurations of one shape, such as "data.seed"."""
    if isinstance(config, dict):
        return [key for name in config for key in _differing(config[name], other[name], f"{path}{name}.")]
    return [] if config == other else [path.rstrip(".")]

"""From a command line to a configuration."""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from losslab import CONF, resolvers, runs
from losslab.cli import strangers
from losslab.errors import LabError

OPEN_GROUPS = ("noise", "imbalance", "mix")
"""Of which none is chosen unless the command line does."""


def unchosen(group: str, key: str) -> str:
    """What to say of a value for one of these of which none was chosen."""
    choices = sorted(path.stem for path in (CONF / group).glob("*.yaml") if path.stem != "none")
    return f"{group}.{key} is set and no {group} is chosen: choose {group}={', '.join(choices)}"


def compose(overrides: Sequence[str], run_dir: str) -> dict[str, Any]:
    """What `python train.py OVERRIDES` would train in `run_dir`, for `experiment.build`: the way in from Python.

    Args:
        overrides: as on the command line, such as ["model=cifar_cnn", "loss.gamma=3"].
        run_dir: the run folder.
    """
    resolvers.register()
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
    strangers.check(cfg, choices)
    for group in OPEN_GROUPS:
        chosen = OmegaConf.select(cfg, group)
        if chosen and "_target_" not in chosen:
            raise LabError(unchosen(group, next(iter(chosen))))
    # First those at the top, to which others may refer: missing_keys() would stumble over these.
    missing = sorted(str(key) for key in cfg if OmegaConf.is_missing(cfg, key)) or sorted(OmegaConf.missing_keys(cfg))
    if missing:
        message = f"a value is missing: add {' '.join(f'{name}=...' for name in missing)}"
        raise LabError(message)
    _check_values(cfg)
    groups = ("model", "data", "loss", "imbalance", "noise", "optimizer", "scheduler", "trainer", "experiment", "debug")
    with open_dict(cfg):
        cfg.choices = {group: choices.get(group) for group in groups}
        for group in ("imbalance", "noise"):
            if cfg.choices[group] == "none":
                cfg.choices[group] = None  # the same run, whichever way it was said
        cfg.run_dir = run_dir
        model, data, loss = (str(choices[group]) for group in groups[:3])
        cfg.name = cfg.name or runs.name(model, data, loss, cfg.seed, choices.get("imbalance"), choices.get("noise"))
    config = _resolved(cfg)
    # The runs of a comparison are alike in all but these: to be told from the settings that differ on purpose.
    other = deepcopy(cfg)  # the processes of a run are handed the configuration itself
    with open_dict(other):
        other.seed, other.name, other.run_dir = cfg.seed + 1 if isinstance(cfg.seed, int) else None, f"{cfg.name}+", "+"
    return config | {"per_run": _differing(config, _resolved(other))}


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
            message = f"{name} must be a word or null, got {value!r}"
            raise LabError(message)


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    try:
        config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        place = f" ({error.full_key})" if error.full_key else ""
        message = f"{str(error).splitlines()[0]}{place}"
        raise LabError(message) from error
    for key, text in _texts(config):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"{key} is set to {text!a}, which is no text in UTF-8: no file could hold it"
            raise LabError(message) from error
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

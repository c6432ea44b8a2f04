"""Composes, checks and resolves configurations. Defines the resolvers that conf/ uses. Imports no torch."""

import contextlib
import logging
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException

from losslab import CONF, runs
from losslab.errors import LabError
from losslab.io import conf_groups
from losslab.io.metric_names import direction
from losslab.runs.config import choice_names
from losslab.runs.renames import rename_targets
from losslab.runs.trust import leaves
from losslab.training import interpolations
from losslab.training.distributed import environment, spawn

logger = logging.getLogger("losslab")
_EXTRA_KEYS = ("teacher", "notes", "choices")
"""Allowed keys that train.yaml lacks. `choices` is added by `resolve`, which a rank calls again with the result."""
_SWITCHES = (
    "train", "test", "compile", "traceback", "examine", "optimizer.maximize",
    "data.verify", "data.flip", "data.reflect", "data.alternate",
)  # fmt: skip
"""Keys whose values must be booleans: Hydra reads `no` and `off` as strings."""
_STRINGS = ("name", "ckpt_path", "optimized_metric", "teacher")
"""Keys whose values must be strings or null."""
_RETURN_SINGLE_VALUES = ("${divisor:", "${oc.env:")
"""Resolvers that return a number or a string, and no part of the configuration."""
_composing = threading.Lock()
"""Held while `compose` uses Hydra, of which a process has one."""


@dataclass
class ProcessContext:
    """The state of a training process: the folders that its resolvers created, and its sweep."""

    claimed: list[Path] = field(default_factory=list)
    """The folders that the process created for its run or sweep."""
    new_sweep_folder: Path | None = None
    """The folder that the process created for its sweep; None for a run, or if the sweep existed before."""
    sweep: Any = None
    """The `losslab.sweep.state.Sweep` that the process runs; None until its first job may start."""
    resumes: bool = False
    """Whether the process resumes the run in its folder."""
    command: list[str] = field(default_factory=list)
    """The command line of a study, as the user typed it; [] for other commands."""

    def run_path(self, run_dir: str | None, name: str) -> str:
        """Create and return the folder of a run, the same on all ranks."""
        job = environment.job_id()
        if run_dir:
            run_dir = str(Path(run_dir).expanduser())
        else:
            runs.check_name(name)

        def default() -> str:
            return runs.default_run_dir(name, job)

        def decide() -> str:
            # The default folder of a job is named by its id instead of the time, so a restarted job finds it again.
            path = run_dir or (default() if job is not None else None)
            if path is not None and environment.is_restart() and Path(path).is_dir():
                return path  # SLURM or torchrun has restarted this job
            return self._claim(run_dir, default, attempts=100 if job is None else 1)

        return environment.broadcast_decision(environment.current_rank(), decide)

    def sweep_path(self, run_dir: str | None, launcher: str) -> str:
        """Return the folder of a sweep: a new folder, or the existing folder of a sweep that is continued."""
        if environment.current_rank().world_size > 1:
            raise LabError("a sweep (-m) starts its processes itself: run it without torchrun or srun")
        run_dir = run_dir and str(Path(run_dir).expanduser())
        if run_dir and launcher.endswith(".LosslabLauncher") and (Path(run_dir) / runs.SUMMARY).is_file():
            return run_dir
        path = self._claim(run_dir, lambda: f"outputs/sweep-{runs.timestamp()}", runs.SUMMARY)
        self.new_sweep_folder = Path(path).absolute()
        return path

    def _claim(
        self, run_dir: str | None, default: Callable[[], str], first_file: str = "train.log", attempts: int = 100
    ) -> str:
        """Create `run_dir` or else a default folder, and return its path. If the default is taken, try the next one."""
        path = run_dir or default()
        try:
            self.claimed.extend(runs.claim(Path(path), first_file))
        except runs.FolderTakenError:
            if run_dir or attempts == 1:
                raise
            return self._claim(run_dir, default, first_file, attempts - 1)
        return path


def register(context: ProcessContext | None = None) -> None:
    """Register the resolvers that conf/ uses, such as ${run_path:...}. `context` records the folders that they create.

    Resolvers of folders are cached, because Hydra resolves them more than once and a default name contains the time.
    """
    context = context or ProcessContext()
    OmegaConf.register_new_resolver("run_path", context.run_path, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_path", context.sweep_path, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("divisor", _divisor, replace=True)
    OmegaConf.register_new_resolver("on_first_rank", _choose_by_rank, replace=True)
    OmegaConf.register_new_resolver("better", optimization_direction, replace=True)


@cache
def _warn_once(message: str) -> None:
    logger.warning("%s", message)


def _run_name(name: Any, *, _root_: DictConfig) -> str:
    """Return the name of a run: `name`, or the default name of the configuration that Hydra composed."""
    if name is not None and str(name):
        return str(name)
    runtime = _root_.hydra.runtime
    return default_run_name(_root_, runtime.choices, conf_groups.source_folders(runtime.config_sources))


def default_run_name(
    cfg: DictConfig,
    choices: Mapping[str, str | None],
    folders: tuple[Path, ...],
    plain: Mapping[str, Any] | None = None,
) -> str:
    """Return the default name of the run with a composed configuration. The arguments are those of `resolve`."""
    plain = to_plain(cfg) if plain is None else plain
    return runs.default_name(_choice_names(cfg, plain, choices, folders), cfg.seed)


def _choice_names(
    cfg: DictConfig, plain: Mapping[str, Any], choices: Mapping[str, str | None], folders: tuple[Path, ...]
) -> dict[str, str | None]:
    """Return `choice_names` of a configuration whose values may be missing or not be resolvable yet.

    `plain` is the configuration as plain containers with unresolved interpolations.
    """
    made: dict[str, Any] = {}
    for group in conf_groups.RECORDED:
        section = plain.get(group)
        if interpolations.is_interpolation(section) or _may_refer_to_targets(section, plain):
            selected = OmegaConf.select(cfg, group)
            if not isinstance(selected, DictConfig):
                continue
            try:
                section = OmegaConf.to_container(selected, resolve=True)
            except OmegaConfBaseException:
                section = OmegaConf.to_container(selected, resolve=False)
        if isinstance(section, dict):
            made[group] = section
    return choice_names(made, choices, folders)


def _may_refer_to_targets(section: Any, plain: Mapping[str, Any]) -> bool:
    """Return whether a section has a `_target_` that is an interpolation, or refers to a part that may have one."""
    return any(
        key.rpartition(".")[2] == "_target_" or interpolations.look_up(plain, value) is interpolations.NOT_FOUND
        for key, value in leaves(section)
        if interpolations.is_interpolation(value) and not value.startswith(_RETURN_SINGLE_VALUES)
    )


def _divisor(number: int, limit: int | None) -> int:
    """Return an interval (in epochs) that divides `limit`, so that it ends at the last epoch: gcd(number, limit)."""
    return math.gcd(number, limit) if isinstance(limit, int) and limit > 0 else number


def _choose_by_rank(value: str, otherwise: str | None) -> str | None:
    """Return `value` on rank 0 and `otherwise` on other ranks: only rank 0 writes train.log."""
    return value if environment.current_rank().rank == 0 else otherwise


def optimization_direction(data: DictConfig, metric: str | None) -> str:
    """Return "maximize" or "minimize" for a metric; None means the monitored metric of the data's task."""
    names = {"min": "minimize", "max": "maximize"}
    if metric:
        return names[direction(metric, "set hydra.sweeper.direction=minimize or maximize")]
    return names[spawn.run_in_subprocess(_monitor_mode, OmegaConf.to_container(data, resolve=True))]


def _monitor_mode(data: dict[str, Any]) -> str:
    from losslab.models import metrics  # noqa: PLC0415
    from losslab.training.instantiate import make  # noqa: PLC0415

    return metrics.monitor_mode(make("data", data).spec.task)


def compose(overrides: Sequence[str], run_dir: str) -> dict[str, Any]:
    """Compose and resolve the configuration of `python train.py OVERRIDES`, for `experiment.build`.

    `overrides` are, for instance, ["model=cifar_cnn", "loss.gamma=3"]. The run folder is not created.
    """
    with _own_hydra():
        register()
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose("train", list(overrides), return_hydra_config=True)
        runtime = cfg.hydra.runtime
        with open_dict(cfg):
            del cfg["hydra"]
        return resolve(cfg, runtime.choices, run_dir, conf_groups.source_folders(runtime.config_sources))


@contextlib.contextmanager
def _own_hydra() -> Iterator[None]:
    """Within this context, use Hydra and resolvers of our own. Restore those of the program afterwards."""
    with _composing:
        program, base = GlobalHydra.instance(), VersionBase.instance()
        hydra_before, version_before = program.hydra, base.version_base
        resolvers = BaseContainer._resolvers  # noqa: SLF001 -- OmegaConf has no public method to get a resolver
        before = dict(resolvers)
        program.clear()
        try:
            yield
        finally:
            program.hydra, base.version_base = hydra_before, version_before
            GlobalHydra.set_instance(program)  # Hydra has replaced it by a copy
            resolvers.clear()
            resolvers.update(before)


def resolve(
    cfg: DictConfig,
    choices: Mapping[str, str | None],
    run_dir: str,
    folders: tuple[Path, ...] = (CONF,),
    plain: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Resolve a composed configuration to plain containers, from which `experiment.build` builds a run.

    Two keys are added. `choices` maps each group to its choice, or to the class that replaces that of the choice (see
    `choice_names`, which gets `folders`). `per_run` lists the keys whose values depend on the seed, the name or the
    folder of the run. Runs that differ only in these keys are repetitions.

    `plain` is the result of `to_plain` for `cfg`, if it is known.

    Raises:
        LabError: a key is unknown, or a value is missing, wrong or refers to a key that does not exist.
    """
    plain = to_plain(cfg) if plain is None else plain
    values = [value for _, value in leaves(plain)]
    check_keys(cfg, choices, values)
    _warn_of_unread_files(tuple((group, name) for group, name in choices.items() if isinstance(name, str)), folders)
    for group in conf_groups.UNSET:
        chosen = interpolations.select(cfg, plain, group)
        if chosen and "_target_" not in chosen:
            raise LabError(conf_groups.unset_group_message(group, next(iter(chosen))))
    if "???" in values:
        # The top level first: missing_keys() fails if a nested value refers to a missing value at the top level.
        top = sorted(str(key) for key in cfg if OmegaConf.is_missing(cfg, key))
        missing = top or sorted(OmegaConf.missing_keys(cfg))
        if missing:
            raise LabError(f"a value is missing: add {' '.join(f'{name}=...' for name in missing)}")
    _check_values(cfg, plain)
    names = _choice_names(cfg, plain, choices, folders)
    seed, name = cfg.seed, _text(cfg.name) or runs.default_name(names, cfg.seed)
    config = _resolved(cfg, plain, choices=names, name=name, run_dir=run_dir)
    # Resolve it again with another seed, name and folder: the keys whose values differ belong to a single run.
    other_seed = seed + 1 if isinstance(seed, int) else None
    other = _resolved(cfg, plain, choices=names, seed=other_seed, name=f"{name}+", run_dir="+")
    return config | {"per_run": _differing_keys(config, other)}


def to_plain(cfg: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain containers with unresolved interpolations."""
    return OmegaConf.to_container(cfg, resolve=False)  # type: ignore[return-value]


def _text(name: Any) -> Any:
    """Return a name, as a string if it is a number."""
    return str(name) if isinstance(name, int | float) else name


@cache
def _warn_of_unread_files(choices: tuple[tuple[str, str], ...], folders: tuple[Path, ...]) -> None:
    """Log a warning for each file that Hydra does not read because a file of losslab has the same name."""
    for group, choice in choices:
        for unread in conf_groups.files_of(group, choice, folders)[1:]:
            _warn_once(f"{group}={choice} is a choice of losslab: {unread} is not read, rename it")


def check_keys(cfg: DictConfig, choices: Mapping[str, Any], values: Sequence[Any]) -> None:
    """Raise a LabError if a required group has no choice, or a key at the top level or of `scheduler` is never read.

    A key counts as read if an interpolation in one of the `values` of the configuration refers to it, or if it is a
    group that the user added.
    """
    for group in conf_groups.REQUIRED:
        if not isinstance(choices.get(group), str):
            if cfg.get(group):  # Hydra has merged several, as in loss=[mse,l1]
                raise LabError(f"{group} must be one choice: to train with each of several, type -m {group}=A,B")
            raise LabError(f"{group} is not chosen: choose {group}={', '.join(conf_groups.choices(group))}")
    for key in cfg.scheduler or {}:
        if key not in ("interval", "scheduler"):
            raise LabError(f"scheduler.{key} is set but never read: did you mean scheduler.scheduler.{key}?")
    known = [*_keys_of_train_yaml(), *conf_groups.NAMES]
    texts = filter(interpolations.is_interpolation, values)  # ${lr}, ${oc.select:lr,1}
    read = {*known, *choices, *_EXTRA_KEYS, *re.findall(r"[A-Za-z_]\w*", " ".join(texts))}
    for key in map(str, cfg):
        if key not in read:
            alike = get_close_matches(key, [each for each in known if each.isidentifier()])
            hint = f"did you mean {alike[0]}?" if alike else "put your own keys under notes, as in +notes.KEY=VALUE"
            raise LabError(f"{key} is set but never read: {hint}")


@cache
def _keys_of_train_yaml() -> tuple[str, ...]:
    return tuple(str(key) for key in OmegaConf.load(CONF / "train.yaml") if key != "defaults")


def _check_values(cfg: DictConfig, plain: Mapping[str, Any]) -> None:
    """Check the types of values that no constructor checks. A name may be a number."""
    for name in _SWITCHES:
        value = interpolations.select(cfg, plain, name)
        if value is not None and not isinstance(value, bool):
            raise LabError(f"{name} must be true or false, got {value!r}")
    for name in _STRINGS:
        value = interpolations.select(cfg, plain, name)
        if name == "name":
            value = _text(value)
        if not isinstance(value, str | None):
            raise LabError(f"{name} must be a string or null, got {value!r}")
        if value is not None and re.search(r"[\0-\x1f\x7f]", value):
            raise LabError(f"{name} contains a character that cannot be printed: {value!a}")


def _resolved(cfg: DictConfig, plain: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """Resolve a configuration with these values at the top level. Afterwards, `cfg` has its own values again."""
    changed = False

    def load() -> DictConfig:
        nonlocal changed
        if not changed:
            changed = True
            set_values(values)
        return cfg

    def set_values(new: Mapping[str, Any]) -> None:
        with open_dict(cfg):
            for key in values:
                if key in new:
                    cfg[key] = new[key]
                else:
                    del cfg[key]

    try:
        config = interpolations.resolve_all({**plain, **values}, load, {"divisor": _divisor})
    except OmegaConfBaseException as error:
        key = f" ({error.full_key})" if error.full_key else ""
        raise LabError(f"{str(error).splitlines()[0]}{key}") from error
    finally:
        if changed:
            set_values(plain)
    for key, value in reversed(list(leaves(config))):  # in the order of the configuration
        try:
            str(value).encode()
        except UnicodeEncodeError as error:
            raise LabError(f"{key} is set to {value!a}, which cannot be encoded in UTF-8: choose another") from error
    return dict(rename_targets(config))


def _differing_keys(config: Any, other: Any, path: str = "") -> list[str]:
    """Return the keys, such as "data.seed", whose values differ between two configurations with the same keys."""
    if isinstance(config, dict):
        return [key for name in config for key in _differing_keys(config[name], other[name], f"{path}{name}.")]
    return [] if config == other else [path.rstrip(".")]

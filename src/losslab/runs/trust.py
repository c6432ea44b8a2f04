"""Checks which `_target_`s and which paths an untrusted configuration may contain. Imports no torch.

Hydra imports and calls each `_target_` when it instantiates a configuration. So an untrusted configuration is first
checked as a whole: each `_target_` must be on the allow-list below, or in a package that the user trusts
(`--trust PACKAGE`, `trust=[PACKAGE]`).
"""

import inspect
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

from losslab.errors import LabError

_MODULES = {
    "losslab.losses": ("losslab.losses.base.Loss",),
    "losslab.models": ("torch.nn.Module",),
    "losslab.training.callbacks": ("lightning.pytorch.callbacks.Callback",),
    "losslab.analysis.dynamics.callback": ("lightning.pytorch.callbacks.Callback",),
    "losslab.data": ("losslab.data.module.ExperimentDataModule", "losslab.data.corruption.base.Corruption"),
    "torch.nn.modules": ("torch.nn.Module",),
    "torch.optim": ("torch.optim.Optimizer", "torch.optim.lr_scheduler.LRScheduler"),
    "lightning.pytorch.callbacks": ("lightning.pytorch.callbacks.Callback",),
    "torch.nn.functional": (),
    "torchmetrics.classification": ("torchmetrics.Metric",),
    "torchmetrics.regression": ("torchmetrics.Metric",),
}
"""Maps a module to base classes. Its public classes derived from these are allowed; for (), its public functions."""

_NAMES = frozenset({
    "lightning.Trainer",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.loggers.CSVLogger",
    "lightning.pytorch.loggers.TensorBoardLogger",
    "lightning.pytorch.loggers.csv_logs.CSVLogger",
    "lightning.pytorch.loggers.tensorboard.TensorBoardLogger",
    "losslab.data.transforms.Mix",
    "losslab.data.transforms.RandomShift",
    "losslab.losses.imbalance.balanced",
    "losslab.losses.imbalance.effective_number",
    "losslab.models.cnn.cifar_cnn",
    "losslab.models.linear.linear",
    "losslab.models.linear.mlp",
    "losslab.models.cnn.resnet18",
    "losslab.training.teacher.network_of",
    "losslab.training.loggers.RunLogger",
    "torch.tensor",
    "torchvision.transforms.v2.CutMix",
    "torchvision.transforms.v2.MixUp",
})  # fmt: skip
"""Further functions and classes that are allowed.

Loggers that send data to servers are not listed, nor are metrics for text and images, which download models.
"""
_ALIASES = {
    "torch.nn": ("torch.nn.modules",),
    "torchmetrics": ("torchmetrics.classification", "torchmetrics.regression"),
}
"""Maps modules to those of `_MODULES` whose names they re-export."""
_LIBRARIES = frozenset({"builtins", "losslab", "torch", "torchvision", "torchmetrics", "lightning", "numpy", "hydra"})
"""Messages never suggest to trust one of these packages as a whole."""
_TRUSTABLE_BY_NAME = ("lightning.pytorch.loggers.", "torchmetrics.")
"""Prefixes of names in these packages that a message suggests to trust one by one."""
_DOTTED_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_MAX_DEPTH = 50

_PATH_KEY = re.compile(r"(^|_)(dir|path|file|folder|root|location)s?(_|$)|(dir|path|file)s?$")
_ADDRESS = re.compile(r"^\s*~|://|::|\0")
_ABSOLUTE = re.compile(r"^[/\\]|^[A-Za-z]:")
_FIELD = r"\{\w+(?:/\w+)*(?::[0-9.]*[dfeg])?\}"
_FILENAME = re.compile(rf"(?!.*\.\.)(?:[\w.=+,@ -]|{_FIELD})*", re.ASCII)
"""A template that is a plain file name for all values of its fields. `{epoch:c}` is not: it may be a dot or a slash."""
_WRITES_BY_DEFAULT = {"SpikeDetection": "exclude_batches_path"}
"""Callbacks that write to the working directory unless an option sets another path: class name → name of the option."""


def parse_packages(packages: object) -> tuple[str, ...]:
    """Validate the packages or modules to trust, such as "timm" or ["timm", "my_package.losses"]; None means none.

    Raises:
        LabError: a name is not a dotted name.
    """
    names = [packages] if isinstance(packages, str) else packages or ()
    if not isinstance(names, Iterable) or not all(
        isinstance(name, str) and _DOTTED_NAME.fullmatch(name) for name in names
    ):
        raise LabError(f"trust needs names of packages, as in trust=[my_package], got {packages!r}")
    return tuple(names)


def is_trusted(target: str, trusted: Collection[str]) -> bool:
    """Return whether a dotted name is the name of a trusted package or module, or of something in one."""
    return any(target == package or target.startswith(f"{package}.") for package in trusted)


def check_targets(config: Any, source: Path, trusted: Collection[str] = ()) -> None:
    """Check that each `_target_` in a resolved configuration is on the allow-list or in a trusted package.

    Raises:
        LabError: a `_target_` is not allowed, or the configuration contains an interpolation or is nested too deeply.
            The message names `source`, the file of the configuration.
    """
    for key, value in leaves(config):
        if isinstance(value, str) and "${" in value:
            raise LabError(f"{source}: {key} contains an interpolation, which is not allowed: nothing was instantiated")
        if key.rpartition(".")[2] == "_target_":
            problem = _target_problem(value, trusted)
            if problem is not None:
                raise LabError(f"{source}: {key} {problem}")


def packages_to_trust(config: Any) -> list[str]:
    """Return the packages, or single names, that the user must trust to reopen a run with this configuration."""
    targets = (str(value) for key, value in leaves(config) if key.rpartition(".")[2] == "_target_")
    return sorted({_package_of(target) for target in targets if not _is_listed(target)})


def leaves(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for each leaf and each `_target_`. A key that contains `${` is also yielded as a value.

    Raises:
        LabError: the configuration is nested too deeply.
    """
    waiting: list[tuple[str, Any, int]] = [("", config, 0)]
    while waiting:
        key, value, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise LabError(
                f"a configuration is nested deeper than {_MAX_DEPTH} levels at {key[:80]}...: nothing was instantiated"
            )
        if key.rpartition(".")[2] == "_target_" or not isinstance(value, dict | list | tuple):
            yield key, value
        if isinstance(value, dict):
            yield from ((f"{key}.{name}"[:80].lstrip("."), f"{name}") for name in value if "${" in str(name))
            waiting += [(f"{key}.{name}".lstrip("."), each, depth + 1) for name, each in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{key}.{index}".lstrip("."), each, depth + 1) for index, each in enumerate(value)]


def _target_problem(target: Any, trusted: Collection[str]) -> str | None:
    """Return why a `_target_` is not allowed; None if it is allowed."""
    if not isinstance(target, str) or not _DOTTED_NAME.fullmatch(target):
        return f"is not a dotted name ({ascii(target)[:60]}): nothing was instantiated"
    if is_trusted(target, trusted) or _is_listed(target):
        return None
    package = target.partition(".")[0]
    if package in sys.stdlib_module_names or (package in _LIBRARIES and not target.startswith(_TRUSTABLE_BY_NAME)):
        return f"is {target}, which is not on the allow-list (docs/reliability.md): nothing was instantiated"
    option = f"--trust {_package_of(target)}, or for train.py trust=[{_package_of(target)}]"
    return f"is {target}, which losslab does not know: nothing was instantiated. If you trust it, add {option}"


def _package_of(target: str) -> str:
    """Return what to trust for a `_target_`: its package, or the `_target_` itself if it is in one of `_LIBRARIES`."""
    package = target.partition(".")[0]
    return target if package in _LIBRARIES else package


@cache
def _is_listed(target: str) -> bool:
    """Return whether a name is on the allow-list. This imports only modules on the list and their base classes."""
    if target in _NAMES:
        return True
    from hydra.utils import get_class, get_object  # noqa: PLC0415 -- slow to import, and not needed to compare runs

    module, _, name = target.rpartition(".")
    packages = _ALIASES.get(module) or tuple(each for each in _MODULES if f"{module}.".startswith(f"{each}."))
    if not packages or name.startswith("_"):
        return False
    try:
        value = vars(import_module(module)).get(name)
    except Exception:  # noqa: BLE001 -- the import of a module may raise anything
        return False
    defined_in = f"{getattr(value, '__module__', '')}."
    package = next((each for each in packages if defined_in.startswith(f"{each}.")), None)
    if package is None:
        return False  # the module only imports it from elsewhere
    bases = tuple(map(get_class, _MODULES[package]))
    allowed = isinstance(value, type) and issubclass(value, bases) if bases else inspect.isfunction(value)
    return allowed and get_object(target) is value


def is_path_key(key: str) -> bool:
    """Return whether the name of an option says that its value is a path, such as run_dir or dirpath."""
    return bool(_PATH_KEY.search(key))


def is_address(text: str) -> bool:
    """Return whether libraries may interpret a string as a URL or as a path in the home folder: `local://~/file`."""
    return bool(_ADDRESS.search(text))


def has_parent_reference(text: str) -> bool:
    """Return whether a path contains `..`."""
    return ".." in PurePath(text.replace("\\", "/")).parts


def check_write_paths(config: dict[str, Any], folder: Path, trusted: Collection[str] = ()) -> None:
    """Check that the callbacks and loggers of a configuration write only below `folder`, which need not exist yet.

    Raises:
        LabError: an option is a path outside of the folder, or a URL. Options of trusted classes are not checked.
    """
    run_dir, root = config.get("run_dir"), folder.resolve()
    if not isinstance(run_dir, str):
        raise LabError(f"{folder}: its run_dir is not a path: nothing was instantiated")
    for group in ("callbacks", "logger"):
        for name, options in (config.get(group) or {}).items():
            target = options.get("_target_") if isinstance(options, dict) else None
            if not isinstance(options, dict) or is_trusted(str(target), trusted):
                continue
            # An option that defaults to the working directory is checked as "." if it is not set.
            option = _WRITES_BY_DEFAULT.get(str(target).rpartition(".")[2])
            unset = [(option, ".")] if option is not None and options.get(option) is None else []
            for key, value in [*leaves(options), *unset]:
                if not _stays_below(key.split("."), value, run_dir, root):
                    raise LabError(
                        f"{group}.{name}.{key} is outside of the run folder ({ascii(value)[:80]}): "
                        f"nothing was instantiated. If this is intended, add trust=[{target}]"
                    )


def _stays_below(keys: list[str], value: Any, run_dir: str, root: Path) -> bool:
    """Return whether this value of an option of a callback or logger leads only to writes below `root`."""
    if value is None or value == run_dir:
        return True
    if isinstance(value, str) and is_address(value):
        return False
    if "filename" in keys:
        return isinstance(value, str) and bool(_FILENAME.fullmatch(value))
    is_path = any(map(is_path_key, keys)) or "_args_" in keys
    if not is_path and not (isinstance(value, str) and (_ABSOLUTE.search(value) or has_parent_reference(value))):
        return True
    return isinstance(value, str) and Path(value).resolve().is_relative_to(root)

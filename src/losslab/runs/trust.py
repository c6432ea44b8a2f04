"""Which names and texts that somebody handed over stand for a file or a folder.

What the configuration of a run that somebody hands over may name.

A configuration names what is to be made (`_target_`), and whoever makes it imports and calls that. So the whole of it
is looked at before anything of it is made, and before anything is imported but the libraries named here.

Where a run that somebody handed over may write when it goes on: into its folder.
"""

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

from hydra.utils import get_object

from losslab.errors import LabError
from losslab.io.untrusted import check_folder as refuse_links

_PLACE = re.compile(r"(^|_)(dir|path|file|folder|root|location)s?(_|$)|(dir|path|file)s?$")
_NO_PATH = re.compile(r"^\s*~|://|::|\0")


def names_a_place(key: str) -> bool:
    """Whether a name such as run_dir, dirpath or exclude_batches_path is one of a file or a folder."""
    return bool(_PLACE.search(key))


def is_an_address(text: str) -> bool:
    """Whether a text is no path to us, and is one, or an address, to libraries: `local://~/Documents`."""
    return bool(_NO_PATH.search(text))


def goes_up(text: str) -> bool:
    """Whether it is a path that leaves a folder for the one above."""
    return ".." in PurePath(text.replace("\\", "/")).parts


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
"""What is defined in them and below them may be named, if it is a class on one of these; where none is, functions."""

_NAMES = frozenset({
    "lightning.Trainer",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.loggers.CSVLogger",
    "lightning.pytorch.loggers.TensorBoardLogger",
    "lightning.pytorch.loggers.csv_logs.CSVLogger",
    "lightning.pytorch.loggers.tensorboard.TensorBoardLogger",
    "losslab.data.transforms.Mix",
    "losslab.data.transforms.RandomShift",
    "losslab.losses.class_weights.balanced",
    "losslab.losses.class_weights.effective_number",
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
"""What may be named besides: functions that make networks and weights, and classes on nothing in particular.

Of the loggers those that write files alone; others speak to servers, as metrics of texts and images fetch networks.
"""
_SHORT = {"torch.nn": ("torch.nn.modules",), "torchmetrics": ("torchmetrics.classification", "torchmetrics.regression")}
"""Modules in which those of others are named too."""

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_DEEPEST = 50
_own: set[str] = set()


def also(packages: object) -> None:
    """Trust packages or modules, and what lies below them, for as long as this process lives.

    Args:
        packages: a name such as "timm" or "my_package.losses", or several; None for none.

    Raises:
        LabError: one is no name.
    """
    several = [packages] if isinstance(packages, str) else packages or ()
    if not isinstance(several, Iterable) or not all(isinstance(one, str) and _DOTTED.fullmatch(one) for one in several):
        raise LabError(f"trust takes names of packages, as in trust=[my_package]: got {packages!r}")
    _own.update(several)


def said() -> list[str]:
    """What somebody here said is to be trusted: for `also` in another process."""
    return sorted(_own)


def named(text: str) -> list[str]:
    """The packages that `trust=[a,b]` of a command line names, given what stands after the equals sign."""
    return [name.strip() for name in text.removeprefix("[").removesuffix("]").split(",") if name.strip()]


def check(config: Any, source: Path) -> None:
    """See that a configuration names nothing but what is on the list, anywhere in it.

    Args:
        config: resolved, as config.json holds it.
        source: the file it was read from, for the message.

    Raises:
        LabError: it names something else, or something that is no name; it holds what would be resolved to something
            else when it is made; or it is nested deeper than any configuration.
    """
    for place, value in leaves(config):
        if isinstance(value, str) and "${" in value:
            raise LabError(
                f"{source}: {place} holds an interpolation, which no resolved configuration does: nothing is made"
            )
        if place.rpartition(".")[2] == "_target_":
            wrong = _wrong(value)
            if wrong is not None:
                raise LabError(f"{source}: {place} {wrong}")


def untrusted(config: Any) -> list[str]:
    """The packages that `trust` must name for a run of this configuration to be opened again."""
    found = (str(value) for place, value in leaves(config) if place.rpartition(".")[2] == "_target_")
    return sorted({_to_trust(name) for name in found if name not in _NAMES and not _defined(name)})


def leaves(config: Any) -> Iterator[tuple[str, Any]]:
    """The dotted place and the value of all in a tree that is no container; of _target_ and of strange keys always.

    Raises:
        LabError: it is nested deeper than any configuration.
    """
    waiting: list[tuple[str, Any, int]] = [("", config, 0)]
    while waiting:
        place, value, depth = waiting.pop()
        if depth > _DEEPEST:
            raise LabError(
                f"a configuration is nested more than {_DEEPEST} deep at {place[:80]}...: nothing is made of it"
            )
        named = place.rpartition(".")[2] == "_target_"
        if named or not isinstance(value, dict | list | tuple):
            yield place, value
        if isinstance(value, dict):
            yield from ((f"{place}.{key}"[:80].lstrip("."), f"{key}") for key in value if "${" in str(key))
            waiting += [(f"{place}.{key}".lstrip("."), each, depth + 1) for key, each in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(f"{place}.{at}".lstrip("."), each, depth + 1) for at, each in enumerate(value)]


def _wrong(target: Any) -> str | None:
    """What is wrong with a name; None if it may be made."""
    if not isinstance(target, str) or not _DOTTED.fullmatch(target):
        return f"is no dotted name but {ascii(target)[:60]}: nothing is made"
    if _listed(target):
        return None
    package = target.partition(".")[0]
    if package in sys.stdlib_module_names or (package in _KNOWN and not target.startswith(_REACHES_OUT)):
        return f"names {target}, which is not among what runs may name (docs/reliability.md): nothing is made"
    how = f"--trust {_to_trust(target)}, or trust=[{_to_trust(target)}] of train.py"
    return f"names {target}, which losslab does not know: nothing is made. If you know and trust it, add {how}"


def _to_trust(target: str) -> str:
    """What to trust so that a name may be made: its package, and of what losslab is made of that name alone."""
    package = target.partition(".")[0]
    return target if package in _KNOWN else package


def _listed(target: str) -> bool:
    return trusted(target) or target in _NAMES or _defined(target)


def trusted(target: str) -> bool:
    """Whether somebody here said that a name is to be trusted."""
    return any(target == own or target.startswith(f"{own}.") for own in _own)


@cache
def _defined(target: str) -> bool:
    """Whether it is a public class, of a kind and in a module that are on the list; imports that module alone."""
    module, _, name = target.rpartition(".")
    homes = _SHORT.get(module) or tuple(home for home in _MODULES if f"{module}.".startswith(f"{home}."))
    if not homes or name.startswith("_"):
        return False
    try:
        found = vars(import_module(module)).get(name)
    except Exception:  # noqa: BLE001 -- whatever importing it raises: it is not there
        return False
    defined_in = f"{getattr(found, '__module__', '')}."
    home = next((home for home in homes if defined_in.startswith(f"{home}.")), None)
    if home is None:
        return False  # it was only imported there
    kinds = tuple(map(_class, _MODULES[home]))
    fits = isinstance(found, type) and issubclass(found, kinds) if kinds else inspect.isfunction(found)
    return fits and get_object(target) is found


def _class(path: str) -> type:
    module, _, name = path.rpartition(".")
    found: type = getattr(import_module(module), name)
    return found


_KNOWN = frozenset({"builtins", "losslab", "torch", "torchvision", "torchmetrics", "lightning", "numpy", "hydra"})
"""Packages that nobody is advised to trust as a whole."""
_REACHES_OUT = ("lightning.pytorch.loggers.", "torchmetrics.")
"""Of these, what one may want to trust by its name."""


_LEADS_AWAY = re.compile(r"^[/\\]|^[A-Za-z]:")
_FIELD = r"\{\w+(?:/\w+)*(?::[0-9.]*[dfeg])?\}"
_FILENAME = re.compile(rf"(?!.*\.\.)(?:[\w.=+,@ -]|{_FIELD})*", re.ASCII)
"""What is no path, whatever values are filled in: `{epoch:c}` could be a dot or a slash."""
_UNSAID = {"SpikeDetection": "exclude_batches_path"}
"""Without this option it writes into the working directory."""


def confine(config: dict[str, Any], folder: Path) -> None:
    """See that callbacks and loggers which are to run again write into the folder of their run alone.

    Lightning's ModelCheckpoint removes what a checkpoint says it once wrote, below the folder that it is given.

    Raises:
        LabError: one is given a folder elsewhere, or an address; or something in the folder is a link that
            leads elsewhere, or a pipe.
    """
    confine_options(config, folder)
    refuse_links(folder)


def confine_options(config: dict[str, Any], folder: Path) -> None:
    """See that callbacks and loggers write into a folder, which need not be there yet.

    Raises:
        LabError: one is given a folder elsewhere, or an address.
    """
    old, home = config.get("run_dir"), folder.resolve()
    if not isinstance(old, str):
        raise LabError(f"{folder}: its run_dir is no path: nothing is made")
    for group in ("callbacks", "logger"):
        for name, part in (config.get(group) or {}).items():
            if isinstance(part, dict) and not trusted(str(part.get("_target_"))):
                _confine(f"{group}.{name}", part, old, home)


def _confine(name: str, part: dict[str, Any], old: str, home: Path) -> None:
    for place, value in [*leaves(part), *_unsaid(part)]:
        if not _stays(place.split("."), value, old, home):
            where = f"{name}.{place} leads out of the run folder ({ascii(value)[:80]})"
            raise LabError(f"{where}: nothing is made. If you mean it, add trust=[{part.get('_target_')}]")


def _unsaid(part: dict[str, Any]) -> list[tuple[str, str]]:
    """The option that leads away where it is left out, as if it were given."""
    option = _UNSAID.get(str(part.get("_target_")).rpartition(".")[2])
    return [(option, ".")] if option is not None and part.get(option) is None else []


def _stays(keys: list[str], value: Any, old: str, home: Path) -> bool:
    """Whether what is written by an option lies in the run folder."""
    if value is None or value == old:
        return True
    if isinstance(value, str) and is_an_address(value):
        return False
    if "filename" in keys:
        return isinstance(value, str) and bool(_FILENAME.fullmatch(value))
    away = any(map(names_a_place, keys)) or "_args_" in keys
    if not away and not (isinstance(value, str) and (_LEADS_AWAY.search(value) or goes_up(value))):
        return True
    return isinstance(value, str) and Path(value).resolve().is_relative_to(home)

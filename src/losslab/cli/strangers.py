"""Keys of a configuration that nothing reads: most are misspelt."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf

from losslab import CONF
from losslab.errors import LabError

OWN = "notes"
"""Under which users may keep whatever they like."""
_READ = (
    "teacher",
    OWN,
    "hydra",
    "choices",
)  # the last is added when it is resolved, as a run of several processes is twice
_GROUPS = ("model", "data", "loss", "optimizer", "scheduler", "trainer")


def check(cfg: DictConfig, choices: Mapping[str, Any]) -> None:
    """Refuse a group that is none of the choices, and a key at the top that nothing reads.

    A key that another value refers to is read, and so is what a group of the user's own holds.

    Raises:
        LabError: it names what was meant, if that can be told.
    """
    for group in _GROUPS:
        if not isinstance(choices.get(group), str):
            message = f"{group} is not chosen: choose {group}={', '.join(_choices(group))}"
            raise LabError(message)
    # As train.yaml names them: its own keys, and the groups of its defaults list.
    plain = OmegaConf.load(CONF / "train.yaml")
    groups = [str(next(iter(each))) for each in plain.defaults if isinstance(each, DictConfig)]
    known = [*(str(key) for key in plain if key != "defaults"), *groups]
    read = {*known, *choices, *_READ, *_referred_to(OmegaConf.to_container(cfg, resolve=False))}
    strange = [f"scheduler.{key}" for key in cfg.scheduler or {} if key not in ("interval", "scheduler")]
    if strange:
        message = f"{strange[0]} is set and nothing reads it: did you mean scheduler.{strange[0]}?"
        raise LabError(message)
    for key in map(str, cfg):
        if key not in read:
            alike = get_close_matches(key, [each for each in known if each.isidentifier()])
            meant = f"did you mean {alike[0]}?" if alike else f"keys of your own may stand under +{OWN}."
            message = f"{key} is set and nothing reads it: {meant}"
            raise LabError(message)


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _referred_to(value: Any) -> Iterator[str]:
    """The first names of all keys that values refer to, such as "lr" of ${lr} and ${oc.select:lr,1}."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _referred_to(each)
    elif isinstance(value, str) and "${" in value:
        yield from re.findall(r"[A-Za-z_]\w*", value)

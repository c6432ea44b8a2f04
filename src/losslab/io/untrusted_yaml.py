"""What Hydra wrote into a run folder, read without trusting it: plain containers, nothing resolved."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from losslab.io.untrusted import read_text

_LONGEST = 1 << 18
_BRACKETS = 1000
_KEYS = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_REFERENCE = re.compile(rf"\$\{{({_KEYS})\}}")
_KNOWN = re.compile(r"\$\{(?:divisor:\d+,(?:\d+|null|-)|oc\.env:LOSSLAB_DATA,[\w./-]+)\}")


def read_yaml(path: Path) -> Any:
    """The content of a YAML file without aliases, by which a small file can stand for any number of things.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file.
    """
    import yaml  # noqa: PLC0415 -- as below
    from omegaconf import OmegaConf  # noqa: PLC0415 -- nobody else who reads run folders needs it
    from omegaconf.errors import OmegaConfBaseException  # noqa: PLC0415

    text = read_text(path, _LONGEST)
    if text.count("[") + text.count("{") > _BRACKETS:  # each within the other, they take the parser for ever
        raise ValueError(f"{path} holds more brackets than Hydra writes")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError(f"{path} holds an alias, which Hydra writes none of")
        return OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ValueError(f"{path} is no YAML ({' '.join(str(error).split())[:100]})") from error


def strange(tree: Any, value: Any = None) -> str | None:
    """A text of a composed configuration that could come to anything when it is resolved; None where there is none.

    It may refer to a single value of its own, and call `divisor` and `oc.env:LOSSLAB_DATA` as conf/ does, once a text.
    """
    value = tree if value is None else value
    if isinstance(value, Mapping):
        found = (key for key in value if "${" in str(key))
        return next((str(key) for key in found), None) or _first(tree, value.values())
    if isinstance(value, list):
        return _first(tree, value)
    return None if not isinstance(value, str) or _is_plain(tree, value) else value


def _first(tree: Any, values: Any) -> str | None:
    return next((found for each in values if each is not None and (found := strange(tree, each)) is not None), None)


def _is_plain(tree: Any, text: str) -> bool:
    references = _REFERENCE.findall(text)
    left = _REFERENCE.sub("-", text)
    calls = _KNOWN.findall(left)
    whole = "${" not in _KNOWN.sub("", left)
    return (
        whole and len(references) <= 1 and len(calls) <= 1 and not any(_is_container(tree, key) for key in references)
    )


def _is_container(tree: Any, dotted: str) -> bool:
    place = tree
    for key in dotted.split("."):
        place = place.get(key) if isinstance(place, Mapping) else None
    return isinstance(place, Mapping | list)

"""Short names for runs that are looked at together. Imports no torch."""

from collections.abc import Iterator, Sequence
from typing import Any

_GROUPS = ("loss", "optimizer", "scheduler", "model", "data", "noise", "mix", "seed", "trainer")
_MOST = 3


def labels(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Each run's loss, and of runs of one loss the settings that tell them apart: "huber, delta 0.1, seed 1"."""
    names = _told_apart(configs, _GROUPS)
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]


def losses(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Each run's loss; of losses of one name the settings that tell them apart too: "huber, delta 0.1"."""
    return _told_apart(configs, ("loss",))


def settings(config: dict[str, Any], groups: Sequence[str] = _GROUPS) -> Iterator[tuple[str, Any]]:
    """All plain settings by their dotted names, but for those that follow from the seed or the run's name."""
    follow = set(config.get("per_run") or ()) - {"seed"}
    for group in groups:
        for key, value in _leaves(group, config.get(group)):
            if key not in follow:
                yield key, value


def _told_apart(configs: Sequence[dict[str, Any]], groups: Sequence[str]) -> list[str]:
    plain = [_loss(config) for config in configs]
    owned = [dict(settings(config, groups)) for config in configs]
    names = []
    for loss, own in zip(plain, owned, strict=True):
        alike = [other for name, other in zip(plain, owned, strict=True) if name == loss]
        differ = [key for key in own if any(other.get(key) != own[key] for other in alike)]
        names.append(", ".join([loss, *(f"{key.removeprefix('loss.')} {own[key]}" for key in differ[:_MOST])]))
    return names


def _loss(config: dict[str, Any]) -> str:
    choice: str = config["choices"]["loss"]
    return str(config["loss"]["_target_"]).rpartition(".")[2] if choice == "custom" else choice


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value

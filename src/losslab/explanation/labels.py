"""Short names for runs that are looked at together. Imports no torch."""

from collections.abc import Iterator, Sequence
from typing import Any


def labels(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Each run's loss, and of runs of one loss the settings that tell them apart: "huber, loss.delta 0.1, seed 1"."""
    losses = [_loss(config) for config in configs]
    settings = [dict(_settings(config)) for config in configs]
    names = []
    for loss, own in zip(losses, settings, strict=True):
        alike = [other for name, other in zip(losses, settings, strict=True) if name == loss]
        differ = [key for key in own if any(other.get(key) != own[key] for other in alike)]
        names.append(", ".join([loss, *(f"{key.removeprefix('loss.')} {own[key]}" for key in differ[:_MOST])]))
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]


_MOST = 3


def _loss(config: dict[str, Any]) -> str:
    choice: str = config["choices"]["loss"]
    return str(config["loss"]["_target_"]).rpartition(".")[2] if choice == "custom" else choice


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """All plain settings by their dotted names, but for those that follow from the seed or the run's name."""
    follow = set(config.get("per_run", ())) - {"seed"}
    for group in ("loss", "optimizer", "scheduler", "model", "data", "seed", "trainer"):
        for key, value in _leaves(group, config.get(group)):
            if key not in follow:
                yield key, value


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value

"""What the config.json of a run must hold."""

from collections.abc import Iterator
from typing import Any

_SETTINGS = ("data", "loss", "model", "optimizer", "scheduler", "trainer", "choices")
_MADE = ("data", "loss", "model", "optimizer", "trainer")
_OPTIONAL = ("callbacks", "logger", "imbalance", "noise", "mix")


def amiss(config: Any) -> str | None:
    """What keeps this from being the configuration of a run; None if nothing that is seen from here does."""
    return next(_complaints(config), None)


def _complaints(config: Any) -> Iterator[str]:
    """Each looks only at what those before it have found to be there."""
    if not isinstance(config, dict):
        yield "it holds no settings by name"
    lacking = [key for key in ("seed", "name", *_SETTINGS) if key not in config]
    if lacking:
        yield f"it lacks {', '.join(lacking)}"
    plain = [key for key in _SETTINGS if not isinstance(config[key], dict)]
    plain += [key for key in _OPTIONAL if not isinstance(config.get(key), dict | None)]
    yield from (f"its {key} holds no settings by name" for key in plain)
    unnamed = (key for key in _MADE if not isinstance(config[key].get("_target_"), str))
    yield from (f"its {key} does not say what it is (_target_)" for key in unnamed)
    if not isinstance(config["seed"], int) or isinstance(config["seed"], bool):
        yield "its seed is no whole number"
    if not all(
        choice is None or (isinstance(choice, str) and choice.isprintable()) for choice in config["choices"].values()
    ):
        yield "its choices are no names by group"
    follow = config.get("per_run", [])
    if not isinstance(follow, list) or not all(isinstance(key, str) for key in follow):
        yield "its per_run is no list of keys"
    inside = (("choices", "loss"), ("scheduler", "scheduler"), ("scheduler", "interval"))
    yield from (f"it lacks {group}.{key}" for group, key in inside if key not in config[group])

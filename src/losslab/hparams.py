"""The settings by which runs are told apart, where their hyper-parameters are shown side by side."""

from typing import Any

from losslab.data import faults

_TOLD_APART_BY = (("data", "batch_size"), ("trainer", "max_epochs"), ("trainer", "precision"))


def hparams(config: dict[str, Any]) -> dict[str, Any]:
    """Of a configuration: the choices, and the numbers of loss, optimizer, data and trainer."""
    table = {group: choice for group, choice in config["choices"].items() if choice is not None}
    table["seed"] = config["seed"]
    parts = {group: config.get(group) or {} for group in ("loss", "optimizer", *faults.GROUPS)}
    numbers = {f"{group}.{key}": value for group, part in parts.items() for key, value in part.items()}
    chosen = {f"{group}.{key}": config[group].get(key) for group, key in _TOLD_APART_BY}
    plain = {key: value for key, value in (numbers | chosen).items() if isinstance(value, int | float | str)}
    return table | {key: value for key, value in plain.items() if "._" not in key and not key.endswith(".seed")}

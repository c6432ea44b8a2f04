"""What of a configuration can change a result, and what cannot."""

import json
import re
from collections.abc import Iterator
from typing import Any

from losslab.comparison.reading import Run

Settings = dict[str, Any]
"""The values of a configuration by dotted key, such as "optimizer.lr"."""

SUBJECTS = ("loss", "model", "data", "imbalance", "noise", "optimizer", "scheduler")
"""The groups whose choice is a setting by itself."""

_OF_OLDER_RUNS = ("data.seed",)
"""What follows from the seed, where a configuration does not say it in `per_run`."""

_WITHOUT_EFFECT = re.compile(
    r"(seed|name|tags|run_dir|train|test|examine|traceback|optimized_metric|per_run|choices|logger|made_with"
    r"|data\.(dir|url|workers|in_memory|eval_batch_size)|noise\.file"
    r"|trainer\.(enable_progress_bar|enable_model_summary|log_every_n_steps|num_sanity_val_steps|profiler"
    r"|default_root_dir)"
    r"|callbacks\.(finite_guard|gradient_norms|dynamics|path|dashboard|progress_bar|history)"
    r"|callbacks\.checkpoints\.(run_dir|every_seconds)"
    r"|.*\.run_dir)(\..*)?"
)
_BY_ROUNDING = re.compile(
    r"(compile|data\.verify|trainer\.(accelerator|devices|num_nodes|strategy|deterministic|benchmark)|made_with\..*)"
)


def settings(run: Run) -> Settings:
    """All that can change a result of a run but its seed.

    A value that follows from the seed, the name or the folder of the run is written with these in braces, so that it
    is the same for all seeds. A value of null is as good as none: older runs lack what newer ones have switched off.
    """
    found = {f"choices.{group}": run.choices.get(group) for group in SUBJECTS}
    follows = {*run.config.get("per_run", _OF_OLDER_RUNS)}
    for key, value in _flat(run.config):
        if not _WITHOUT_EFFECT.fullmatch(key) or (key == "data.dir" and run.choices.get("data") == "image_folder"):
            found[key] = _followed(value, run) if key in follows else value
    return {key: value for key, value in found.items() if value is not None and not _BY_ROUNDING.fullmatch(key)}


def circumstances(run: Run) -> Settings:
    """What should change a result by rounding at most: where and with which versions a run was made."""
    return {key: value for key, value in _flat(run.config) if _BY_ROUNDING.fullmatch(key) and value is not None}


def shown(value: Any) -> str:
    """A value as one would type it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _flat(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values by dotted key, each of which fits into a line, whoever wrote them."""
    if isinstance(config, dict):
        for key, value in config.items():
            name = str(key) if str(key).isprintable() else json.dumps(str(key))
            yield from _flat(value, f"{path}.{name}" if path else name)
    else:
        long = isinstance(config, list) or (isinstance(config, str) and not config.isprintable())
        yield path, json.dumps(config, separators=(",", ":")) if long else config


def _followed(value: Any, run: Run) -> str:
    text = str(value)
    for name in ("run_dir", "name"):
        if run.config.get(name):
            text = text.replace(str(run.config[name]), f"{{{name}}}")
    return re.sub(rf"(?<!\d){run.seed}(?!\d)", "{seed}", text)

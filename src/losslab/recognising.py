"""Whether two configurations are of the same run: of those settings that can change a result. Imports no torch."""

import json
import re
from collections.abc import Mapping
from typing import Any

from losslab import runs

MAY_DIFFER = ("data.dir", "data.workers", "trainer.enable_progress_bar", "traceback", "trust")
"""What may be said anew when a run is resumed, since it changes no result."""

_FOLLOWS = ("run_dir", "per_run", "choices", "made_with", "optimized_metric")
"""What only says where, by whom and under which names a run is made, or what is to be told of it."""


def identity(config: Mapping[str, Any]) -> str:
    """What stays of a resolved configuration without what changes no result: the same text for the same run.

    The run folder may be any: whatever lies in it is written as if it were the same for all. Of a folder of images
    the place counts, as that says which images they are.

    Args:
        config: as `cli.resolve` returns it, or as a config.json holds it.
    """
    plain = json.loads(runs.as_json(config))
    places = (config.get("choices") or {}).get("data") == "image_folder"
    for key in (*_FOLLOWS, *MAY_DIFFER):
        group, _, name = key.rpartition(".")
        inside = plain.get(group) if group else plain
        if isinstance(inside, dict) and not (places and key == "data.dir"):
            inside.pop(name, None)
    return _anywhere(plain, str(config["run_dir"]))


def exactly(config: Mapping[str, Any]) -> str:
    """As `identity`, with all that was asked for: tells jobs apart that differ in what changes no result."""
    plain = json.loads(runs.as_json(config))
    plain.pop("made_with", None)
    return _anywhere(plain, str(config["run_dir"]))


def _anywhere(plain: dict[str, Any], run_dir: str) -> str:
    # 1 and 1.0 stay different: Lightning takes the one for a number of batches, the other for all of them.
    text = json.dumps(plain, sort_keys=True)
    return re.sub(rf'"{re.escape(json.dumps(run_dir)[1:-1])}(?=["/])', '"{run_dir}', text)

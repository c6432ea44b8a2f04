"""Files of JSON."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from losslab.errors import LabError
from losslab.io import atomic
from losslab.io.untrusted import read_text


def read_json(path: Path, mend: str) -> Any:
    """The content of a JSON file.

    Raises:
        LabError: it cannot be read; `mend` is what to do then.
    """
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise LabError(f"cannot read {path} ({error}): {mend}") from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file at once or not at all; a value that JSON has no word for (NaN, infinity) becomes null."""
    atomic.put(path, as_json(content).encode())


def as_json(content: Mapping[str, Any]) -> str:
    """What `write_json` writes."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value

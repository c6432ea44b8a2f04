"""JSON files: their only writer, and a reader for untrusted files. Imports no torch."""

import json
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from losslab.errors import LabError
from losslab.io import atomic
from losslab.io.untrusted import read_text


def read_json(path: Path, advice: str) -> Any:
    """Read a JSON file.

    Raises:
        LabError: the file cannot be read; the message ends with `advice`.
    """
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise LabError(f"cannot read {path} ({error}): {advice}") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, formatted by `to_json`.

    Raises:
        OSError: the file cannot be written.
    """
    atomic.write_bytes(path, to_json(content).encode())


def to_json(content: Mapping[str, Any]) -> str:
    """Format as indented JSON. NaN and infinity, which JSON cannot represent, become null."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value

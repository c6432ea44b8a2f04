"""Files of JSON."""

import errno
import json
import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from losslab import durable
from losslab.errors import LabError

_LONGEST = 64 << 20


def read_text(path: Path, most: int = _LONGEST) -> str:
    """The content of a text file. A pipe, which would wait for ever, and a device, which never ends, are none.

    Raises:
        OSError: it cannot be read, is no file or longer than any that a run writes.
        ValueError: it is no text.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file", str(path))
    with path.open(encoding="utf-8") as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read()


def read_json(path: Path, mend: str) -> Any:
    """The content of a JSON file.

    Raises:
        LabError: it cannot be read; `mend` is what to do then.
    """
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        message = f"cannot read {path} ({error}): {mend}"
        raise LabError(message) from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file at once or not at all; a value that JSON has no word for (NaN, infinity) becomes null."""
    durable.put(path, as_json(content).encode())


def as_json(content: Mapping[str, Any]) -> str:
    """What `write_json` writes."""
    return json.dumps(_finite(content), indent=2, ensure_ascii=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value

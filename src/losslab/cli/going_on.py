"""How to go on with a run or a sweep: what to type, and what may be said anew."""

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from losslab import runs, trust
from losslab.errors import LabError


def command(folder: Path, config: Any) -> str:
    """What to type to go on with what lies in a folder and was made of this configuration."""
    program = ["python", sys.argv[0]] if Path(sys.argv[0]).name == "train.py" else ["losslab-train"]
    packages = trust.untrusted(config)
    trusted = [f"trust=[{','.join(packages)}]"] if packages else []
    return shlex.join([*program, f"resume={runs.shown(folder)}", *trusted])


def refuse_others(given: Iterable[str], allowed: Sequence[str], does: str, otherwise: str) -> None:
    """Refuse settings beside resume= that would make it another run or sweep.

    Args:
        given: their keys.
        allowed: those that may be said anew.
        does: what resume= does, such as "completes a sweep".
        otherwise: what to do instead of leaving them out.

    Raises:
        LabError: there is one.
    """
    other = next((key for key in given if key not in allowed), None)
    if other is not None:
        message = (
            f"resume= {does} as it was, {other} cannot be said anew (only {', '.join(allowed)}): leave it out, "
            f"or {otherwise}"
        )
        raise LabError(message)

"""Starts commands as processes, and checks whether processes are alive."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    return False


def wait_for(condition, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


def start(*overrides, cwd, **variables):
    """Start `python train.py OVERRIDES` in a new process group, as a terminal does."""
    paths = [str(ROOT / "tests" / "helpers"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *overrides],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | variables,
        start_new_session=True,
    )


def sweep(*overrides, cwd):
    """Run `python train.py -m run_dir=sweep OVERRIDES`; return its exit code, stdout, stderr and summary."""
    process = start("-m", "run_dir=sweep", *overrides, cwd=cwd)
    out, errors = process.communicate(timeout=600)
    return process.returncode, out, errors, json.loads((cwd / "sweep" / "summary.json").read_text())

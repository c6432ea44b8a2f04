"""Starts commands as processes, and checks whether processes are alive."""

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from losslab.training.distributed import spawn

ROOT = Path(__file__).resolve().parents[2]
TRAIN = (str(ROOT / "train.py"),)
VERB = ("-P", "-m", "losslab.cli")


def python(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python SCRIPT ...`, `python -P -m MODULE ...` or `python -c CODE ...` in a new process, to its end.

    The process is forked from a server that has imported torch and lightning, which would take several seconds in a
    new interpreter. Tests of the start itself, of signals and of streams use a new interpreter instead.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / "stdout", Path(folder) / "stderr"]
        arguments = (words, cwd, os.environ | environment, streams)
        process = spawn.process_context().Process(target=_run_program, args=arguments)
        process.start()
        process.join(300)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"python {' '.join(words)}")
        return subprocess.CompletedProcess(words, process.exitcode, *(stream.read_text() for stream in streams))


def _run_program(words: Sequence[str], cwd: Path, environment: dict[str, str], streams: Sequence[Path]) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the server blocks it
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
    # Not the folders of pytest and of the tests.
    own = (ROOT / "tests", ROOT / "scripts")
    sys.path[:] = [path for path in sys.path if Path(path) != ROOT and not any(map(Path(path).is_relative_to, own))]
    try:
        if words[0] == "-c":
            sys.argv = ["-c", *words[2:]]
            exec(words[1], {"__name__": "__main__"})  # noqa: S102
        elif words[:2] == ("-P", "-m"):
            sys.argv = list(words[2:])
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(words)
            runpy.run_path(words[0], run_name="__main__")
    except Exception:  # noqa: BLE001 -- shown as by an interpreter, not by multiprocessing
        sys.excepthook(*sys.exc_info())
        sys.exit(1)


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

"""SHA-256 digests of the results of a run."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from losslab.runs import RunFolder


def outcome(path: Path | str) -> dict[str, str]:
    """Return the SHA-256 digests of a finished run: its weights, its optimizer and scheduler states, and its tables."""
    run = RunFolder(Path(path))
    last = torch.load(run.last, weights_only=True)
    best = torch.load(run.best, weights_only=True) if run.best.is_file() else last
    digests = {
        "weights": _digest(torch.load(run.weights, weights_only=True)),
        "last": _digest(last["state_dict"]),
        "best": _digest(best["state_dict"]),
        "best optimizer": _digest([best["optimizer_states"], best["lr_schedulers"]]),
        "optimizer": _digest([last["optimizer_states"], last["lr_schedulers"]]),
    }
    for file in (run.history, run.metrics, run.weight_trajectory, run.dynamics):
        if file.is_file():
            digests[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return digests


def _digest(state: Any) -> str:
    sha256 = hashlib.sha256()
    for part in _parts(state):
        sha256.update(part)
    return sha256.hexdigest()


def _parts(state: Any) -> Iterator[bytes]:
    if isinstance(state, torch.Tensor):
        yield state.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if state.numel() else b""
    elif isinstance(state, dict):
        for key, value in state.items():
            yield repr(key).encode()
            yield from _parts(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _parts(value)
    else:
        yield repr(state).encode()

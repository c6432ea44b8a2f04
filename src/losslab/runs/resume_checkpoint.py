"""Finds and validates the checkpoint from which an interrupted run resumes."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from lightning import Callback, Trainer
from torch import Tensor

from losslab.errors import LabError
from losslab.io import atomic, torch_files
from losslab.runs.folder import RunFolder, display_path
from losslab.runs.trust import has_parent_reference, is_address, is_path_key

logger = logging.getLogger("losslab")

_REQUIRED = {
    "epoch": int, "global_step": int, "state_dict": dict, "loops": dict, "learner": dict, "optimizer_states": list,
}  # fmt: skip
_OPTIONAL = {"callbacks": dict, "lr_schedulers": list, "hyper_parameters": dict, "trained": dict, "should_stop": int}
_LOOPS = {"epoch_progress", "epoch_loop.batch_progress", "epoch_loop.state_dict"}
_LEARNER = {"sums": Tensor, "values": dict, "fresh": list, "loader": dict}
_OWN_FILES = frozenset({"dirpath", "best_model_path", "kth_best_model_path", "last_model_path", "best_k_models"})
"""Keys under which the state of ModelCheckpoint stores the paths of its own files, which it may delete later."""


class ResumePoint(NamedTuple):
    """The checkpoint from which a run resumes."""

    path: Path
    step: int
    """The number of optimizer steps before the checkpoint."""
    results: dict[str, Any] | None
    """The results of training; None if training has not ended."""


def find_resume_point(folder: RunFolder, *, tidy: bool = True) -> ResumePoint | None:
    """Find the newest intact checkpoint of a run; return None if no checkpoint was written yet.

    If last.ckpt is damaged, use previous.ckpt. With `tidy`, which only one rank may set, also log a warning, rename the
    damaged file and delete temporary files.

    Raises:
        LabError: there are checkpoints, but all are damaged; or there was a best epoch, but best.ckpt is not intact.
    """
    if tidy:
        atomic.remove_temporary_files(folder.path, folder.last.parent)
    damaged: list[str] = []
    for path in (path for path in (folder.last, folder.previous) if os.path.lexists(path)):
        state, problem = _read_intact(path)
        if state is not None:
            callbacks = state.get("callbacks", {}).values()
            if any(isinstance(each, dict) and each.get("best_epoch") is not None for each in callbacks):
                read_best(folder)  # raises if best.ckpt is not intact: training could not end without it
            if damaged and tidy:
                logger.warning("%s: resuming from the previous checkpoint, %s", "; ".join(damaged), display_path(path))
                # Otherwise the next checkpoint would replace the intact previous.ckpt by the damaged file.
                folder.last.rename(folder.last.with_name(f"{folder.last.name}.damaged"))
                atomic.checksum_path(folder.last).unlink(missing_ok=True)
            return ResumePoint(path, state["global_step"], state.get("trained"))
        damaged.append(f"{display_path(path)} {problem}")
    if damaged:
        # best.ckpt is not an alternative: it was saved after a validation, so the results of the run would differ.
        start = "the beginning"
        if _read_intact(folder.best)[0] is not None:
            start = f"the weights of its best epoch with ckpt_path={display_path(folder.best)}"
        raise LabError(f"{'; '.join(damaged)}: no intact checkpoint to resume from. Start a new run from {start}")
    return None


def read_best(folder: RunFolder) -> dict[str, Any]:
    """Read the checkpoint of the best epoch.

    Raises:
        LabError: the checkpoint is missing or damaged.
    """
    state, problem = _read_intact(folder.best)
    if state is None:
        raise LabError(
            f"{display_path(folder.best)} {problem}, but the run needs the weights of its best epoch: "
            f"start a new run from the newest weights with ckpt_path={display_path(folder.last)}"
        )
    return state


def _read_intact(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Return (content, "") for a checkpoint from which a run can resume, otherwise (None, the problem)."""
    try:
        if atomic.matches_checksum(path) is False:
            return None, "is damaged (SHA-256 mismatch)"
        state = torch_files.load(path)
    except FileNotFoundError:
        return None, "is a broken symbolic link" if path.is_symlink() else "is missing"
    except Exception as error:  # noqa: BLE001 -- a damaged file may raise anything
        # A message of torch is left out, since it suggests weights_only=False, which would execute code in the file.
        is_own = type(error) is ValueError and "weights_only" not in str(error)
        return None, f"is damaged ({str(error)[:160] if is_own else type(error).__name__})"
    problem = next(_problems(state, path.parent.parent), None)
    return (state, "") if problem is None else (None, f"cannot be resumed from ({problem})")


@contextmanager
def explain_mismatch(start: ResumePoint | None, trainer: Trainer) -> Iterator[None]:
    """Turn an error in the `with` block before the first training batch into a LabError: the checkpoint does not fit.

    A LabError is raised unchanged, and so is every error if `start` is None.
    """
    if start is None:
        yield
        return
    callback = _FirstBatch()
    trainer.callbacks.append(callback)  # type: ignore[attr-defined]
    try:
        yield
    except Exception as error:
        if callback.reached or isinstance(error, LabError):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise LabError(
            f"cannot resume from {display_path(start.path)}: it does not fit this run ({reason}). Start a new run"
        ) from error


class _FirstBatch(Callback):
    reached = False

    def on_train_batch_start(self, *_: Any) -> None:
        """Record the first batch: Lightning has restored the checkpoint."""
        self.reached = True


def _problems(state: Any, folder: Path) -> Iterator[str]:
    """Yield the reasons why the run in this folder cannot resume from a checkpoint with this content.

    Use only the first reason: each check assumes that the earlier ones passed.
    """
    if not isinstance(state, dict):
        yield f"it is a {type(state).__name__}"
    missing = [name for name in _REQUIRED if name not in state]
    if missing:
        yield f"it lacks {', '.join(missing)}"
    present = {name: kind for name, kind in (_REQUIRED | _OPTIONAL).items() if name in state}
    yield from (f"its {name} is a {type(state[name]).__name__}" for name in _of_other_type(state, present))
    yield from (f"its learner has no valid {name}" for name in _of_other_type(state["learner"], _LEARNER))
    if not _are_counts([state["global_step"], state["epoch"], *state["loops"].values(), state["learner"]["loader"]]):
        yield "a progress counter is not an integer ≥ -1"
    if not state["optimizer_states"] or not set(state["loops"].get("fit_loop") or ()) >= _LOOPS:
        yield "it lacks the state of the loops or the optimizer"
    if not all(isinstance(value, Tensor) for value in state["state_dict"].values()):
        yield "its state_dict contains a value that is not a tensor"
    # A loss may be finite although the sum of a metric overflows. Members of a group that failed may have NaN.
    if state["learner"]["sums"].isnan().any() and "active" not in state["learner"]:
        yield "the sums in its learner are NaN"
    if not all(isinstance(value, int | float | None) for value in state.get("trained", {}).values()):
        yield "its results ('trained') are not numbers"
    if {"_class_path", "_instantiator"} & state.get("hyper_parameters", {}).keys():
        yield "its hyper_parameters name a class to instantiate"
    yield from (
        f"its {ascii(name)[1:-1][:40]} would write to {ascii(path)[:80]}"
        for name, callback_state in state.get("callbacks", {}).items()
        for path in foreign_paths(callback_state, folder)
    )
    # Early versions of Lightning wrote such keys. Lightning would convert them to a callback state after these checks.
    yield from (f"it contains {ascii(key)[1:-1][:40]}" for key in state if str(key).startswith("checkpoint_callback"))


def _of_other_type(content: dict[str, Any], types: dict[str, type]) -> list[str]:
    """Return the keys in `types` whose value in `content` is missing or has another type. A bool is not an int."""
    values = {name: content.get(name) for name in types}
    return [name for name, value in values.items() if isinstance(value, bool) or not isinstance(value, types[name])]


def _are_counts(node: Any) -> bool:
    """Return whether all leaves of a tree are integers ≥ -1. A resumed loop increments a counter of -1 before use."""
    if isinstance(node, dict | list):
        return all(map(_are_counts, node.values() if isinstance(node, dict) else node))
    return isinstance(node, int) and node >= -1


def foreign_paths(state: Any, folder: Path) -> Iterator[str]:
    """Yield the paths in the state of a callback that are outside of the run folder.

    If the run folder was moved, the old paths of ModelCheckpoint's own files are not yielded, since Lightning deletes
    nothing there.
    """
    root, dirpath = folder.resolve(), state.get("dirpath") if isinstance(state, dict) else None
    is_old_path = isinstance(dirpath, str) and PurePath(dirpath).is_absolute() and not is_address(dirpath)
    was_moved = is_old_path and not Path(str(dirpath)).resolve().is_relative_to(root)
    for keys, text in _texts(state, ()):
        if is_address(text) or has_parent_reference(text):
            yield text
        elif text and any(is_path_key(key) or key in _OWN_FILES for key in keys):
            in_old_folder = was_moved and keys[0] in _OWN_FILES and PurePath(text).is_relative_to(str(dirpath))
            in_folder = any(map(PurePath(text).is_relative_to, (root, folder.absolute())))
            if (in_folder or not in_old_folder) and not Path(text).resolve().is_relative_to(root):
                yield text


def _texts(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (keys, string) for each string in a tree, including dict keys; `keys` are the keys that lead to it."""
    if isinstance(node, str):
        yield keys, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _texts(key, keys)
            yield from _texts(value, (*keys, str(key)))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value, keys)

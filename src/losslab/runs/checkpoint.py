"""Finding and validating the checkpoint from which an interrupted run resumes."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import torch
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
"""Keys under which ModelCheckpoint lists the files that it wrote and may delete later."""


class ResumePoint(NamedTuple):
    """The checkpoint from which a run resumes."""

    path: Path
    """The path of the checkpoint."""
    step: int
    """The number of optimizer steps so far."""
    results: dict[str, Any] | None
    """The results of training, if training is over."""


def find_resume_point(folder: RunFolder, *, tidy: bool = True) -> ResumePoint | None:
    """Find the newest intact checkpoint of a run; None if no checkpoint was written yet.

    If last.ckpt is damaged, it is renamed and the checkpoint before it is used, with a warning.

    Args:
        folder: the run folder.
        tidy: whether to rename and delete files; True on one rank only.

    Raises:
        LabError: there are checkpoints, but all are damaged.
    """
    if tidy:
        for directory in (folder.path, folder.last.parent):
            for path in directory.glob(".*.tmp"):  # left by a process that was killed while it wrote
                path.unlink(missing_ok=True)
    damaged: list[str] = []
    for path in (path for path in (folder.last, folder.previous) if os.path.lexists(path)):
        state, problem = _read_intact(path)
        if state is not None:
            if _best_epoch(state) is not None:
                read_best(folder)  # the end of training needs it
            if damaged and tidy:
                logger.warning("%s: resuming from the checkpoint before, %s", "; ".join(damaged), display_path(path))
                # As last.ckpt it would replace the intact previous.ckpt when the next checkpoint is written.
                folder.last.rename(folder.last.with_name(f"{folder.last.name}.damaged"))
                atomic.checksum_path(folder.last).unlink(missing_ok=True)
            return ResumePoint(path, state["global_step"], state.get("trained"))
        damaged.append(f"{display_path(path)} {problem}")
    if damaged:
        # best.ckpt was saved after a validation: a run resumed from it would give other results.
        best_is_intact = _read_intact(folder.best)[0] is not None
        weights = f"the weights of its best epoch with ckpt_path={display_path(folder.best)}"
        start = weights if best_is_intact else "the beginning"
        raise LabError(f"{'; '.join(damaged)}: no intact checkpoint to resume from. Start a new run from {start}")
    return None


def read_best(folder: RunFolder) -> dict[str, Any]:
    """Read the checkpoint of the best epoch.

    Raises:
        LabError: it is damaged.
    """
    state, problem = _read_intact(folder.best)
    if state is None:
        raise LabError(
            f"{display_path(folder.best)} {problem}, but the run needs the weights of its best epoch: "
            f"start a new run from the newest weights with ckpt_path={display_path(folder.last)}"
        )
    return state


def read(path: Path) -> dict[str, Any]:
    """Read an untrusted checkpoint: plain containers, numbers and tensors."""
    state: dict[str, Any] = torch_files.load(path)
    return state


def _read_intact(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Return a checkpoint that a run can resume from and "", or None and the problem."""
    try:
        if atomic.matches_checksum(path) is False:
            return None, "is damaged (SHA-256 mismatch)"
        state = read(path)
    except FileNotFoundError:
        return None, "is a broken symbolic link"
    except Exception as error:  # noqa: BLE001 -- a damaged file may raise anything
        own = type(error) is ValueError and "weights_only" not in str(error)  # torch would advise to execute the file
        return None, f"is damaged ({str(error)[:160] if own else type(error).__name__})"
    problem = find_problem(state, path.parent.parent)
    return (state, "") if problem is None else (None, f"cannot be resumed from ({problem})")


def _best_epoch(state: dict[str, Any]) -> int | None:
    kept = [each for each in state.get("callbacks", {}).values() if isinstance(each, dict)]
    return next((each["best_epoch"] for each in kept if each.get("best_epoch") is not None), None)


@contextmanager
def explain_mismatch(start: ResumePoint | None, trainer: Trainer) -> Iterator[None]:
    """Replace an exception before the first training batch by one line: the checkpoint does not fit the run.

    Raises:
        LabError: another exception was raised before the first training batch.
    """
    if start is None:
        yield
        return
    callback = _FirstBatch()
    trainer.callbacks.append(callback)  # type: ignore[attr-defined]
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        if callback.reached:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise LabError(
            f"cannot resume from {display_path(start.path)}: it does not fit this run ({reason}). Start a new run"
        ) from error


class _FirstBatch(Callback):
    reached = False

    def on_train_batch_start(self, *_: Any) -> None:
        """Record that the checkpoint was restored."""
        self.reached = True


def find_problem(state: Any, folder: Path) -> str | None:
    """Return the problem that keeps a run from resuming from a checkpoint, judged by the checkpoint alone; or None.

    Args:
        state: the content of the checkpoint.
        folder: the folder of its run.
    """
    return next(_problems(state, folder), None)


def _problems(state: Any, folder: Path) -> Iterator[str]:
    """Yield problems in order. Use only the first: each check assumes that the earlier ones passed."""
    if not isinstance(state, dict):
        yield f"it is a {type(state).__name__}"
    missing = [name for name in _REQUIRED if name not in state]
    if missing:
        yield f"it lacks {', '.join(missing)}"
    present = {name: kind for name, kind in (_REQUIRED | _OPTIONAL).items() if name in state}
    yield from (f"its {name} is a {type(state[name]).__name__}" for name in _of_other_type(state, present))
    yield from (f"its learner has no valid {name}" for name in _of_other_type(state["learner"], _LEARNER))
    yield from _content_problems(state)
    for name, kept in state.get("callbacks", {}).items():
        for text in foreign_paths(kept, folder):
            yield f"its {ascii(name)[1:-1][:40]} would write to {ascii(text)[:80]}"
    # Lightning would migrate such a key of an early version to the state of a callback, unchecked.
    yield from (f"it contains {ascii(key)[1:-1][:40]}" for key in state if str(key).startswith("checkpoint_callback"))


def _content_problems(state: dict[str, Any]) -> Iterator[str]:
    if not _are_counts([state["global_step"], state["epoch"], *state["loops"].values(), state["learner"]["loader"]]):
        yield "a progress counter is not an integer ≥ -1"
    if not state["optimizer_states"] or not set(state["loops"].get("fit_loop") or ()) >= _LOOPS:
        yield "it lacks the state of the loops or the optimizer"
    if not all(isinstance(value, Tensor) for value in state["state_dict"].values()):
        yield "its state_dict contains a value that is not a tensor"
    if not torch.isfinite(state["learner"]["sums"]).all():
        yield "the sums in its learner are not finite"
    if not all(isinstance(value, int | float | None) for value in state.get("trained", {}).values()):
        yield "its results ('trained') are not numbers"
    if {"_class_path", "_instantiator"} & state.get("hyper_parameters", {}).keys():
        yield "its hyper_parameters name a class to instantiate"


def _of_other_type(content: dict[str, Any], types: dict[str, type]) -> list[str]:
    return [
        name
        for name, kind in types.items()
        if not isinstance(content.get(name), kind) or isinstance(content.get(name), bool)
    ]


def _are_counts(node: Any) -> bool:
    """Return whether all leaves are integers ≥ -1 (-1: a batch that will be counted again)."""
    if isinstance(node, dict | list):
        return all(map(_are_counts, node.values() if isinstance(node, dict) else node))
    return isinstance(node, int) and node >= -1


def foreign_paths(state: Any, folder: Path) -> Iterator[str]:
    """Yield the paths in a callback's state that are outside of the run folder.

    ModelCheckpoint's own files may be listed with the path of the folder before it was moved: Lightning deletes
    nothing there.
    """
    root, dirpath = folder.resolve(), state.get("dirpath") if isinstance(state, dict) else None
    was_moved = isinstance(dirpath, str) and _is_elsewhere(dirpath, root)
    for keys, text in _texts(state, ()):
        if is_address(text) or has_parent_reference(text):
            yield text
        elif text and any(is_path_key(key) or key in _OWN_FILES for key in keys):
            in_old_folder = was_moved and keys[0] in _OWN_FILES and PurePath(text).is_relative_to(str(dirpath))
            in_folder = any(map(PurePath(text).is_relative_to, (root, folder.absolute())))
            if (in_folder or not in_old_folder) and not Path(text).resolve().is_relative_to(root):
                yield text


def _is_elsewhere(path: str, root: Path) -> bool:
    return PurePath(path).is_absolute() and not is_address(path) and not Path(path).resolve().is_relative_to(root)


def _texts(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield all strings in a tree, including dict keys, each with the keys on the way to it."""
    if isinstance(node, str):
        yield keys, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _texts(key, keys)
            yield from _texts(value, (*keys, str(key)))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value, keys)

"""Finding the checkpoint that an interrupted run resumes from, and checking that it is one."""

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
"""Keys under which ModelCheckpoint lists files that it wrote, and later deletes below its folder."""


class ResumePoint(NamedTuple):
    """Where a run resumes."""

    path: Path
    """Of the checkpoint."""
    step: int
    """Optimizer steps that were made."""
    results: dict[str, Any] | None
    """The results of training, if it is over."""


def find_resume_point(folder: RunFolder, *, tidy: bool = True) -> ResumePoint | None:
    """Find the newest intact checkpoint of a run; None if none was written yet.

    A newer one that is damaged is renamed, with a warning.

    Args:
        folder: of the run.
        tidy: whether to change files; of several ranks one does.

    Raises:
        LabError: there are checkpoints, and all are damaged.
    """
    if tidy:
        for place in (folder.path, folder.last.parent):
            for path in place.glob(".*.tmp"):  # left by a process that was killed while it wrote
                path.unlink(missing_ok=True)
    damaged: list[str] = []
    for path in (path for path in (folder.last, folder.previous) if os.path.lexists(path)):
        state, problem = _read_intact(path)
        if state is not None:
            if _best_epoch(state) is not None:
                read_best(folder)  # without it the run could not end
            if damaged and tidy:
                logger.warning("%s: resuming from the one before, %s", "; ".join(damaged), display_path(path))
                # As last.ckpt it would replace the intact previous.ckpt when the next checkpoint is written.
                folder.last.rename(folder.last.with_name(f"{folder.last.name}.damaged"))
                atomic.checksum_path(folder.last).unlink(missing_ok=True)
            return ResumePoint(path, state["global_step"], state.get("trained"))
        damaged.append(f"{display_path(path)} {problem}")
    if damaged:
        # best.ckpt was taken after a validation: a run that resumed there would not be the same run.
        best_is_intact = _read_intact(folder.best)[0] is not None
        weights = f"the weights of its best epoch with ckpt_path={display_path(folder.best)}"
        start = weights if best_is_intact else "the beginning"
        raise LabError(f"{'; '.join(damaged)}: there is no checkpoint to resume from. Start a new run from {start}")
    return None


def read_best(folder: RunFolder) -> dict[str, Any]:
    """Read the checkpoint of the best epoch.

    Raises:
        LabError: it is damaged.
    """
    state, problem = _read_intact(folder.best)
    if state is None:
        raise LabError(
            f"{display_path(folder.best)} {problem}, and the run cannot end without the weights of its best epoch: "
            f"start a new run from the newest with ckpt_path={display_path(folder.last)}"
        )
    return state


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint: plain containers, numbers and tensors, whoever wrote it."""
    state: dict[str, Any] = torch_files.load(path)
    return state


def _read_intact(path: Path) -> tuple[dict[str, Any] | None, str]:
    """Read a checkpoint that a run can resume from; otherwise return None and the problem."""
    try:
        if atomic.matches_checksum(path) is False:
            return None, "is damaged (its SHA-256 is another)"
        state = read(path)
    except FileNotFoundError:
        return None, "is a dangling link"
    except Exception as error:  # noqa: BLE001 -- a damaged file may raise anything
        own = type(error) is ValueError and "weights_only" not in str(error)  # torch's advice is to run the file
        return None, f"is damaged ({str(error)[:160] if own else type(error).__name__})"
    problem = find_problem(state, path.parent.parent)
    return (state, "") if problem is None else (None, f"is no checkpoint that a run can resume from ({problem})")


def _best_epoch(state: dict[str, Any]) -> int | None:
    kept = [each for each in state.get("callbacks", {}).values() if isinstance(each, dict)]
    return next((each["best_epoch"] for each in kept if each.get("best_epoch") is not None), None)


@contextmanager
def explain_mismatch(start: ResumePoint | None, trainer: Trainer) -> Iterator[None]:
    """Turn whatever is raised before the first training batch into one line: the checkpoint does not fit the run.

    Raises:
        LabError: something was raised.
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
            f"cannot resume from {display_path(start.path)}, it does not fit this run ({reason}): start a new run"
        ) from error


class _FirstBatch(Callback):
    reached = False

    def on_train_batch_start(self, *_: Any) -> None:
        """Note that the checkpoint was restored."""
        self.reached = True


def find_problem(state: Any, folder: Path) -> str | None:
    """Return what keeps a run from resuming from a checkpoint, as far as the checkpoint alone tells; or None.

    Args:
        state: of the checkpoint.
        folder: of its run.
    """
    return next(_problems(state, folder), None)


def _problems(state: Any, folder: Path) -> Iterator[str]:
    """Yield problems; each check relies on those before it."""
    if not isinstance(state, dict):
        yield f"it is a {type(state).__name__}"
    missing = [name for name in _REQUIRED if name not in state]
    if missing:
        yield f"it lacks {', '.join(missing)}"
    present = {name: kind for name, kind in (_REQUIRED | _OPTIONAL).items() if name in state}
    yield from (f"its {name} is a {type(state[name]).__name__}" for name in _of_other_type(state, present))
    yield from (f"its learner holds no {name}" for name in _of_other_type(state["learner"], _LEARNER))
    yield from _content_problems(state)
    for name, kept in state.get("callbacks", {}).items():
        for text in foreign_paths(kept, folder):
            yield f"its {ascii(name)[1:-1][:40]} would write to {ascii(text)[:80]}"
    # Lightning's migration of early checkpoints would turn it into the state of a callback.
    yield from (f"it holds {ascii(name)[1:-1][:40]}" for name in state if str(name).startswith("checkpoint_callback"))


def _content_problems(state: dict[str, Any]) -> Iterator[str]:
    if not _are_counts([state["global_step"], state["epoch"], *state["loops"].values(), state["learner"]["loader"]]):
        yield "a counter is no whole number"
    if not state["optimizer_states"] or not set(state["loops"].get("fit_loop") or ()) >= _LOOPS:
        yield "it lacks the state of the loops or of the optimizer"
    if not all(isinstance(value, Tensor) for value in state["state_dict"].values()):
        yield "its state_dict holds something else than tensors"
    if not torch.isfinite(state["learner"]["sums"]).all():
        yield "its sums are not finite"
    if not all(isinstance(value, int | float | None) for value in state.get("trained", {}).values()):
        yield "its results are no numbers"
    if {"_class_path", "_instantiator"} & state.get("hyper_parameters", {}).keys():
        yield "its hyper_parameters name what is to be made"


def _of_other_type(content: dict[str, Any], types: dict[str, type]) -> list[str]:
    return [
        name
        for name, kind in types.items()
        if not isinstance(content.get(name), kind) or isinstance(content.get(name), bool)
    ]


def _are_counts(node: Any) -> bool:
    """Return whether all leaves are whole numbers, at least -1 (a batch that is to be counted again)."""
    if isinstance(node, dict | list):
        return all(map(_are_counts, node.values() if isinstance(node, dict) else node))
    return isinstance(node, int) and node >= -1


def foreign_paths(state: Any, folder: Path) -> Iterator[str]:
    """Yield the paths in a callback's state that lead out of the run folder.

    ModelCheckpoint may name the folder in which the run lay before it was moved: then it deletes nothing there.
    """
    home, dirpath = folder.resolve(), state.get("dirpath") if isinstance(state, dict) else None
    was_moved = isinstance(dirpath, str) and _is_elsewhere(dirpath, home)
    for keys, text in _texts(state, ()):
        if is_address(text) or has_parent_reference(text):
            yield text
        elif text and any(is_path_key(key) or key in _OWN_FILES for key in keys):
            in_old_folder = was_moved and keys[0] in _OWN_FILES and PurePath(text).is_relative_to(str(dirpath))
            in_folder = any(map(PurePath(text).is_relative_to, (home, folder.absolute())))
            if (in_folder or not in_old_folder) and not Path(text).resolve().is_relative_to(home):
                yield text


def _is_elsewhere(path: str, home: Path) -> bool:
    return PurePath(path).is_absolute() and not is_address(path) and not Path(path).resolve().is_relative_to(home)


def _texts(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield all texts in a tree, its keys included, each with the keys that lead to it."""
    if isinstance(node, str):
        yield keys, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _texts(key, keys)
            yield from _texts(value, (*keys, str(key)))
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _texts(value, keys)

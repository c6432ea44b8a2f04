"""Which checkpoint an interrupted run goes on from."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from lightning import Callback, Trainer

from losslab import durable, resumable, tensor_files
from losslab.errors import LabError
from losslab.runs import RunFolder, shown

logger = logging.getLogger("losslab")


class Start(NamedTuple):
    """Where a run goes on."""

    path: Path
    """Of the checkpoint."""
    step: int
    """So many were made."""
    results: dict[str, Any] | None
    """What training has come to, if it is over."""


def newest(folder: RunFolder, *, tidy: bool = True) -> Start | None:
    """The newest checkpoint that is what was written; None where none was written yet.

    That a newer one is damaged is said, and it is put out of the way.

    Args:
        folder: of the run.
        tidy: whether to change anything there; of several processes one does.

    Raises:
        LabError: there are checkpoints, and all that a run can go on from are damaged.
    """
    if tidy:
        _sweep_up(folder)
    there = [path for path in (folder.last, folder.previous) if os.path.lexists(path)]
    damaged: list[str] = []
    for path in there:
        state, fault = _state(path)
        if state is not None:
            if _best_epoch(state) is not None:
                best(folder)  # without it the run could not come to its end
            if damaged and tidy:
                logger.warning("%s: going on from the one before, %s", "; ".join(damaged), shown(path))
                # Out of the way: as last.ckpt it would take the place of the good one when the next is written.
                folder.last.rename(folder.last.with_name(f"{folder.last.name}.damaged"))
                durable.checksum_of(folder.last).unlink(missing_ok=True)
            return Start(path, state["global_step"], state.get("trained"))
        damaged.append(f"{shown(path)} {fault}")
    if damaged:
        # The best epoch's is of the end of a validation: what follows from it would not be what would have followed.
        whole = _state(folder.best)[0] is not None
        how = f"the weights of its best epoch with ckpt_path={shown(folder.best)}" if whole else "the beginning"
        message = f"{'; '.join(damaged)}: there is none to go on from. Start a new run from {how}"
        raise LabError(message)
    return None


def best(folder: RunFolder) -> dict[str, Any]:
    """The state of the best epoch.

    Raises:
        LabError: it is not what was written.
    """
    state, fault = _state(folder.best)
    if state is None:
        message = (
            f"{shown(folder.best)} {fault}, and the run cannot end without the weights of its best epoch: start a new "
            f"run from the newest with ckpt_path={shown(folder.last)}"
        )
        raise LabError(message)
    return state


def _best_epoch(state: dict[str, Any]) -> int | None:
    """Which epoch was the best when this was written; None if none was yet."""
    kept = [each for each in state.get("callbacks", {}).values() if isinstance(each, dict)]
    return next((each["best_epoch"] for each in kept if each.get("best_epoch") is not None), None)


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint holds: plain containers, numbers and tensors, whoever wrote it."""
    state: dict[str, Any] = tensor_files.load(path)
    return state


def _state(path: Path) -> tuple[dict[str, Any] | None, str]:
    """What a file holds from which a run can go on; or None, and why it cannot."""
    try:
        if durable.verifies(path) is False:
            return None, "is damaged (its SHA-256 is another)"
        state = read(path)
    except FileNotFoundError:
        return None, "leads nowhere"
    except Exception as error:  # noqa: BLE001 -- whatever the damage led it to
        own = type(error) is ValueError and "weights_only" not in str(error)  # torch's advice is to run the file
        return None, f"is damaged ({str(error)[:160] if own else type(error).__name__})"
    wrong = resumable.amiss(state, path.parent.parent)
    return (state, "") if wrong is None else (None, f"is no checkpoint of a run that can go on ({wrong})")


@contextmanager
def going_on(start: Start | None, trainer: Trainer) -> Iterator[None]:
    """Say in one line that a checkpoint does not fit its run: whatever goes wrong with it until a batch is trained on.

    Raises:
        LabError: something did.
    """
    if start is None:
        yield
        return
    begun = _Begun()
    trainer.callbacks.append(begun)  # type: ignore[attr-defined]
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        if begun.begun:
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        message = f"cannot go on from {shown(start.path)}, it does not fit this run ({reason}): start a new run"
        raise LabError(message) from error


class _Begun(Callback):
    begun = False

    def on_train_batch_start(self, *_: Any) -> None:
        """Nothing of a checkpoint is left to be read."""
        self.begun = True


def _sweep_up(folder: RunFolder) -> None:
    """Remove what a process left that was killed while it wrote."""
    for place in (folder.path, folder.last.parent):
        for path in place.glob(".*.tmp"):
            path.unlink(missing_ok=True)

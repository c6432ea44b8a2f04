"""What a checkpoint must hold for a run to go on from it.

Which checkpoint an interrupted run goes on from.
"""

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
from losslab.runs import RunFolder, shown
from losslab.runs.trust import goes_up, is_an_address, names_a_place

_SHAPES = {
    "epoch": int, "global_step": int, "state_dict": dict, "loops": dict, "learner": dict, "optimizer_states": list,
}  # fmt: skip
_OPTIONAL = {"callbacks": dict, "lr_schedulers": list, "hyper_parameters": dict, "trained": dict, "should_stop": int}
_LOOPS = {"epoch_progress", "epoch_loop.batch_progress", "epoch_loop.state_dict"}
_LEARNER = {"sums": Tensor, "values": dict, "fresh": list, "loader": dict}


_KEPT = frozenset({"dirpath", "best_model_path", "kth_best_model_path", "last_model_path", "best_k_models"})
"""What ModelCheckpoint says it wrote, and removes below its folder when it writes anew."""


def amiss(state: Any, folder: Path) -> str | None:
    """What keeps a run from going on from this; None if nothing that can be told without the run does.

    Args:
        state: a checkpoint.
        folder: of its run.
    """
    return next(_complaints(state, folder), None)


def _complaints(state: Any, folder: Path) -> Iterator[str]:
    """Each looks only at what those before it have found to be there."""
    if not isinstance(state, dict):
        yield f"it is a {type(state).__name__}"
    lacking = [name for name in _SHAPES if name not in state]
    if lacking:
        yield f"it lacks {', '.join(lacking)}"
    given = {name: kind for name, kind in (_SHAPES | _OPTIONAL).items() if name in state}
    yield from (f"its {name} is a {type(state[name]).__name__}" for name in _other(state, given))
    yield from (f"its learner holds no {name}" for name in _other(state["learner"], _LEARNER))
    yield from _wrong_content(state)
    for name, kept in state.get("callbacks", {}).items():
        yield from (f"its {ascii(name)[1:-1][:40]} would write to {ascii(text)[:80]}" for text in _strays(kept, folder))
    # Lightning would make a state of a callback of it, as its first versions wrote it.
    yield from (f"it holds {ascii(name)[1:-1][:40]}" for name in state if str(name).startswith("checkpoint_callback"))


def _wrong_content(state: dict[str, Any]) -> Iterator[str]:
    if not _counts([state["global_step"], state["epoch"], *state["loops"].values(), state["learner"]["loader"]]):
        yield "it counts what cannot be counted"
    if not state["optimizer_states"] or not set(state["loops"].get("fit_loop") or ()) >= _LOOPS:
        yield "it does not say how far the loops and the optimizer were"
    if not all(isinstance(value, Tensor) for value in state["state_dict"].values()):
        yield "its state_dict holds something else than tensors"
    if not torch.isfinite(state["learner"]["sums"]).all():
        yield "its sums are not finite"
    if not all(isinstance(value, int | float | None) for value in state.get("trained", {}).values()):
        yield "what it has come to is no numbers"
    if {"_class_path", "_instantiator"} & state.get("hyper_parameters", {}).keys():
        yield "its hyper_parameters name what is to be made"


def _other(content: dict[str, Any], kinds: dict[str, type]) -> list[str]:
    """The names under which there is nothing of the kind."""
    found = {name: content.get(name) for name in kinds}
    return [name for name, value in found.items() if not isinstance(value, kinds[name]) or isinstance(value, bool)]


def _counts(part: Any) -> bool:
    """Whether all numbers in it can count something; -1 is one batch to be counted again."""
    if isinstance(part, dict | list):
        return all(map(_counts, part.values() if isinstance(part, dict) else part))
    return isinstance(part, int) and part >= -1


def _strays(kept: Any, folder: Path) -> Iterator[str]:
    """What a callback kept and takes for a file of its own that does not lie in the run folder.

    ModelCheckpoint may speak of the folder in which the run lay before: then it believes and removes nothing of it.
    """
    home, before = folder.resolve(), kept.get("dirpath") if isinstance(kept, dict) else None
    moved = isinstance(before, str) and _lay_elsewhere(before, home)
    for keys, text in _texts(kept, ()):
        if is_an_address(text) or goes_up(text):
            yield text
        elif text and any(names_a_place(key) or key in _KEPT for key in keys):
            there = moved and keys[0] in _KEPT and PurePath(text).is_relative_to(str(before))
            here = any(map(PurePath(text).is_relative_to, (home, folder.absolute())))
            if (here or not there) and not Path(text).resolve().is_relative_to(home):
                yield text


def _lay_elsewhere(before: str, home: Path) -> bool:
    plain = PurePath(before).is_absolute() and not is_an_address(before)
    return plain and not Path(before).resolve().is_relative_to(home)


def _texts(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """All texts in it, names included, and the names under which each stands."""
    if isinstance(value, str):
        yield keys, value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _texts(key, keys)
            yield from _texts(each, (*keys, str(key)))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each, keys)


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
                atomic.checksum_path(folder.last).unlink(missing_ok=True)
            return Start(path, state["global_step"], state.get("trained"))
        damaged.append(f"{shown(path)} {fault}")
    if damaged:
        # The best epoch's is of the end of a validation: what follows from it would not be what would have followed.
        whole = _state(folder.best)[0] is not None
        how = f"the weights of its best epoch with ckpt_path={shown(folder.best)}" if whole else "the beginning"
        raise LabError(f"{'; '.join(damaged)}: there is none to go on from. Start a new run from {how}")
    return None


def best(folder: RunFolder) -> dict[str, Any]:
    """The state of the best epoch.

    Raises:
        LabError: it is not what was written.
    """
    state, fault = _state(folder.best)
    if state is None:
        raise LabError(
            f"{shown(folder.best)} {fault}, and the run cannot end without the weights of its best epoch: start a new "
            f"run from the newest with ckpt_path={shown(folder.last)}"
        )
    return state


def _best_epoch(state: dict[str, Any]) -> int | None:
    """Which epoch was the best when this was written; None if none was yet."""
    kept = [each for each in state.get("callbacks", {}).values() if isinstance(each, dict)]
    return next((each["best_epoch"] for each in kept if each.get("best_epoch") is not None), None)


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint holds: plain containers, numbers and tensors, whoever wrote it."""
    state: dict[str, Any] = torch_files.load(path)
    return state


def _state(path: Path) -> tuple[dict[str, Any] | None, str]:
    """What a file holds from which a run can go on; or None, and why it cannot."""
    try:
        if atomic.matches_checksum(path) is False:
            return None, "is damaged (its SHA-256 is another)"
        state = read(path)
    except FileNotFoundError:
        return None, "leads nowhere"
    except Exception as error:  # noqa: BLE001 -- whatever the damage led it to
        own = type(error) is ValueError and "weights_only" not in str(error)  # torch's advice is to run the file
        return None, f"is damaged ({str(error)[:160] if own else type(error).__name__})"
    wrong = amiss(state, path.parent.parent)
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
        raise LabError(
            f"cannot go on from {shown(start.path)}, it does not fit this run ({reason}): start a new run"
        ) from error


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

"""What a checkpoint must hold for a run to go on from it."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_SHAPES = {
    "epoch": int, "global_step": int, "state_dict": dict, "loops": dict, "learner": dict, "optimizer_states": list,
}  # fmt: skip
_OPTIONAL = {"callbacks": dict, "lr_schedulers": list, "hyper_parameters": dict, "trained": dict, "should_stop": int}
_LOOPS = {"epoch_progress", "epoch_loop.batch_progress", "epoch_loop.state_dict"}
_LEARNER = {"sums": Tensor, "values": dict, "fresh": list, "loader": dict}


def amiss(state: Any) -> str | None:
    """What keeps a run from going on from this; None if nothing that can be told without the run does."""
    return next(_complaints(state), None)


def _complaints(state: Any) -> Iterator[str]:
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

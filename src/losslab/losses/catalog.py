"""The losses that conf/loss composes, by name."""

from contextlib import nullcontext
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from losslab import CONF
from losslab.io.conf_groups import choices
from losslab.losses.base import Loss
from losslab.targets import Kind

BY_HAND = ("custom",)
"""Choices that are no loss until something is added on the command line."""


def names() -> list[str]:
    """The names of all losses, in alphabetical order."""
    return [name for name in choices("loss") if name not in BY_HAND]


def config(name: str, *overrides: str) -> dict[str, Any]:
    """A loss as `loss=NAME loss.KEY=VALUE ...` composes it. What only a run can know (a teacher) is null."""
    # Inside a command Hydra runs already, and refuses to be started again.
    here = GlobalHydra.instance().is_initialized()
    with nullcontext() if here else hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra.compose(f"loss/{name}", list(overrides))
    for key in composed:
        if OmegaConf.is_missing(composed, key):
            OmegaConf.update(composed, str(key), None)
    loss: DictConfig = composed.loss
    return OmegaConf.to_container(loss, resolve=True)  # type: ignore[return-value]


def wants(name: str) -> tuple[Kind, ...]:
    """The kinds of target a loss takes. Most say so by their class, without being composed and made."""
    plain = OmegaConf.load(CONF / "loss" / f"{name}.yaml")
    if "defaults" in plain:
        return make(name).wants
    loss: type[Loss] = get_class(OmegaConf.select(plain, "_target_"))
    return loss.wants


def make(name: str, *overrides: str) -> Loss:
    """The loss itself."""
    loss: Loss = instantiate(config(name, *overrides))
    return loss

"""The losses of conf/loss, by name."""

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

_INCOMPLETE = ("custom",)
"""Choices that are no loss until the command line adds a value."""


def names() -> list[str]:
    """The names of all losses, in alphabetical order."""
    return [name for name in choices("loss") if name not in _INCOMPLETE]


def config(name: str, *overrides: str) -> dict[str, Any]:
    """The composed configuration of `loss=NAME loss.KEY=VALUE ...`. Missing values (a teacher) are null."""
    content = _content(name)
    if "defaults" in content or overrides:
        # Within a command Hydra is already initialised, and cannot be initialised twice.
        initialized = GlobalHydra.instance().is_initialized()
        with nullcontext() if initialized else hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            composed = hydra.compose(f"loss/{name}", list(overrides))
        for key in composed:
            if OmegaConf.is_missing(composed, key):
                OmegaConf.update(composed, str(key), None)
        content = composed.loss
    return OmegaConf.to_container(content, resolve=True)  # type: ignore[return-value]


def wants(name: str) -> tuple[Kind, ...]:
    """The kinds of target that a loss takes, read from its class; only a composed loss is instantiated."""
    content = _content(name)
    if "defaults" in content:
        return make(name).wants
    loss: type[Loss] = get_class(OmegaConf.select(content, "_target_"))
    return loss.wants


def make(name: str, *overrides: str) -> Loss:
    """Instantiate a loss."""
    loss: Loss = instantiate(config(name, *overrides))
    return loss


def _content(name: str) -> DictConfig:
    """The YAML file of a loss, not composed."""
    content: DictConfig = OmegaConf.load(CONF / "loss" / f"{name}.yaml")  # type: ignore[assignment]
    return content

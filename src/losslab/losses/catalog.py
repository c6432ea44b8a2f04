"""The losses of conf/loss, by name."""

from contextlib import nullcontext
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from losslab import CONF
from losslab.io.conf_groups import choices
from losslab.losses.base import Loss
from losslab.targets import Kind


def names() -> list[str]:
    """Return the names of all losses, in alphabetical order."""
    return [name for name in choices("loss") if name != "custom"]  # custom has no `_target_`


def wants(name: str) -> tuple[Kind, ...]:
    """Return the kinds of target that a loss accepts, in a fraction of the time that it takes to instantiate it."""
    content: Any = OmegaConf.load(CONF / "loss" / f"{name}.yaml")
    accepted: tuple[Kind, ...] = get_object(content.get("loss", content)["_target_"]).wants
    parts = [wants(part) for entry in content.get("defaults", ()) if entry != "_self_" for part in entry.values()]
    return accepted or tuple(kind for kind in parts[0] if all(kind in part for part in parts))  # of a WeightedSum


def config(name: str, *overrides: str) -> dict[str, Any]:
    """Compose the configuration of `loss=NAME loss.KEY=VALUE ...`. Values that the user must set (`???`) are None."""
    content: Any = OmegaConf.load(CONF / "loss" / f"{name}.yaml")
    if "defaults" in content or overrides:
        # Inside a command Hydra is already initialised, and must not be initialised again.
        initialized = GlobalHydra.instance().is_initialized()
        with nullcontext() if initialized else hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            composed = hydra.compose(f"loss/{name}", list(overrides))
        for key in composed:
            if OmegaConf.is_missing(composed, key):
                OmegaConf.update(composed, str(key), None)
        content = composed.loss
    return OmegaConf.to_container(content, resolve=True)  # type: ignore[return-value]


def make(name: str, *overrides: str) -> Loss:
    """Instantiate the loss of `loss=NAME loss.KEY=VALUE ...`."""
    loss: Loss = instantiate(config(name, *overrides))
    return loss

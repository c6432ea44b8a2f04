"""`python train.py resume=RUN_FOLDER`: go on with a run that was interrupted, as if it had not been."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.utils import configure_log
from omegaconf import DictConfig, OmegaConf

from losslab import child, processes, ranks, resolvers, runs
from losslab.cli import running
from losslab.cli.composing import resolve
from losslab.cli.errors import one_line_errors
from losslab.cli.process import leave
from losslab.errors import LabError
from losslab.runs import RunFolder

logger = logging.getLogger("losslab")

_MAY_DIFFER = ("data.dir", "data.workers", "trainer.enable_progress_bar", "traceback")
"""What may be said anew, since it changes no result."""


def asked(arguments: Sequence[str]) -> bool:
    """Whether a command line asks to resume a run."""
    return any(argument.startswith("resume=") for argument in arguments)


def resume(arguments: Sequence[str]) -> NoReturn:
    """Resume the run that a command line names, and leave."""
    resolvers.register()
    with one_line_errors(show_all="traceback=true" in arguments):
        given = dict(argument.partition("=")[::2] for argument in arguments)
        folder = RunFolder(Path(given.pop("resume")))
        _check(folder, given)
        hydra_cfg, config, begun = _configuration(folder)
        _say_anew(config, folder, given)
        if ranks.here().rank == 0:
            _log_into(folder, hydra_cfg)
        if folder.metrics.is_file():
            logger.info("%s is finished: there is nothing to resume", runs.shown(folder.path))
            leave(0)
        _go_on(hydra_cfg, config, begun=begun)
    leave(0)


def _check(folder: RunFolder, given: Mapping[str, str]) -> None:
    if not folder.path.is_dir():
        message = f"resume={folder.path}: there is no such folder"
        raise LabError(message)
    other = [key for key in given if key not in _MAY_DIFFER]
    if other:
        message = (
            f"resume= goes on with a run as it was, {other[0]} cannot be said anew (only {', '.join(_MAY_DIFFER)}): "
            f"leave it out, or start a new run from its weights with ckpt_path={runs.shown(folder.last)}"
        )
        raise LabError(message)


def _configuration(folder: RunFolder) -> tuple[DictConfig | None, dict[str, Any], bool]:
    """What Hydra knew, the resolved configuration, and whether the run had begun.

    One that was killed before it wrote its config.json has done nothing yet, and begins with what Hydra composed.
    """
    composed = folder.path / ".hydra"
    try:
        hydra_cfg: Any = OmegaConf.load(composed / "hydra.yaml")
        cfg: Any = OmegaConf.load(composed / "config.yaml")
        choices = hydra_cfg.hydra.runtime.choices
    except Exception as error:  # not there, or cut off when the run was killed
        if folder.config.exists():
            return None, folder.read_config(), True
        message = f"{folder.path} holds no run that had begun: delete it and start the run again"
        raise LabError(message) from error
    if folder.config.exists():
        return hydra_cfg, folder.read_config(), True
    return hydra_cfg, resolve(cfg, choices, str(folder.path)), False


def _say_anew(config: dict[str, Any], folder: RunFolder, given: Mapping[str, str]) -> None:
    """Put in where the folder lies now, and what was said anew."""
    config.update(_moved(config, config["run_dir"], str(folder.path)))
    for key, text in given.items():
        group, _, name = key.rpartition(".")
        value: Any = OmegaConf.from_dotlist([f"value={text}"])
        (config[group] if group else config)[name] = value["value"]


def _moved(value: Any, old: str, new: str) -> Any:
    """A configuration in which every mention of the run folder is of another place."""
    if isinstance(value, dict):
        return {key: _moved(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [_moved(each, old, new) for each in value]
    return new if value == old else value


def _log_into(folder: RunFolder, hydra_cfg: DictConfig | None) -> None:
    """Speak to the terminal and to the end of the run's train.log, as when it began."""
    if hydra_cfg is None:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        return
    hydra_cfg.hydra.runtime.output_dir = str(folder.path)
    configure_log(hydra_cfg.hydra.job_logging, hydra_cfg.hydra.verbose)


def _go_on(hydra_cfg: DictConfig | None, config: dict[str, Any], *, begun: bool) -> None:
    place = ranks.here()
    if place.rank > 0 and not child.is_child():
        logging.getLogger().setLevel(logging.ERROR)  # one process of a run speaks for all
    try:
        if place.world == 1:
            world = ranks.wanted(config["trainer"], lambda: len(processes.gpus()))
            if world > 1:
                running.in_ranks(_rank, (hydra_cfg, config, begun), world)
                return
        running.run(config, resume=begun)
    except LabError as error:
        if config.get("traceback"):
            raise
        line = str(error) if place.rank == 0 else f"rank {place.rank}: {error}"
        logger.error("%s", line)  # noqa: TRY400 -- one line on purpose; also into train.log
        leave(1)


def _rank(hydra_cfg: DictConfig | None, config: dict[str, Any], begun: bool) -> float | None:
    resolvers.register()
    if ranks.here().rank == 0:
        _log_into(RunFolder(Path(config["run_dir"])), hydra_cfg)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
    return running.run(config, resume=begun)

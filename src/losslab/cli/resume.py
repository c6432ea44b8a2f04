"""`python train.py resume=RUN_FOLDER`: go on with a run that was interrupted, as if it had not been."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.utils import configure_log
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from losslab import CONF, runs
from losslab.cli import run
from losslab.cli.process import find_the_users_code, imports_without_gc, leave, one_line_errors
from losslab.errors import LabError
from losslab.io.untrusted import find_unknown_interpolation, read_yaml
from losslab.runs import RunFolder, trust
from losslab.runs.config import CHANGEABLE_ON_RESUME, find_problem
from losslab.runs.trust import check_resumable
from losslab.sweep.resume import refuse_others
from losslab.training.config import register, resolve
from losslab.training.distributed import environment, spawn, worker

logger = logging.getLogger("losslab")


def asked(arguments: Sequence[str]) -> bool:
    """Whether a command line asks to resume a run."""
    return any(argument.startswith("resume=") for argument in arguments)


def trusts(arguments: Sequence[str]) -> bool:
    """Whether a command line says of any package that it is trusted."""
    return any(
        trust.parse_option(argument.removeprefix("trust=")) for argument in arguments if argument.startswith("trust=")
    )


def resume(arguments: Sequence[str]) -> NoReturn:
    """Resume the run that a command line names, and leave."""
    register()
    with one_line_errors(show_all="traceback=true" in arguments):
        given = dict(argument.partition("=")[::2] for argument in arguments)
        folder = RunFolder(Path(given.pop("resume")))
        trusted = _trusted(given.pop("trust", "[]"))
        _check(folder, given)
        config, begun = _configuration(folder, given)
        config["trust"] = trusted  # never what the folder says of itself
        if environment.current_rank().rank == 0:
            _log_into(folder)
        if folder.metrics.is_file():
            logger.info("%s is finished: there is nothing to resume", runs.display_path(folder.path))
            leave(0)
        _go_on(config, begun=begun)
    leave(0)


def _trusted(text: str) -> list[str]:
    """The packages of trust=[a,b], whose code is then found in the working directory too."""
    names = trust.parse_option(text)
    trust.also(names)
    if names:
        find_the_users_code()
    return names


def _check(folder: RunFolder, given: Mapping[str, str]) -> None:
    if not folder.path.is_dir():
        raise LabError(f"resume={folder.path}: there is no such folder")
    anew = f"start a new run from its weights with ckpt_path={runs.display_path(folder.last)}"
    refuse_others(given, CHANGEABLE_ON_RESUME, "goes on with a run", anew)


def _configuration(folder: RunFolder, given: Mapping[str, str] | None = None) -> tuple[dict[str, Any], bool]:
    """The resolved configuration, for the place where it lies, with what is said anew; and whether the run had begun.

    One that was killed before it wrote its config.json has done nothing yet, and begins with what Hydra composed.
    """
    with imports_without_gc():  # what a configuration may name is looked up where it is defined
        begun = folder.config.exists()
        config = folder.read_config() if begun else _composed(folder)
        _say_anew(config, folder, given or {})
        trust.check_targets(config, folder.path)  # again: nothing is changed after this
    check_resumable(config, folder.path)
    return config, begun


def _composed(folder: RunFolder) -> dict[str, Any]:
    source = folder.path / ".hydra" / "config.yaml"
    try:
        plain = read_yaml(source)
        choices = read_yaml(source.with_name("hydra.yaml"))["hydra"]["runtime"]["choices"]
        plain.pop("trust", None)
        wrong = find_unknown_interpolation(plain)
        named = all(isinstance(choice, str | None) for choice in choices.values())
        named &= all(choices[group] for group in ("model", "data", "loss"))
    except Exception as error:  # not there, or cut off when the run was killed
        if runs.find_runs([folder.path]).runs:
            folder.read_config()  # says that it is none, but holds some
        raise LabError(f"{folder.path} holds no run that had begun: delete it and start the run again") from error
    if wrong is not None or not named:
        what = "the choices of its groups are no names" if wrong is None else f"it holds {ascii(wrong)[:80]}"
        raise LabError(f"{source} is not resolved for whom it was not written for ({what}): start the run again")
    try:
        config = resolve(OmegaConf.create(plain), choices, str(folder.path))
    except OmegaConfBaseException as error:
        raise LabError(f"{source} cannot be resolved ({str(error).splitlines()[0]}): start the run again") from error
    lacking = find_problem(config)
    if lacking is not None:
        raise LabError(f"{source} is no configuration of a run ({lacking}): start the run again")
    trust.check_targets(config, source)
    return config


def _say_anew(config: dict[str, Any], folder: RunFolder, given: Mapping[str, str]) -> None:
    """Put in where the folder lies now, and what was said anew.

    Raises:
        LabError: it does not say where it lay.
    """
    old = config.get("run_dir")
    if not isinstance(old, str) or not old or "\0" in old:
        raise LabError(f"{folder.path}: its run_dir is no path: nothing is made. Start the run again")
    config.update(_moved(config, old, str(folder.path)))
    for key, text in given.items():
        group, _, name = key.rpartition(".")
        value: Any = OmegaConf.from_dotlist([f"value={text}"])
        (config[group] if group else config)[name] = value["value"]


def _moved(value: Any, old: str, new: str) -> Any:
    """A configuration in which every mention of the run folder is of another place; what is made stays what it is."""
    if isinstance(value, dict):
        return {key: each if key == "_target_" else _moved(each, old, new) for key, each in value.items()}
    if isinstance(value, list):
        return [_moved(each, old, new) for each in value]
    return new if value == old else value


def _log_into(folder: RunFolder) -> None:
    """Speak to the terminal and to the end of the run's train.log, as losslab does and not as the folder says.

    Raises:
        LabError: what stands there is not the run's own file.
    """
    file = folder.path / "train.log"
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise LabError(f"{file} is a link or no file, and would be written to: remove it")
    logging_of: Any = OmegaConf.load(CONF / "hydra" / "job_logging" / "losslab.yaml")
    logging_of.handlers.file.filename = str(file)
    configure_log(logging_of)


def _go_on(config: dict[str, Any], *, begun: bool) -> None:
    place = environment.current_rank()
    if place.rank > 0 and not worker.is_worker():
        logging.getLogger().setLevel(logging.ERROR)  # one process of a run speaks for all
    try:
        if place.world_size == 1:
            world = environment.requested_processes(config["trainer"], lambda: len(spawn.visible_gpus()))
            if world > 1:
                run.in_ranks(_rank, (config, begun), world)
                return
        run.run(config, resume=begun)
    except LabError as error:
        if config.get("traceback"):
            raise
        line = str(error) if place.rank == 0 else f"rank {place.rank}: {error}"
        logger.error("%s", line)  # noqa: TRY400 -- one line on purpose; also into train.log
        leave(1)


def _rank(config: dict[str, Any], begun: bool) -> float | None:
    register()
    if environment.current_rank().rank == 0:
        _log_into(RunFolder(Path(config["run_dir"])))
    else:
        logging.getLogger().addHandler(logging.NullHandler())
    return run.run(config, resume=begun)

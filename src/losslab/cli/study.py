"""`losslab study`: which loss should I use, and is the difference real? Tunes, races and compares groups of runs."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser

from losslab import CONF, runs
from losslab.cli import train
from losslab.cli.process import one_line_errors
from losslab.errors import LabError
from losslab.io.untrusted import read_json
from losslab.runs import trust
from losslab.runs.sweep_summary import STUDY_SWEEPER
from losslab.study.settings import TYPED_AGAIN, Settings, expand_groups
from losslab.sweep.resume import FLAGS
from losslab.training.config import ProcessContext, compose
from losslab.training.distributed import spawn

_HELP = """\
Which loss should I use, and is the difference real? Tune each loss at equal cost, race them on fresh seeds, answer.

Usage: losslab study GROUP=CHOICE,CHOICE KEY=VALUE ... [--dry-run]

It takes the overrides of `losslab train`. Values with commas are the groups to compare; all other overrides apply to
all groups. A study trains one run of each group first, to estimate its time; --dry-run stops there.

  losslab study model=mlp data=digits loss=cross_entropy,focal,gce,mse
  losslab study model=mlp data=digits loss=focal loss.gamma=1,2,5 study.max_seeds=40
  losslab study model=mlp data=digits loss=cross_entropy,focal 'study.tune=[optimizer.lr,{{loss.gamma:[0.5,5]}}]'
  losslab study model=cifar_cnn loss=cross_entropy,mse study.reference=loss=cross_entropy study.max_seeds=40
  losslab study resume=STUDY_FOLDER                       continue an interrupted study
  losslab study resume=STUDY_FOLDER study.max_seeds=40    add seeds, or with loss=... losses, to a finished one

Settings (conf/hydra/sweeper/study.yaml):

{settings}

The folder of the study gets answer.md, answer.csv, study.json and figures. Its runs are ordinary sweeps in tune/ and
race/: `losslab compare STUDY_FOLDER/race` reads them.
"""

_RECORDED_SETTINGS = ("hydra.launcher.n_jobs", "hydra.launcher.fuse")
"""The settings of Hydra that may be read from the folder of a study."""
_SETTING = "study."


def study(arguments: Sequence[str] | None = None) -> None:
    """Run the study on the command line, or continue one with resume=STUDY_FOLDER."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or {"--help", "-h"} & set(given):
        settings = (CONF / "hydra" / "sweeper" / "study.yaml").read_text(encoding="utf-8").splitlines()
        lines = [f"  study.{line}" for line in settings if ":" in line and not line.startswith(("#", "_"))]
        sys.stdout.write(_HELP.format(settings="\n".join(lines)))
        return
    with one_line_errors(show_tracebacks="traceback=true" in given):
        command = ["study.dry_run=true" if each == "--dry-run" else each for each in _join_trust(given)]
        command = [each for each in command if each not in FLAGS]
        resumed = [each.partition("=")[2] for each in command if each.startswith("resume=")]
        folder = Path(resumed[-1]).expanduser() if resumed else None
        if folder is not None:
            command = _continued(folder, [each for each in command if not each.startswith("resume=")])
        else:
            run_dir = [each.partition("=")[2] for each in command if each.startswith("run_dir=")]
            folder = Path(run_dir[-1].strip("'\"")).expanduser() if run_dir else default_folder()
        sys.argv[1:] = _as_hydra(command, folder)
    train.train(ProcessContext(command=[each for each in command if not each.startswith("run_dir=")]))


def _join_trust(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with trust=PACKAGE instead of the option --trust PACKAGE of the other commands."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--trust":
            joined[-1] = f"trust=[{argument}]"
        else:
            joined.append(argument.replace("--trust=", "trust=", 1) if argument.startswith("--trust=") else argument)
    return joined


def _continued(folder: Path, changes: Sequence[str]) -> list[str]:
    """Return the command of a study with some changes. The folder of the study is untrusted.

    Raises:
        LabError: the folder is not that of a study, or its command would run code that the user does not trust.
    """
    file = folder / runs.STUDY
    if not file.is_file():
        raise LabError(f"resume={folder}: there is no study in this folder (it has no {runs.STUDY})")
    content = read_json(file)
    recorded = content.get("command") if isinstance(content, dict) else None
    if not isinstance(recorded, list) or not all(isinstance(each, str) for each in recorded):
        raise LabError(f"{file} does not record the command of the study: type it again with run_dir={folder}")
    left_out = {*map(_key, changes), "run_dir", "resume", "trust", "study.dry_run"}
    kept = [each for each in recorded if _key(each) not in left_out]
    for key in map(_key, kept):
        is_hydra = key.startswith(("hydra", "-")) and key not in _RECORDED_SETTINGS
        if is_hydra or key in TYPED_AGAIN:
            raise LabError(f"{file} sets {key}, which is not read from a folder: add {key}=... to the command")
    _check_trust(kept, file, changes)
    return [*kept, *changes]


def _key(argument: str) -> str:
    """Return the key of an override, such as "loss" of loss=mse and "x" of +x=1."""
    return argument.lstrip("+~").partition("=")[0]


def _check_trust(recorded: Sequence[str], file: Path, changes: Sequence[str]) -> None:
    """Raise a LabError if the recorded command names classes or paths that a folder must not name."""
    named = next((each.partition("=")[2] for each in changes if each.startswith("trust=")), "")
    packages = [package.strip() for package in named.strip("[]").split(",")]
    trusted = trust.parse_packages([package for package in packages if package])
    settings = [each.removeprefix(_SETTING) for each in recorded if each.startswith(_SETTING + "groups=")]
    parser = OverridesParser.create()
    more: list[Any] = [text for each in settings for text in cast("list[Any]", parser.parse_override(each).value())]
    arguments = [each for each in recorded if not each.startswith((_SETTING, "hydra."))]
    for overrides in expand_groups(arguments, Settings(groups=[str(text) for text in more])):
        config = compose(list(overrides), run_dir=str(file.parent / "run"))
        spawn.run_in_subprocess(trust.check_targets, config, file, trusted)
        trust.check_write_paths(config, file.parent / "run", trusted)


def _as_hydra(command: Sequence[str], folder: Path) -> list[str]:
    """Return the command as arguments of Hydra, whose sweeper is the study."""
    known = {field.name for field in fields(Settings)}
    settings, overrides = [], []
    for each in command:
        if each.startswith(_SETTING):
            name = each.removeprefix(_SETTING).partition("=")[0]
            if name not in known:
                raise LabError(f"there is no setting study.{name}; there are {', '.join(sorted(known))}")
            value = each.partition("=")[2]
            if name == "reference" and value[:1] not in {"'", '"'}:
                value = f"'{value}'"  # it may contain =, which Hydra's grammar does not allow in a plain value
            if name == "groups":
                value = value.replace("${", r"\\\${")  # to be resolved by each run: Hydra unescapes it twice before
            settings.append(f"hydra.sweeper.{name}={value}")
        elif not each.startswith("run_dir="):
            overrides.append(each)
    if not any(each.startswith("hydra.launcher.fuse=") for each in overrides):
        settings.append("hydra.launcher.fuse=auto")
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return ["-m", STUDY_SWEEPER, f"hydra.sweep.dir='{quoted}'", *settings, *overrides]


def default_folder() -> Path:
    """Return a new folder for a study: outputs/study-TIME."""
    return Path("outputs") / f"study-{runs.timestamp()}"

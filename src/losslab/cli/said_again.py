"""Which words of a command that a folder holds are said again for whom they were not written for."""

import re

from losslab import CONF, trust

FLAGS = ("-m", "--multirun")
_LEFT_OUT = frozenset({"trust", "run_dir", "hydra.sweep.dir"})
"""Whom to trust and where to write is never what a folder says."""
_OWN = frozenset({
    "seed", "name", "tags", "train", "test", "ckpt_path", "teacher", "compile", "optimized_metric", "examine",
    "traceback",
})  # fmt: skip
_GROUPS = frozenset({
    "data", "loss", "optimizer", "scheduler", "mix", "imbalance", "noise", "trainer", "callbacks", "logger", "model",
    "experiment", "debug",
})  # fmt: skip
_OF_HYDRA = re.compile(
    r"hydra\.launcher\.n_jobs|hydra\.sweeper\.(n_trials|n_jobs|direction|study_name|max_failure_rate|sampler\.seed)"
)
"""What of Hydra may be set: no launcher of its own, no logging, no other place to look for configurations."""
_OF_PLUGINS = {"hydra/sweeper": {"basic", "optuna"}, "hydra/launcher": {"losslab"}}
"""Choices that are no files of conf/; hydra/sweeper/sampler has only Optuna's own."""
_PARAMS = "hydra.sweeper.params."
_ELSEWHERE = frozenset({"data.url", "data.verify"})
"""By which something would be fetched from anywhere, and unpacked unseen."""
_KEY = re.compile(r"(\+\+?|~)?([A-Za-z]\w*(?:[./]\w+)*)", re.ASCII)
_CHOICE = re.compile(r"[\w-]+", re.ASCII)
_CHOICES = re.compile(r"choice\((.*)\)|\[(.*)\]")
_TARGET = re.compile(r"""_target_['"]?\s*[=:]\s*([\w.]+)\s*(?=[,}\]]|$)""", re.ASCII)


def kept(command: list[str]) -> list[str]:
    """The words of a command without those that say where to write or whom to trust; always of a sweep."""
    left = [part for part in command if part.lstrip("+").partition("=")[0] not in _LEFT_OUT]
    return left if set(left) & set(FLAGS) else [FLAGS[0], *left]


def targets(part: str) -> list[str]:
    """The names in a word of what is to be made."""
    return _TARGET.findall(part)


def harmless(part: str) -> bool:
    """Whether a word does no more than choose and set what losslab has."""
    if part in FLAGS:
        return True
    key, _, value = part.partition("=")
    plain = part.replace("${seed}", "0")  # which docs/choosing.md has jobs refer to
    found = _KEY.fullmatch(key)
    if found is None or "${" in plain or "\n" in part or not _makes_what_is_trusted(part):
        return False
    name = found[2].removeprefix(_PARAMS)
    if name.startswith("hydra"):
        return _of_hydra(name, value)
    group, _, inside = name.partition(".")
    if group in _GROUPS and not inside:
        return (found[1] == "~" and not value) or all(_is_choice(group, choice) for choice in _choices(value))
    if inside:
        writes = group in {"callbacks", "logger"} and ("/" in value or ".." in value)
        return (group in _GROUPS or group == "notes") and "/" not in name and name not in _ELSEWHERE and not writes
    return name in _OWN


def _of_hydra(name: str, value: str) -> bool:
    if name == "hydra/sweeper/sampler":
        return bool(_CHOICE.fullmatch(value))
    if name in _OF_PLUGINS:
        return value in _OF_PLUGINS[name]
    return bool(_OF_HYDRA.fullmatch(name)) and not {"{", "/"} & set(value)


def _choices(value: str) -> list[str]:
    listed = _CHOICES.fullmatch(value)
    return [choice.strip() for choice in (value if listed is None else listed[1] or listed[2] or "").split(",")]


def _is_choice(group: str, choice: str) -> bool:
    """Whether it is a file of conf/ and so of losslab's own. Jobs of SLURM have no summary to be completed by."""
    there = bool(_CHOICE.fullmatch(choice)) and (CONF / group / f"{choice}.yaml").is_file()
    return choice == "null" or (there and choice != "slurm")


def _makes_what_is_trusted(part: str) -> bool:
    named = targets(part)
    return len(named) == part.count("_target_") and all(map(trust.trusted, named))

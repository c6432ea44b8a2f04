"""Random configurations: composed, built and trained for two steps in this process, or refused in one line.

`campaign(seed, start, count)` always yields the same trials, each independent of the others.
"""

import contextlib
import inspect
import logging
import os
import pickle
import random
import re
import signal
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import hydra
import numpy as np
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from lightning import Callback, Trainer
from omegaconf import OmegaConf, open_dict
from PIL import Image

from losslab import CONF, runs
from losslab.cli import process
from losslab.cli import run as run_command
from losslab.data import cifar10
from losslab.errors import LabError
from losslab.io import conf_groups
from losslab.targets import Kind, choose_kind
from losslab.training import config as training_config
from losslab.training import experiment, instantiate
from losslab.training.config import resolve
from soak.record import Case, CaseResult

_SEED = 0
_PER_CASE = 50
STEPS = 2
SECONDS = 120
"""The time after which a trial counts as hanging."""

NUMBERS = ("0", "-1", "1", "2", "0.5", "-0.5", "1e-3", "1e308", "-1e308", "1e-320", "nan", "inf", "-inf", f"{10**18}")
OTHERS = (
    *("null", "true", "false", "[]", "{}", "[1]", "[0.1,0.9]", "[null]", "[abc]", "{a:1}", "{_target_:abc}", "''"),
    *("abc", "none", "auto", "'1'", "'0.1'", "1e3", "'ä→😀'", "'a b'", "'a/b'", "'../up'", "'%s{}'", "'a\\nb'"),
    *("'${seed}'", "'${nowhere}'", "'[red]'", "'\\x00'", "'\ud800'", f"'{'x' * 300}'"),
)
_DATA = {
    **dict.fromkeys(("line", "linear_synthetic", "diabetes", "counts"), Kind.VALUES),
    **dict.fromkeys(("digits", "image_folder", "cifar10"), Kind.INDEX),
    **dict.fromkeys(("breast_cancer", "multilabel_synthetic"), Kind.BINARY),
}
_IMAGES = "given"
"""The folder of the image files, inside the working directory of a trial."""
_GROUPS = tuple(name for name in conf_groups.NAMES if name not in {"model", "data", "trainer", "experiment"})
"""The groups of which a trial chooses some; it always chooses a model, data and a trainer."""
_PRECISIONS = (
    "32-true",
    "64-true",
    "64-true",
    "bf16-mixed",
    "bf16-mixed",
    "bf16-true",
    "16-mixed",
    "transformer-engine",
)
_BARE = re.compile(
    r"object (is not|has no|of type)|has no attribute|has no len|not supported between|unexpected keyword"
    r"|positional arg|unsupported operand|cannot be interpreted|invalid literal|index out of|too large to convert"
    r"|math domain|can't mult|cannot convert|must be real number|not iterable|not callable|not subscriptable"
    r"|unhashable|Error in call|<class '|incompatible function|invalid combination of|could not convert string"
    r"|__init__\(\)|missing \d+ required"
)
"""Python's own error messages, which do not tell a user which value is wrong."""


@dataclass(frozen=True)
class Trial:
    """The outcome of one configuration."""

    number: int
    overrides: tuple[str, ...]
    outcome: str
    """"trained"; "refused", with a message that a user can act on; "failed" for anything else."""
    message: str = ""
    """The error message, or what is wrong with it."""


def cases(count: int) -> list[Case]:
    """Fifty configurations in each case."""
    return [Case("configurations", str(start)) for start in range(0, count, _PER_CASE)]


def run(case: Case, _: Path) -> CaseResult:
    """Try the configurations of a case in this process → those that failed."""
    trials = list(campaign(_SEED, int(case.name), _PER_CASE))
    failures = [
        ascii(f"{' '.join(each.overrides)}: {each.message}")[:500] for each in trials if each.outcome == "failed"
    ]
    return CaseResult(len(trials), failures)


def campaign(seed: int, start: int, count: int) -> Iterator[Trial]:
    """Trials start .. start + count - 1 of this seed."""
    for number in range(start, start + count):
        yield run_trial(draw(random.Random(f"{seed}/{number}")), number)  # noqa: S311


def draw(dice: random.Random) -> list[str]:
    """Draw overrides of any config groups and keys; most of them are compatible."""
    fixed = _groups(dice)
    keys = sorted(set(_keys(fixed)))
    changes = [f"{dice.choice(keys)}={dice.choice(NUMBERS + OTHERS)}" for _ in range(dice.choice((0, 1, 1, 1, 1, 2)))]
    if dice.random() < 0.1:
        changes.append(f"+trainer.{dice.choice(sorted(_ADDED))}={dice.choice(NUMBERS + OTHERS)}")
    if dice.random() < 0.05:
        changes.append(f"+{_misspelt(dice, dice.choice(keys))}={dice.choice(NUMBERS + OTHERS)}")
    return fixed + changes


def _groups(dice: random.Random) -> list[str]:  # noqa: C901 -- one line for each choice
    model = dice.choice(("linear", "mlp", "mlp", "mlp", "cifar_cnn"))
    if dice.random() < 0.03:
        model = dice.choice(("airbench", "resnet18"))
    data = dice.choice([*_DATA] if model in {"linear", "mlp"} else ["digits", "image_folder", "cifar10"])
    chosen = {"model": model, "data": data, "trainer": "cpu"}
    for group in _GROUPS:
        if group == "mix" and data not in {"digits", "image_folder", "cifar10"}:
            continue
        if dice.random() < (0.5 if group in {"loss", "optimizer", "scheduler", "callbacks"} else 0.12):
            chosen[group] = dice.choice(_compatible(group, _DATA[data]) if dice.random() < 0.9 else _names(group))
    fixed = [f"{group}={choice}" for group, choice in chosen.items()]
    if chosen.get("callbacks") == "anneal":
        fixed += ["callbacks.anneal.parameter=gamma", "callbacks.anneal.end=0"]
    if "loss" not in chosen and _DATA[data] is not Kind.VALUES:
        fixed.append(f"loss={'cross_entropy' if _DATA[data] is Kind.INDEX else 'bce'}")
    if data in {"image_folder", "cifar10"}:
        fixed += [f"data.dir={_IMAGES}", *(["data.verify=false", "data.val_size=10"] if data == "cifar10" else [])]
    if dice.random() < 0.3:
        fixed.append(f"trainer.precision={dice.choice(_PRECISIONS)}")
    if dice.random() < 0.2:
        fixed.append(f"trainer.accumulate_grad_batches={dice.choice((2, 3, 100))}")
    if dice.random() < 0.2:
        fixed.append(f"trainer.gradient_clip_val={dice.choice((0.1, 5))}")
        fixed.append(f"trainer.gradient_clip_algorithm={dice.choice(('norm', 'value'))}")
    return [*fixed, "data.batch_size=8", "trainer.enable_progress_bar=false", f"trainer.max_steps={STEPS}",
            "trainer.limit_val_batches=2", "trainer.limit_test_batches=2"]  # fmt: skip


@cache
def _names(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def _compatible(group: str, kind: Kind) -> list[str]:
    """The choices of a config group that are compatible with targets of a kind."""
    values = kind is Kind.VALUES
    unfit = {"noise": ("asymmetric", "pair_flip", "symmetric") if values else ("heteroscedastic", "outliers")}
    if group == "loss":
        return [name for name in _names("loss") if choose_kind(kind, _wants(name)) is not None]
    if values and group == "imbalance":
        return ["none"]
    return [name for name in _names(group) if name not in ("human", *unfit.get(group, ()))]


@cache
def _wants(loss: str) -> tuple[Kind, ...]:
    """The target kinds of a loss. Losses composed of others take class indices."""
    config = OmegaConf.to_container(OmegaConf.load(CONF / "loss" / f"{loss}.yaml"))
    if "losslab" not in config.get("_target_", ""):
        return ()
    wants = instantiate.import_class("loss", config).wants
    return wants if isinstance(wants, tuple) and wants else (Kind.INDEX,)


def _write_images(folder: Path) -> None:
    """Write a folder of images, and CIFAR-10 files of random images."""
    for split, colour in product(("train", "val", "test"), ("blue", "red")):
        (folder / split / colour).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), colour).save(folder / split / colour / f"{number}.png")
    (folder / cifar10.FOLDER).mkdir()
    numbers = np.random.default_rng(0)
    for name in (*cifar10.TRAIN, *cifar10.TEST):
        pixels, labels = numbers.integers(0, 256, (8, 3072), dtype=np.uint8), numbers.integers(0, 10, 8).tolist()
        (folder / cifar10.FOLDER / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}, protocol=2))


def _keys(overrides: Sequence[str]) -> Iterator[str]:
    """The config keys of the composed configuration, with those of mappings."""
    of = dict(override.split("=", 1) for override in overrides)
    yield from _all_keys("seed=0")
    for group in ("model", "data", *_GROUPS):
        if of.get(group, "null") != "null":
            yield from _all_keys(f"{group}={of[group]}")


@cache
def _all_keys(override: str) -> set[str]:
    training_config.register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", [] if override == "seed=0" else [override])
    return set(_within(OmegaConf.to_container(cfg, resolve=False), "")) - (
        set() if override == "seed=0" else _all_keys("seed=0")
    )


def _within(value: Any, path: str) -> Iterator[str]:
    for name, each in value.items():
        yield f"{path}{name}"
        if isinstance(each, dict):
            yield from _within(each, f"{path}{name}.")


_ADDED = set(inspect.signature(Trainer).parameters) - {
    "callbacks",
    "logger",
    "default_root_dir",
    "strategy",
    "max_time",
}


def _misspelt(dice: random.Random, key: str) -> str:
    at = dice.randrange(len(key))
    return key[:at] + dice.choice("aeixz") + key[at + 1 :]


def run_trial(overrides: Sequence[str], number: int = 0) -> Trial:
    """Compose, build, train and test in a new folder, as `python train.py OVERRIDES` would."""
    cwd = Path.cwd()
    with TemporaryDirectory() as folder, _quiet(), _time_limit(SECONDS):
        os.chdir(folder)
        if f"data.dir={_IMAGES}" in overrides:
            _write_images(Path(folder) / _IMAGES)
        try:
            message = _train(list(overrides), Path(folder))
        except Exception as error:  # noqa: BLE001 -- any other exception is a failure
            where = traceback.extract_tb(error.__traceback__)[-1]
            line = " ".join(f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})".split())
            return Trial(number, tuple(overrides), "failed", line)
        finally:
            os.chdir(cwd)
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
        if message is None:
            return Trial(number, tuple(overrides), "trained")
        wrong = _find_problem(message)
        return Trial(
            number, tuple(overrides), "failed" if wrong else "refused", f"{wrong}: {message}" if wrong else message
        )


def _train(overrides: list[str], folder: Path) -> str | None:
    """Train as the command does → its error message, or None."""
    path = None
    context = training_config.ProcessContext()
    build = experiment.build
    try:
        cfg = _composed(overrides, context)
        path = Path(OmegaConf.select(cfg, "hydra.run.dir"))
        choices = dict(cfg.hydra.runtime.choices)
        with open_dict(cfg):
            del cfg["hydra"]
        config = resolve(cfg, choices, str(path))
        with mock.patch.object(experiment, "build", lambda config: _limit_steps(build(config))):
            run_command.run(config)
    except LabError as error:
        line = str(error)
    except Exception as error:
        message = process.message_for_user(error)
        if message is None:
            raise
        line = message
    else:
        return None
    if path is not None:
        runs.discard(path, context.claimed)
        if not (path / "config.json").exists():
            left = [str(file.relative_to(folder)) for file in folder.iterdir() if file.name != _IMAGES]
            assert not left, f"left behind {left} after: {line}"
    return line


def _composed(overrides: list[str], context: training_config.ProcessContext) -> Any:
    training_config.register(context)
    OmegaConf.clear_cache(OmegaConf.create())
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return cfg


def _limit_steps(built: experiment.Experiment) -> experiment.Experiment:
    built.trainer.callbacks.insert(0, _StopAfterSteps())
    return built


class _StopAfterSteps(Callback):
    """Ends a run after STEPS batches, whatever its configuration says."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 >= STEPS:
            trainer.should_stop = True
            trainer.fit_loop.epoch_loop.min_steps = trainer.fit_loop.min_epochs = None


def _find_problem(line: str) -> str | None:
    """Why a user cannot act on an error message; None if one can."""
    lines = line.splitlines() or [""]
    if len(lines) > 1 and not line.endswith("set examine=false to train anyway"):
        return f"{len(lines)} lines"
    if not line.strip() or len(line) > 1200:
        return f"{len(line)} characters"
    if bare := _BARE.search(line):
        return f"Python's own message ({bare[0]})"
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def on_alarm(*_: Any) -> None:
        raise TimeoutError(f"did not end within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

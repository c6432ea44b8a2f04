"""A `_target_` in an untrusted configuration is neither imported nor called unless it is on the allow-list."""

import contextlib
import gc
import json
import logging
import os
import sys
from pathlib import Path

import folders
import pytest
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

sys.path.insert(0, str(Path(__file__).parent))

from configurations import ALL, LIVE, OPENED, filled, node

from losslab import CONF
from losslab.analysis.evaluate import evaluation, export, predict
from losslab.analysis.explain.solution import load_solutions
from losslab.cli import train as command
from losslab.errors import LabError
from losslab.runs import RunFolder, trust
from losslab.training import teacher
from losslab.training.config import register
from losslab.training.reopen import EvaluationRequest

PLACES = (
    "loss",
    "model",
    "data.options",
    "callbacks.mine",
    "trainer.plugins",
    "optimizer.groups",
    "noise",
    "unheard_of",
)


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """A file that malicious code creates. Importing `hostile_module` from the working directory creates it too."""
    file = tmp_path / "canary"
    here = tmp_path / "here"
    here.mkdir()
    (here / "hostile_module.py").write_text(f"open({str(file)!r}, 'w')\nanything = list\n")
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "hostile_module", raising=False)
    return file


def readers(folder: Path):
    """Return all functions that instantiate the configuration of a run."""
    return (
        lambda: evaluation.evaluate(EvaluationRequest(folder)),
        lambda: predict.load_classifier(folder),
        lambda: export.export(EvaluationRequest(folder), folder / "new.pt2"),
        lambda: load_solutions([RunFolder(folder)], "best"),
        lambda: teacher.network_of(str(folder)),
        lambda: command.read_configuration(RunFolder(folder)),
    )


def refused(functions):
    """Check that each function raises a LabError of one line, and return the messages."""
    messages = []
    for function in functions:
        with pytest.raises(LabError) as found:
            function()
        assert "\n" not in str(found.value)
        messages.append(str(found.value))
    return messages


def put(config, place, value):
    *groups, last = place.split(".")
    for group in groups:
        config = config.setdefault(group, {})
    config[last] = value


def sound(path: Path = Path("run")):
    """Return a configuration that no check refuses."""
    return folders.config(path=str(path), loss___target_="losslab.losses.mse.MSE", ckpt_path=None)


def run(path: Path, config=None) -> Path:
    """Create a run folder with this configuration."""
    folders.run(path)
    (path / "config.json").write_text(json.dumps(config or sound(path)))
    return path


CHOICES = "model: mlp, data: digits, loss: mse, optimizer: adam, scheduler: constant, trainer: cpu"


def not_started(path: Path, config, hydra=f"{{hydra: {{runtime: {{choices: {{{CHOICES}}}}}}}}}") -> RunFolder:
    """Create the folder of a run that was killed before it wrote its config.json."""
    (path / ".hydra").mkdir(parents=True)
    (path / ".hydra" / "config.yaml").write_text(config if isinstance(config, str) else yaml.dump(config))
    (path / ".hydra" / "hydra.yaml").write_text(hydra)
    return RunFolder(path)


@pytest.mark.parametrize("name", ALL)
def test_unlisted_target_is_neither_called_nor_imported(name, tmp_path, canary):
    place = PLACES[list(ALL).index(name) % len(PLACES)]
    config = sound() | {"trust": ["os", "builtins", "hostile_module"]}
    put(config, place, filled(ALL[name], str(canary)))
    for line in refused(readers(run(tmp_path / "run", config))):
        assert f"{place}." in line or f"its {place} has no _target_" in line, line
    register()
    refused([lambda: command.read_configuration(not_started(tmp_path / "not-started", config))])
    assert not canary.exists()
    assert "hostile_module" not in sys.modules


@pytest.mark.filterwarnings("ignore")
def test_malicious_targets_are_called_if_they_are_not_checked(canary):
    """The negative control: the targets are not harmless. Hydra's block-list stops some of them."""
    hit = []
    for name, value in LIVE.items():
        sys.modules.pop("hostile_module", None)
        with contextlib.suppress(Exception):  # most results have the wrong type, but the target was called
            instantiate({"part": filled(value, str(canary))})
        if canary.exists():
            hit.append(name)
            canary.rmdir() if canary.is_dir() else canary.unlink()
    gc.collect()  # closes the files that are still open, while warnings are ignored
    assert len(hit) >= 28, sorted(set(LIVE) - set(hit))


def named(value):
    if isinstance(value, dict):
        yield from ([value["_target_"]] if "_target_" in value else [])
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from named(each)


def test_targets_of_conf_are_listed():
    files = [path for path in CONF.rglob("*.yaml") if path.parent.parent.name != "hydra"]
    targets = {target for path in files for target in named(yaml.safe_load(path.read_text()))} - {"???"}
    assert len(targets) > 80
    for target in targets:
        trust.check_targets({"a": node(target)}, Path())


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.MSELoss", "torch.nn.modules.loss.MSELoss", "torch.nn.functional.huber_loss", "torch.optim.adam.Adam",
        "torch.optim.lr_scheduler.LambdaLR", "lightning.pytorch.callbacks.early_stopping.EarlyStopping",
        "lightning.pytorch.loggers.CSVLogger", "torchmetrics.Accuracy", "torchmetrics.classification.MulticlassF1Score",
    ],
)  # fmt: skip
def test_common_classes_of_libraries_are_listed(target):
    trust.check_targets({"a": [node(target)]}, Path())


@pytest.mark.parametrize(
    "target",
    [
        "lightning.pytorch.loggers.WandbLogger", "lightning.pytorch.loggers.MLFlowLogger",
        "lightning.pytorch.loggers.comet.CometLogger", "lightning.pytorch.loggers.litlogger.LitLogger",
        "torchmetrics.text.BERTScore", "torchmetrics.image.fid.FrechetInceptionDistance",
        "torchmetrics.multimodal.CLIPScore", "torchmetrics.MetricTracker", "torchmetrics.text.bert.BERTScore",
    ],
)  # fmt: skip
def test_networked_class_must_be_trusted_by_name(target):
    with pytest.raises(LabError, match=rf"add --trust {target}, or for train.py trust=\[{target}\]"):
        trust.check_targets({"a": node(target)}, Path())
    assert trust.packages_to_trust({"a": node(target)}) == [target]
    trust.check_targets({"a": node(target)}, Path(), [target])


def test_only_trusted_packages_are_allowed_besides_listed_targets(canary):
    trusted = trust.parse_packages(["hostile_module"])
    trust.check_targets(node("hostile_module.deeper.Thing"), Path(), trusted)
    for other in ("hostile_module2.Thing", "os.system"):
        refused([lambda other=other: trust.check_targets(node(other), Path(), trusted)])
    with pytest.raises(LabError, match=r"is timm.loss.X, .*add --trust timm, or for train.py trust=\[timm\]"):
        trust.check_targets(node("timm.loss.X"), Path(), trusted)
    assert not canary.exists()
    for wrong in ("", "a b", ["a", 3], 3, "a.*", [""]):
        with pytest.raises(LabError, match="trust needs names of packages"):
            trust.parse_packages(wrong)


def test_teacher_is_read_with_the_packages_trusted_around_it(tmp_path):
    config = sound() | {"model": node("my_teacher.Network"), "trust": ["my_teacher"]}
    folder = run(tmp_path / "run", config)
    with pytest.raises(LabError, match=r"is my_teacher\.Network, which losslab does not know"):
        teacher.network_of(str(folder))
    with teacher.trusting(("my_teacher",)), pytest.raises(LabError, match=r"model: .*my_teacher"):
        teacher.network_of(str(folder))  # the package is imported, but does not exist
    with pytest.raises(LabError, match="which losslab does not know"):
        teacher.network_of(str(folder))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", dirpath="/")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", dirpath=".")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", "/")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", filename="../../x")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", filename=".{epoch:c}/x")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", filename="..{epoch:/>3}x")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", filename="{../../x}")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", filename="{epoch[0].__class__}")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", filename="{epoch!r}")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", filename="deep/x")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", filename=["{epoch:c}"])),
        ("callbacks.mine", node("lightning.pytorch.callbacks.OnExceptionCheckpoint", dirpath="src")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.OnExceptionCheckpoint", dirpath=["/"])),
        ("callbacks.mine", node("lightning.pytorch.callbacks.SpikeDetection", exclude_batches_path="./package.json")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.SpikeDetection", exclude_batches_path="package.json")),
        ("callbacks.mine", node("lightning.pytorch.callbacks.SpikeDetection")),
        ("callbacks.history.run_dir", "/elsewhere"),
        ("callbacks.history.run_dir", ".."),
        ("logger.mine", node("lightning.pytorch.loggers.CSVLogger", save_dir="~/.config")),
        ("logger.mine", node("lightning.pytorch.loggers.TensorBoardLogger", save_dir="run", name="/elsewhere")),
        ("logger.mine", node("lightning.pytorch.loggers.MLFlowLogger", tracking_uri="https://example.org")),
        ("run_dir", None),
    ],
)
def test_resumed_run_writes_only_into_its_folder(place, value, tmp_path):
    config = sound()
    assert command.read_configuration(RunFolder(run(tmp_path / "sound", config)))
    put(config, place, value)
    folder = run(tmp_path / "run", config)
    (line,) = refused([lambda: command.read_configuration(RunFolder(folder))])
    assert "nothing was instantiated" in line


@pytest.mark.parametrize(
    "options",
    [
        {"filename": "{epoch}-{step}"}, {"filename": "epoch={epoch:03d}, val {val/accuracy:.2f}"}, {"filename": "best"},
        {"filename": None}, {"dirpath": "run"}, {"dirpath": "HERE/checkpoints"}, {"monitor": "val/accuracy"},
    ],
    ids=str,
)  # fmt: skip
def test_paths_inside_the_folder_are_allowed(options, tmp_path):
    options = {key: value and value.replace("HERE", str(tmp_path / "run")) for key, value in options.items()}
    config = sound()
    put(config, "callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", **options))
    assert command.read_configuration(RunFolder(run(tmp_path / "run", config)))


@pytest.mark.parametrize("place", ["~/x", "local://~/x", "simplecache::/x", ".."])
def test_path_outside_is_refused_in_any_working_directory(place, tmp_path, monkeypatch):
    config = sound()
    put(config, "callbacks.mine", node("lightning.pytorch.callbacks.ModelCheckpoint", dirpath=place))
    folder = RunFolder(run(tmp_path / "run", config))
    monkeypatch.chdir(folder.path)  # where each path would be relative to the run folder
    refused([lambda: command.read_configuration(folder)])


def test_name_of_the_folder_is_not_taken_for_a_target(tmp_path, monkeypatch):
    """The path that the user types replaces run_dir everywhere in the configuration, but not in a `_target_`."""
    config = sound(Path("torch.nn.Flatten")) | {"data": node("torch.nn.Flatten", file="canary", allow_pickle=True)}
    run(tmp_path / "numpy.load", config)
    monkeypatch.chdir(tmp_path)
    moved, _ = command.read_configuration(RunFolder(Path("numpy.load")))
    assert moved["run_dir"] == moved["callbacks"]["history"]["run_dir"] == "numpy.load"
    assert moved["data"]["_target_"] == "torch.nn.Flatten"


@pytest.mark.parametrize("place", ["", None, 3, "a\0b", ["run"]])
def test_run_dir_that_is_not_a_path_is_refused(place, tmp_path):
    folder = run(tmp_path / "run", sound() | {"run_dir": place})
    (line,) = refused([lambda: command.read_configuration(RunFolder(folder))])
    assert "its run_dir is not a path" in line


def test_new_path_of_the_folder_is_checked_too(tmp_path):
    """The path that the user types may contain anything."""
    config = sound() | {"notes": "run"}
    folder = RunFolder(run(tmp_path / "${oc.env:HOME}", config))
    (line,) = refused([lambda: command.read_configuration(folder)])
    assert "contains an interpolation" in line


def test_resumed_run_does_not_write_through_links(tmp_path):
    folder = run(tmp_path / "run")
    (tmp_path / "profile").write_text("")
    (folder / "train.log").symlink_to(tmp_path / "profile")
    (line,) = refused([lambda: command.read_configuration(RunFolder(folder))])
    assert "train.log is a symbolic link" in line


def test_logging_configuration_of_the_folder_is_ignored(tmp_path, canary):
    hydra = {
        "runtime": {"choices": {"model": "mlp", "data": "digits", "loss": "mse"}, "cwd": "${oc.env:HOME}"},
        "verbose": True,
        "job_logging": {"version": 1, "handlers": {"a": {"()": "os.mkdir", "path": str(canary)}}},
        "callbacks": {"a": filled(OPENED, str(canary))},
    }
    folder = RunFolder(run(tmp_path / "run"))
    not_started(folder.path, {}, yaml.dump({"hydra": hydra}))
    handlers, level = logging.root.handlers[:], logging.root.level
    try:
        command.read_configuration(folder)
        command._configure_logging(folder)
    finally:
        for handler in set(logging.root.handlers) - set(handlers):
            handler.close()
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    assert folder.launch_dir == Path("${oc.env:HOME}")
    assert not canary.exists()
    with pytest.raises(Exception, match="Unable to configure"):
        logging.config.dictConfig(hydra["job_logging"] | {"root": {"handlers": ["a"]}})
    assert canary.exists()  # the negative control


LAUGHS = "a: &a [1,1]\n" + "".join(f"{b}: &{b} [*{a},*{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize(
    "change",
    [
        LAUGHS, "[" * 900, "a: !!python/object/apply:os.system [touch canary]", "[" * 5000, "a: [", "- 1",
        {"loss": "${data}"}, {"name": "${oc.env:HOME}"}, {"name": "${oc.create:{_target_: os.system}}"},
        {"name": "${hydra:runtime.cwd}"}, {"name": "${run_path:a,b,c}"}, {"name": "${${seed}}"},
        {"name": "${seed}${seed}"},
        {"name": "${tags}"}, {"${oc.env:HOME}": 1}, {"name": "${better:${data},null}"}, {"name": "${name}"},
        {"data": "${oc.decode:'{_target_: os.system}'}"},
    ],
    ids=lambda change: str(change)[:60],
)  # fmt: skip
def test_only_known_interpolations_are_resolved(change, tmp_path, canary):
    register()
    config = change if isinstance(change, str) else sound() | {"tags": [1]} | change
    (line,) = refused([lambda: command.read_configuration(not_started(tmp_path / "run", config))])
    assert os.environ["HOME"] not in line
    assert not canary.exists()


def test_interpolations_of_conf_are_resolved(tmp_path):
    register()
    plain = sound(tmp_path / "run") | {"name": "${data.batch_size}-${oc.env:LOSSLAB_DATA,data}", "trust": ["os"]}
    for key in ("choices", "per_run", "made_with"):  # are added when the configuration is resolved
        plain.pop(key, None)
    plain["trainer"] |= {"check_val_every_n_epoch": "${divisor:10,${trainer.max_epochs}}"}
    config, started = command.read_configuration(not_started(tmp_path / "run", OmegaConf.to_yaml(plain)))
    assert (config["name"], started) == (f"32-{os.environ.get('LOSSLAB_DATA', 'data')}", False)
    assert config["trainer"]["check_val_every_n_epoch"] == 1
    assert config["trust"] == []


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
@pytest.mark.parametrize("what", ["pipe", "device", "folder"])
def test_pipe_or_folder_is_not_waited_for(name, what, tmp_path):
    from losslab.analysis.compare.read import read_runs

    folder = RunFolder(run(tmp_path / "run"))
    file = folder.path / name
    file.unlink()
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[what](file)
    if name == "config.json":
        refused([folder.read_config])
    else:
        assert folder._best_epoch is None
        assert read_runs([tmp_path])

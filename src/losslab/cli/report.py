"""Logs the settings of a run before training and its results afterwards, and tables of metrics for all verbs."""

import logging
import math
import shlex
from collections.abc import Container
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.loggers import TensorBoardLogger

from losslab import runs
from losslab.data.batch import SPLITS, Examples
from losslab.data.corruption import manifest
from losslab.io.metric_names import COUNTS
from losslab.io.tables import terminal_table
from losslab.runs import trust
from losslab.runs.config import added_callbacks, changed_settings
from losslab.targets import Task
from losslab.training.callbacks.checkpoint import find_checkpoint_callback
from losslab.training.preflight import limited_batches

if TYPE_CHECKING:
    from losslab.training.experiment import Experiment

logger = logging.getLogger(__name__)
_WIDTH = 100


def log_header(experiment: "Experiment") -> None:
    """Log the settings of a run, and the commands to watch and evaluate it."""
    trainer, learner, config = experiment.trainer, experiment.learner, experiment.config
    parameters = sum(p.numel() for p in learner.parameters())
    choices = config["choices"]
    device = trainer.strategy.root_device
    threads = f"{torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else threads
    ranks = f", {trainer.world_size} processes" if trainer.world_size > 1 else ""
    spec = learner.spec
    inputs = f"inputs of {'×'.join(map(str, spec.input_shape))}"
    targets = f"{spec.targets} classes" if spec.task is Task.MULTICLASS else spec.task
    folder, packages = runs.display_path(experiment.folder.path), trust.packages_to_trust(config)
    size = experiment.data.batch_size
    batches = f"batches of {size}" if size else "one full batch"
    added = added_callbacks(config)
    lines = {
        "model": f"{_with_changes('model', config)}, {parameters:,} parameter{'s' * (parameters != 1)}",
        "data": f"{_with_changes('data', config)}, {inputs}, {targets}, {batches}",
        **(manifest.describe(experiment.data.manifest) if experiment.data.manifest else {}),
        **({"mix": _with_parameters(choices["mix"], config["mix"])} if config.get("mix") else {}),
        "loss": _with_parameters(choices["loss"], config["loss"], changed_settings(config, "loss")),
        "optimizer": _with_parameters(choices["optimizer"], config["optimizer"], changed_settings(config, "optimizer"))
        + f", {_with_changes('scheduler', config, ' schedule')}",
        **({"callbacks": ", ".join(f"{key} {_short(value)}" for key, value in added.items())} if added else {}),
        "device": f"{device.type}, {device_name}{ranks}, precision {trainer.precision}",
        "run folder": folder,
    }
    typed = shlex.quote(str(folder))
    if any(isinstance(board, TensorBoardLogger) for board in trainer.loggers):
        lines["watch"] = f"tensorboard --logdir {typed}"
    if find_checkpoint_callback(trainer) is not None:
        lines["evaluate"] = f"losslab evaluate {typed}" + "".join(f" --trust {name}" for name in packages)
    for name, value in lines.items():
        logger.info("%-11s %s", name, value)


def _with_changes(group: str, config: dict[str, Any], kind: str = "") -> str:
    """Return the name of a group's choice, and the settings that differ from those in its file, except batch sizes."""
    changed = {key: value for key, value in changed_settings(config, group).items() if "batch_size" not in key}
    settings = (f"{key.removeprefix('scheduler.')} {_short(value)}" for key, value in changed.items())
    return ", ".join([f"{config['choices'][group]}{kind}", *settings])


def _with_parameters(name: str, config: dict[str, Any], changed: Container[str] = ()) -> str:
    """Return a choice with its options as text, such as "adam, lr 0.001".

    Options that are None or False are left out, unless they are in `changed`.
    """
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    shown = {key: value for key, value in options.items() if value not in (None, False) or key in changed}
    return ", ".join([name, *(f"{key} {_short(value)}" for key, value in shown.items())])


def _short(value: Any) -> str:
    """Return an option's value as text: the class name for an object's configuration, the keys for another mapping."""
    if not isinstance(value, dict):
        return str(value)
    if "_target_" in value:
        return str(value["_target_"]).rpartition(".")[2]
    return " and ".join(value)


def log_results(experiment: "Experiment", results: dict[str, float]) -> None:
    """Log the final metrics, and the weights of a linear model next to the least-squares solution."""
    if "best_epoch" in results:
        best, monitor = results["best_epoch"], experiment.learner.monitor
        line = "best epoch  %d of %d by %s: the table shows the values of this epoch; test used its weights"
        logger.info(line, best, results["epochs"], monitor)
    log_metrics(results, {split: _count_examples(experiment, split) for split in SPLITS})
    _log_weights(experiment)
    profile = experiment.trainer.profiler.summary()  # type: ignore[attr-defined]
    if profile:
        logger.info("%s", profile)
    if experiment.folder.figures.is_dir():
        logger.info("%-11s %s", "figures", runs.display_path(experiment.folder.figures))


def _count_examples(experiment: "Experiment", split: str) -> int:
    """Return the number of examples with which the metrics of a split were measured."""
    data = experiment.data
    size = data.splits[data.val_split if split == "val" else split].size
    batch = (data.batch_size if split == "train" else data.eval_batch_size) or max(1, size)
    return min(size, batch * limited_batches(experiment.trainer, math.ceil(size / batch), split))


def log_metrics(results: dict[str, float], examples: dict[str, int]) -> None:
    """Log the results named SPLIT/METRIC as a table with a row for each metric and a column for each split.

    The first row has the number of `examples` of each split. Metrics that callbacks logged under other names follow in
    a column of their own.
    """
    table: dict[str, dict[str, float]] = {}
    for name, value in results.items():
        split, _, metric = name.partition("/")
        if split in SPLITS and metric:
            table.setdefault(metric, {})[split] = value
        elif name not in COUNTS:
            table.setdefault(name, {})["logged"] = value
    splits = [split for split in (*SPLITS, "logged") if any(split in values for values in table.values())]
    counts = [f"{examples[split]:,}" if split in examples else "" for split in splits]
    rows = [["metric", *splits], ["examples", *counts]]
    for metric, values in table.items():
        rows.append([metric, *(f"{values[split]:z.4f}" if split in values else "" for split in splits)])
    logger.info("%s", terminal_table(rows, width=_WIDTH))


def _log_weights(experiment: "Experiment") -> None:
    """Log each parameter of a linear regression next to the least-squares solution for the training targets.

    If the targets are corrupted, another column contains the solution for the clean targets.
    """
    network, loss = experiment.learner.network, experiment.learner.loss
    if not isinstance(network, torch.nn.Linear) or experiment.learner.spec.task is not Task.REGRESSION:
        return
    outputs = torch.ones(1, loss.outputs(1))
    if not torch.equal(loss.to_predictions(outputs), outputs[:, :1]):
        return  # the outputs are not the predicted values, but for example their logarithms
    train = experiment.data.splits["train"]
    if not isinstance(train, Examples):
        return  # the examples are not in memory, but are read from files during training
    targets = {"least squares": train.target}
    if not torch.equal(train.target, train.truth):
        targets["of clean targets"] = train.truth
    inputs = torch.cat([train.inputs, torch.ones(len(train.inputs), 1).to(train.inputs)], dim=1).double().cpu()
    columns = {"learnt": torch.cat([network.weight[0], network.bias[:1]])}
    for name, values in targets.items():
        solution = torch.linalg.lstsq(inputs, values[:, :1].double().cpu(), driver="gelsd").solution
        columns[name] = solution.flatten()
    features = network.in_features
    names = ["weight", "bias"] if features == 1 else [*(f"weight {index}" for index in range(features)), "bias"]
    rows = [["parameter", *columns]]
    for index, name in enumerate(names):
        rows.append([name, *(f"{column[index]:z.4f}" for column in columns.values())])
    logger.info("%s", terminal_table(rows, width=_WIDTH))

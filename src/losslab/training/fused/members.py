"""Builds the members of a group from their configurations, and finds out which of them can be trained as one."""

import copy
import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn

from losslab.data.batch import Batch, DataSpec
from losslab.data.machine import available_memory, format_bytes
from losslab.data.module import ExperimentDataModule
from losslab.errors import LabError, message_of
from losslab.io import conf_groups
from losslab.losses.adapter.output_kind import ignored_class
from losslab.losses.base import Loss
from losslab.models.learner import Learner
from losslab.runs import RunFolder
from losslab.runs.trust import leaves, parse_packages
from losslab.targets import Task
from losslab.training import preflight
from losslab.training.callbacks.loss_schedules import Anneal
from losslab.training.experiment import Experiment, build, check_data, check_first_step, seed_all
from losslab.training.fused import FusedMember
from losslab.training.fused.learner import Member
from losslab.training.fused.stack import LossStack, NotFusableError, Stacked, structure
from losslab.training.instantiate import make, make_data, make_loss, make_partial
from losslab.training.network import make_network
from losslab.training.teacher import trusting
from losslab.training.trainer import arguments_from_run

logger = logging.getLogger("losslab")

_COPIES_OF_WEIGHTS = 14
"""Copies of the weights that training keeps: gradient, optimizer state, best and last state, and temporary ones."""
_COPIES_OF_OUTPUTS = 13
"""Copies of the outputs of the layers: values kept for the gradient, the gradient, and temporary ones.

Measured are up to 7, with convolutions, which copy their inputs and outputs to another layout.
"""
_COPIES_OF_OUTPUTS_IN_EVALUATION = 5
_METRICS = 24
"""An upper estimate of the number of metrics in a row of the history."""
_LARGEST_RECORDED = 800
"""An upper estimate of the bytes of the weights of a network whose weights are recorded in each epoch."""
_OVERHEAD = 64 << 10
"""Bytes of the objects of a member that do not depend on its size."""


@dataclass
class BuiltGroup:
    """The members of a group that could be built."""

    members: list[Member] = field(default_factory=list)
    modules: list[ExperimentDataModule] = field(default_factory=list)
    """The distinct data modules, set up."""
    leads: list[Experiment] = field(default_factory=list)
    """An ordinary experiment for each kind of loss, which passed all checks before the first step."""
    failures: dict[int, str] = field(default_factory=dict)
    """For each job that could not be built, the reason in one line."""

    def seeds(self, members: Sequence[Member]) -> list[int]:
        """Return for each member the seed of order and augmentation."""
        return [
            int(member.config["data"].get("seed", 0)) if _is_own(member.config["data"]) else self.modules[index].seed
            for member in members
            for index in (member.module,)
        ]


class _Builder:
    """Builds members. What several members have in common is instantiated once."""

    def __init__(self) -> None:
        self.modules: list[ExperimentDataModule] = []
        self._module_of: dict[str, int] = {}
        self._shared: dict[str, Any] = {}
        self._networks: set[str] = set()

    def lead(self, member: FusedMember) -> Experiment:
        """Build an ordinary experiment with all checks before the first step."""
        experiment = build(member.config | {"callbacks": _without_progress_bar(member.config), "logger": {}})
        experiment.data = self.modules[self.module(member, ignored_class(experiment.learner.loss))]
        experiment.data.trainer = experiment.trainer
        if member.resumes:
            check_data(experiment, resume=True)
        else:
            check_data(experiment, resume=False)
            _set_class_counts(experiment.learner.loss, experiment.data)
            check_first_step(experiment)
        return experiment

    def member(self, member: FusedMember, lead: Experiment) -> Member:
        """Build a member whose kind was checked with `lead`: data, loss, network, optimizer and scheduler."""
        config, spec = member.config, lead.learner.spec
        module = self.module(member, ignored_class(self._loss(config, spec, None)))
        loss = self._loss(config, spec, module)
        self._check_numbers(config, loss, lead)
        seed_all(config["seed"])
        return Member(
            number=member.number,
            config=config,
            folder=RunFolder(Path(config["run_dir"]), parse_packages(config.get("trust"))),
            network=self._network(config, spec, loss),
            loss=loss,
            optimizer=self._once("optimizer", config["optimizer"], make_partial),
            scheduler=self._once("scheduler.scheduler", config["scheduler"]["scheduler"], make_partial),
            module=module,
            finished=member.finished,
            resumes=member.resumes,
            anneal=(config.get("callbacks") or {}).get("anneal") or {},
        )

    def module(self, member: FusedMember, ignore_index: int | None) -> int:
        """Return the index of the member's data module, which is set up. Members with equal data share it."""
        config = member.config
        # The seed of losslab's own data determines only order and augmentation.
        own = _is_own(config["data"])
        data = {name: value for name, value in config["data"].items() if name != "seed" or not own}
        corruptions = {group: config.get(group) for group in conf_groups.CORRUPTIONS if config.get(group)}
        key = json.dumps([data, corruptions, ignore_index], sort_keys=True)
        if key not in self._module_of:
            module = make_data(config["data"])
            module.corrupt([make(group, corruption) for group, corruption in corruptions.items()])
            module.ignore_index = ignore_index
            module.prepare_data()
            module.setup()
            self._module_of[key] = len(self.modules)
            self.modules.append(module)
        return self._module_of[key]

    def _check_numbers(self, config: dict[str, Any], loss: Loss, lead: Experiment) -> None:
        """Check what differs between members of a kind, once for each value: trainer, optimizer, schedule, callbacks.

        Raises:
            LabError: see `losslab.training.preflight`.
        """
        callbacks = config.get("callbacks") or {}

        def check_optimizer(*_: Any) -> None:
            learner, trainer = lead.learner, lead.trainer
            if all(config[name] == lead.config[name] for name in ("optimizer", "scheduler")):
                return  # checked when it was built
            learner.optimizer = self._once("optimizer", config["optimizer"], make_partial)
            learner.scheduler = self._once("scheduler.scheduler", config["scheduler"]["scheduler"], make_partial)
            learner.interval = config["scheduler"]["interval"]
            preflight.check_optimizer(learner, trainer)
            preflight.check_schedule(learner, trainer, len(lead.data.train_dataloader()))

        self._once("trainer", config["trainer"], lambda _, settings: preflight.check_trainer(settings))
        self._once("both", [config["optimizer"], config["scheduler"]], check_optimizer)
        if callbacks.get("early_stopping"):
            self._once("stop", callbacks["early_stopping"], lambda *_: early_stopping(config, lead.learner))
        if callbacks.get("anneal"):
            key = json.dumps(config["loss"], sort_keys=True, default=str)
            self._once(key, callbacks["anneal"], lambda *_: annealing(callbacks["anneal"], loss))

    def _loss(self, config: dict[str, Any], spec: DataSpec, module: int | None) -> Loss:
        """Return the loss of a member, with the class counts of a data module. Equal ones are shared where possible."""

        def instantiate(_: str, settings: dict[str, Any]) -> Loss:
            seed_all(config["seed"])  # a loss may initialise its parameters at random
            with trusting(parse_packages(config.get("trust"))):
                loss = make_loss(settings, spec.kind, spec.targets, warn="nothing")
            if module is not None:
                _set_class_counts(loss, self.modules[module])
            return loss

        targets = [str(value) for key, value in leaves(config["loss"]) if key.rpartition(".")[2] == "_target_"]
        if not all(target.startswith(("losslab.", "torch.")) for target in targets):
            return instantiate("", config["loss"])
        loss: Loss = self._once(f"loss {module}", config["loss"], instantiate)
        return loss

    def _network(self, config: dict[str, Any], spec: DataSpec, loss: Loss) -> nn.Module:
        text = json.dumps([config["model"], loss.outputs(spec.targets)], sort_keys=True, default=str)
        network = make_network(config, spec, loss, checked=text in self._networks)
        self._networks.add(text)
        return network

    def _once(self, key: str, config: Any, instantiate: Callable[[str, Any], Any]) -> Any:
        """Return what `instantiate(key, config)` returns; the same object for equal configurations."""
        text = key + json.dumps(config, sort_keys=True, default=str)
        if text not in self._shared:
            self._shared[text] = instantiate(key, config)
        return self._shared[text]


def build_group(members: Sequence[FusedMember]) -> BuiltGroup:
    """Build the members from their configurations, with the checks of an ordinary run. Write nothing.

    Checks that do not depend on the seed, the learning rate or other numbers are made for one member of each kind.
    """
    builder, group = _Builder(), BuiltGroup()
    leads: dict[str, Experiment] = {}
    folders: set[str] = set()
    for member in members:
        kind = _targets(member.config)
        try:
            _check_folder(member, folders)
            folders.add(member.config["run_dir"])
            if kind not in leads:
                leads[kind] = builder.lead(member)
            group.members.append(builder.member(member, leads[kind]))
        except LabError as error:  # perhaps only of this member
            group.failures[member.number] = str(error)
    group.modules, group.leads = builder.modules, [*leads.values()]
    return group


def _check_folder(member: FusedMember, taken: Collection[str]) -> None:
    """Raise a LabError if the folder of a member contains another run, or will: `taken` are those of other members."""
    folder, continues = member.config["run_dir"], member.resumes or member.finished
    if folder in taken or (not continues and RunFolder(Path(folder)).config.exists()):
        raise LabError(f"{folder} already contains a run: choose another run_dir")


def _targets(config: dict[str, Any]) -> str:
    """Return the classes in a configuration as text. Members with equal ones are of the same kind."""
    parts = {name: config.get(name) for name in ("loss", "optimizer", "scheduler", "callbacks")}
    return json.dumps([each for each in leaves(parts) if each[0].rpartition(".")[2] == "_target_"])


def _is_own(data: Mapping[str, Any]) -> bool:
    """Return whether data are those of losslab, whose seed determines only order and augmentation."""
    return str(data["_target_"]).startswith("losslab.")


def early_stopping(config: dict[str, Any], learner: Learner) -> EarlyStopping:
    """Return the callback `early_stopping` of a configuration. Raise a LabError if it cannot be instantiated."""
    settings = config["callbacks"]["early_stopping"]
    arguments = arguments_from_run("early_stopping", settings, config, learner)
    callback: EarlyStopping = make("callbacks.early_stopping", settings, **arguments)
    return callback


def annealing(settings: dict[str, Any], loss: Loss) -> Anneal:
    """Return the callback `anneal` for a loss. Raise a LabError if the loss does not have these values."""
    callback: Anneal = make("callbacks.anneal", settings)
    callback.prepare(copy.deepcopy(loss))  # members share losses
    return callback


def _without_progress_bar(config: dict[str, Any]) -> dict[str, Any]:
    return {name: item for name, item in (config.get("callbacks") or {}).items() if name != "progress_bar"}


def _set_class_counts(loss: Loss, data: ExperimentDataModule) -> None:
    if data.class_counts is not None:
        loss.set_class_counts(data.class_counts)


def partition(group: BuiltGroup, largest: int) -> tuple[list[list[Member]], dict[int, str]]:
    """Divide the members into parts that can be trained as one, in the order of their jobs.

    The members of a part have networks of the same shapes, splits of the same sizes and one way of clipping, and fit
    into half of the available memory. Return the parts, and for each job that cannot be fused the reason.
    """
    parts: dict[Any, list[Member]] = {}
    for member in group.members:
        sizes: list[Any] = [group.modules[member.module].splits[split].size for split in ("train", "val", "test")]
        sizes.append(member.config["trainer"].get("gradient_clip_algorithm"))
        shapes = [(name, each.shape, each.dtype) for name, each in member.network.state_dict().items()]
        parts.setdefault(repr((sizes, shapes)), []).append(member)
    alone: dict[int, str] = {}
    result = []
    for members in parts.values():
        fitting = []
        reasons = _why_not(group, members)
        for member in members:
            reason = reasons.get(structure(member.loss))
            if reason is not None:
                alone[member.number] = reason
            else:
                fitting.append(member)
        if not fitting:
            continue
        needed = bytes_of_member(fitting[0], group)
        count = min(largest, max(1, int(available_memory() / 2 / needed)))
        logger.info("memory      %s for each of %d members", format_bytes(needed), len(fitting))
        if count < len(fitting):
            logger.info("            %d parts of at most %d members fit", ceil(len(fitting) / count), count)
        result += [fitting[start : start + count] for start in range(0, len(fitting), count)]
    return result, alone


def _why_not(group: BuiltGroup, members: Sequence[Member]) -> dict[Any, str]:
    """Try two members of each kind of loss. Return the reason for each structure of a loss that cannot be stacked."""
    reasons: dict[Any, str] = {}
    data = group.modules[members[0].module]
    batch = data.train_dataloader().peek()
    kinds: dict[Any, list[Member]] = {}
    for member in members:
        kinds.setdefault(structure(member.loss), []).append(member)
    for kind, own in kinds.items():
        try:
            _try(own[:2], batch, data.spec)
        except Exception as error:  # noqa: BLE001 -- vmap may raise anything for a function that it cannot trace
            reasons[kind] = message_of(error, 160)
    return reasons


def _try(members: Sequence[Member], batch: Batch, spec: DataSpec) -> None:
    """Compute the losses and gradients of members for a batch, without changing their state."""
    networks = Stacked([member.network for member in members]).train()
    parameter = next((each for each in members[0].network.parameters()), torch.zeros(()))
    inputs = batch.inputs.to(parameter.dtype).cpu()
    losses = LossStack([member.loss for member in members], spec, parameter.dtype)
    before = [each.clone() for each in losses.buffers()]
    outputs = networks(inputs, shared=True)
    target = batch.target.cpu()
    totals, weights, _ = losses.totals(outputs, target.expand(len(members), *target.shape))
    (totals / weights).sum().backward()
    losses.predictions(outputs)
    if spec.task is not Task.REGRESSION:
        losses.probabilities(outputs)
    if any(not torch.equal(*pair) for pair in zip(before, losses.buffers(), strict=True)):
        raise NotFusableError("the loss has a buffer that changes during training")


def bytes_of_member(member: Member, group: BuiltGroup) -> int:
    """Return an upper estimate of the memory that a member of a stack needs while it trains, in bytes."""
    data = group.modules[member.module]
    weights = sum(each.numel() * each.element_size() for each in member.network.state_dict().values())
    train: int = data.splits["train"].size
    val: int = data.splits["val"].size
    batch = min(data.batch_size or train, train) * _COPIES_OF_OUTPUTS
    evaluated = min(data.eval_batch_size or val, val) * _COPIES_OF_OUTPUTS_IN_EVALUATION
    outputs: int = bytes_of_outputs(member.network, data) * max(batch, evaluated)
    values_per_epoch = _METRICS + (weights if weights <= _LARGEST_RECORDED else 0)
    epochs: int = member.config["trainer"].get("max_epochs") or 0
    needed: int = _COPIES_OF_WEIGHTS * weights + outputs + 8 * max(0, epochs) * values_per_epoch + _OVERHEAD
    return needed


def bytes_of_outputs(network: nn.Module, data: ExperimentDataModule) -> int:
    """Return the bytes of the inputs and of the outputs of all layers for one example."""
    sizes: list[int] = []

    def add(_: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append(output.nbytes)

    layers = [layer for layer in network.modules() if not [*layer.children()]]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    parameter = next((each for each in network.parameters()), torch.zeros(()))
    inputs = torch.zeros(1, *data.spec.input_shape, dtype=parameter.dtype, device=parameter.device)
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(inputs)
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    return inputs.nbytes + sum(sizes)

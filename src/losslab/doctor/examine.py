"""Runs all checks on one batch."""

import logging
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from losslab.doctor import checks_data, checks_loss, checks_optimizer, checks_outputs, checks_state
from losslab.doctor.finding import Finding, Severity, by_severity, error, exception_finding
from losslab.doctor.probe import preserve_state
from losslab.doctor.training_setup import Setup
from losslab.losses.adapter.probe import Criterion
from losslab.losses.adapter.state import State

logger = logging.getLogger(__name__)

Check = Callable[[Setup], Iterator[Finding]]

_TARGET_CHECKS: tuple[Check, ...] = (
    checks_data.mismatched_shapes, checks_data.single_output, checks_data.wrong_class_indices,
    checks_data.wrong_soft_targets, checks_data.labels_outside_0_1, checks_data.unsigned_labels,
    checks_data.negative_counts, checks_data.all_ignored, checks_data.nonfinite_targets, checks_data.unscaled_values,
)  # fmt: skip
_INPUT_CHECKS: tuple[Check, ...] = (checks_data.nonfinite_outputs, checks_data.unnormalised_inputs)
_OUTPUT_CHECKS: tuple[Check, ...] = (
    checks_outputs.mixed_examples, checks_outputs.changed_inputs, checks_outputs.lost_example_dimension,
    checks_outputs.squashed_logits, checks_outputs.missing_activation,
    checks_outputs.unreachable_targets, checks_optimizer.weights_with_smoothing, checks_optimizer.kl_element_mean,
    checks_data.missing_classes,
)  # fmt: skip
_LOSS_CHECKS: tuple[Check, ...] = (
    checks_loss.invalid_loss, checks_loss.unreached_parameters, checks_loss.unregistered_parameters,
    checks_loss.nonfinite_gradient, checks_loss.zero_gradient, checks_loss.inverted_loss, checks_loss.unbounded_loss,
    checks_optimizer.high_initial_loss, checks_optimizer.unstable_learning_rate, checks_optimizer.zero_learning_rate,
    checks_optimizer.maximizing_optimizer, checks_optimizer.missed_parameters, checks_optimizer.large_weight_decay,
    checks_optimizer.zero_class_weight, checks_optimizer.evaluation_mode, checks_state.unsaved_state,
    checks_state.state_in_evaluation, checks_state.random_values,
)  # fmt: skip


def examine(
    network: nn.Module | Callable[[Any], Any],
    loss: Criterion,
    batch: Any,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    lr: float | None = None,
    examples: int = 32,
) -> list[Finding]:
    """Examine a network, a loss and one batch before the first step. No state changes, not even of random generators.

    Args:
        network: the network, a function of the inputs.
        loss: a loss of torch, losslab or another library, a function of outputs and target.
        batch: inputs and target, in this order. Further elements are ignored.
        optimizer: the optimizer that will train the network.
        lr: the learning rate of plain gradient descent, if there is no optimizer.
        examples: the maximum number of examples on which the network runs. All targets are examined, and the bound of
            the learning rate of a linear model is computed from all examples.

    Returns:
        The findings, errors first. An exception that the network or the loss raises is also a finding.
    """
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        problem = f"the batch is a {type(batch).__name__}, not a pair of inputs and target"
        fix = "give examine(network, loss, (inputs, target))"
        return [error("batch-no-pair", problem, "there is nothing to examine", fix)]
    network = _unwrapped(network)
    if any(is_lazy(parameter) for parameter in network.parameters()):
        network, optimizer = deepcopy(network), None  # the optimizer holds the parameters of the original
    with preserve_state(network, loss), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # training will repeat every warning of torch
        was_eval = not network.training
        if was_eval:
            network.train()
        network.__dict__["_compiled_call_impl"] = None  # a network compiled in place would compile for this batch
        device = next((p.device for p in network.parameters()), None)
        inputs, target = (part.to(device) if isinstance(part, Tensor) and device else part for part in batch[:2])
        setup = Setup(network, loss, inputs, target, examples, optimizer, lr, was_eval, State(loss, parameters=True))
        return by_severity(_run_checks(setup))


class _FunctionNetwork(nn.Module):
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Any) -> Any:
        return self.function(inputs)


def _unwrapped(network: Any) -> nn.Module:
    """Return the network inside a compiled or data-parallel network; convert a function to a network."""
    if isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel):
        network = network.module
    network = getattr(network, "_orig_mod", network)
    return network if isinstance(network, nn.Module) else _FunctionNetwork(network)


def _run_checks(setup: Setup) -> list[Finding]:
    try:
        setup.outputs  # noqa: B018 -- computed here once, and cached
    except Exception as cause:  # noqa: BLE001 -- foreign code may raise anything
        return [exception_finding("network-raises", "the network", cause, inputs=setup.inputs)]
    of_targets = _findings_of(_TARGET_CHECKS, setup) if setup.has_tensors else []
    findings = of_targets + _findings_of(_INPUT_CHECKS, setup)
    findings += _findings_of(_OUTPUT_CHECKS, setup) if setup.has_tensors else []
    findings += _findings_of((checks_optimizer.optimizer_without_parameters,), setup)
    finite = not isinstance(setup.outputs, Tensor) or bool(setup.outputs.isfinite().all())
    if any(finding.severity is Severity.ERROR for finding in of_targets) or not finite:
        return findings  # the loss is not computed: on a GPU, an index out of range makes the device unusable
    try:
        setup.value  # noqa: B018 -- computed here once, and cached
    except Exception as cause:  # noqa: BLE001 -- foreign code may raise anything
        if any(finding.severity is Severity.ERROR for finding in findings):
            return findings
        raised = exception_finding("loss-raises", "the loss", cause, outputs=setup.outputs, target=setup.target)
        return [*findings, raised]
    return findings + _findings_of(_LOSS_CHECKS, setup)


def _findings_of(checks: tuple[Check, ...], setup: Setup) -> list[Finding]:
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check(setup)
        except Exception:  # a failed check reports nothing, and training continues
            logger.debug("check %s.%s failed", check.__module__, check.__name__, exc_info=True)
    return findings

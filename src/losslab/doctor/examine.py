"""The examination: every check in turn, on what one batch shows."""

import logging
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from losslab.doctor import checks_data, checks_gradients, checks_loss, checks_optimizer, checks_outputs
from losslab.doctor.case import Case
from losslab.doctor.finding import Finding, Severity, by_severity, described, error, refusal
from losslab.doctor.probe import Criterion, preserve_state

logger = logging.getLogger(__name__)

Check = Callable[[Case], Iterator[Finding]]

_OF_OUTPUTS: tuple[Check, ...] = (
    checks_data.finite_inputs, checks_data.normalised, checks_gradients.separate, checks_outputs.squashed, checks_outputs.unsquashed, checks_outputs.in_reach,
    checks_optimizer.weights_and_smoothing, checks_optimizer.element_mean, checks_optimizer.elsewhere, checks_data.classes_seen,
)  # fmt: skip
_OF_TARGETS: tuple[Check, ...] = (
    checks_data.aligned, checks_data.one_logit, checks_data.indices, checks_data.probabilities,
    checks_data.zero_and_one, checks_data.minus_and_plus_one, checks_data.counts, checks_data.some_count, checks_data.finite_targets, checks_data.scale,
)  # fmt: skip
_OF_THE_LOSS: tuple[Check, ...] = (
    checks_gradients.single, checks_gradients.flowing, checks_gradients.finite, checks_gradients.alive,
    checks_loss.downhill, checks_loss.bounded, checks_optimizer.initial_loss, checks_optimizer.stable_rate,
    checks_optimizer.still, checks_optimizer.uphill, checks_optimizer.missed, checks_optimizer.decay, checks_optimizer.unweighted, checks_optimizer.awake,
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
    """Look at one batch before the first step.

    Nothing is changed: parameters, gradients, buffers, modes and the state of random generators are as before.

    Args:
        network: from inputs to outputs.
        loss: of outputs and target, whether of torch, of this package or any other callable.
        batch: inputs and target, in this order; anything after them is left alone.
        optimizer: that will train the network.
        lr: learning rate of plain gradient descent, where there is no optimizer to ask.
        examples: the most that the network is run on; targets are looked at whole.

    Returns:
        What was found, the most severe first. It raises nothing of its own: what the network or the loss raises on this
        batch is a finding.
    """
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        seen = f"the batch is a {type(batch).__name__}, not inputs and target"
        return [
            error("batch-no-pair", seen, "there is nothing to examine", "give examine(network, loss, (inputs, target))")
        ]
    network = _bare(network)
    if any(is_lazy(parameter) for parameter in network.parameters()):
        optimizer = None  # it holds those of the network, and what is examined is a copy
    with preserve_state(network, loss), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch warns of here is found, or will be said again by training itself
        asleep = not network.training
        if asleep:
            network.train()
        network.__dict__["_compiled_call_impl"] = None  # a network compiled in place would compile for this batch
        device = next((p.device for p in network.parameters()), None)
        here = [part.to(device) if isinstance(part, Tensor) and device is not None else part for part in batch[:2]]
        return by_severity(_findings(Case(network, loss, here[0], here[1], examples, optimizer, lr, asleep)))


class _Called(nn.Module):
    """Any callable as a network."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Any) -> Any:
        return self.function(inputs)


def _bare(network: Any) -> nn.Module:
    """The network inside what compiles it or shares it among processes."""
    if isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel):
        network = network.module
    network = getattr(network, "_orig_mod", network)
    if not isinstance(network, nn.Module):
        return _Called(network)
    lazy = any(is_lazy(parameter) for parameter in network.parameters())
    return deepcopy(network) if lazy else network


def _findings(case: Case) -> list[Finding]:
    try:
        case.outputs  # noqa: B018 -- computed here, kept by the case
    except Exception as cause:  # noqa: BLE001 -- somebody else's network
        return [refusal("network-raises", "the network", cause, f"inputs {described(case.inputs)}")]
    of_targets = _checked(_OF_TARGETS, case)
    found = of_targets + _checked(_OF_OUTPUTS, case)
    if any(finding.severity is Severity.ERROR for finding in of_targets) or _not_finite(case.outputs):
        return found  # on a GPU a wrong index would end all use of it by this process
    try:
        case.value  # noqa: B018
    except Exception as cause:  # noqa: BLE001 -- somebody else's loss
        if any(finding.severity is Severity.ERROR for finding in found):
            return found
        given = f"outputs {described(case.outputs)}", f"target {described(case.target)}"
        return [*found, refusal("loss-raises", "the loss", cause, *given)]
    return found + _checked(_OF_THE_LOSS, case)


def _not_finite(outputs: Any) -> bool:
    return isinstance(outputs, Tensor) and not bool(outputs.isfinite().all())


def _checked(checks: tuple[Check, ...], case: Case) -> list[Finding]:
    found: list[Finding] = []
    for check in checks:
        try:
            found += check(case)
        except Exception:  # what a check cannot read, it has nothing to say about; training goes on
            logger.debug("%s.%s could not be done", check.__module__, check.__name__, exc_info=True)
    return found

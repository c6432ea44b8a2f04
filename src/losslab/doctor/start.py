"""Where training starts and how far a step may go."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from losslab.doctor.case import Case
from losslab.doctor.finding import Finding, warning
from losslab.doctor.linear import largest_eigenvalue, linear_layer
from losslab.doctor.reads import is_a
from losslab.doctor.trial import Reads
from losslab.losses import MSE


def initial_loss(case: Case) -> Iterator[Finding]:
    """A loss far above that of a network that knows nothing."""
    if case.number is None or case.reads not in {Reads.LOGITS, Reads.BINARY_LOGITS}:
        return
    uniform = uniform_loss(case)
    if not uniform > 0 or case.number < 2 * uniform or case.number < uniform + 0.5:
        return
    size = float(case.outputs.detach().abs().max())
    seen = f"the loss starts at {case.number:.4g}, uniform outputs cost {uniform:.4g}; outputs are up to {size:.4g}"
    why = "before it learns anything, the network is sure and wrong: the first epochs go into undoing that"
    fix = "normalise the inputs, or initialise the last layer smaller"
    yield warning("initial-loss", seen, why, fix)


def uniform_loss(case: Case) -> float:
    """The loss of these targets at uniform outputs: what a card says, by measuring it, for any loss."""
    with torch.no_grad():
        return float(case.loss(torch.zeros_like(case.outputs), case.target))


def stable_rate(case: Case) -> Iterator[Finding]:
    """A learning rate above 2/λmax, where gradient descent on a quadratic diverges."""
    rate = _descent(case)
    linear = linear_layer(case)
    if rate is None or linear is None or not (is_a(case.loss, nn.MSELoss) or type(case.loss) is MSE):
        return
    lr, factor, formula = rate
    largest = largest_eigenvalue(case, linear)
    if not largest > 0 or lr <= factor / largest:
        return
    seen = (
        f"learning rate {lr:g} for a linear model under the mean squared error, whose Hessian on this batch has "
        f"λmax = {largest:.4g}"
    )
    why = (
        f"above {formula} = {factor / largest:.4g} each step overshoots by more than it corrects, and the loss diverges"
    )
    yield warning("learning-rate-too-high", seen, why, f"set the learning rate below {factor / largest:.4g}")


def _descent(case: Case) -> tuple[float, float, str] | None:
    """Learning rate, bound times λmax, and the bound in words, where plain or heavy-ball descent is what is done."""
    if case.optimizer is None:
        return None if case.lr is None else (case.lr, 2.0, "2/λmax")
    group: dict[str, Any] = case.optimizer.param_groups[0]
    if type(case.optimizer) is not torch.optim.SGD or group["maximize"] or group["weight_decay"] < 0:
        return None
    beta, lr = float(group["momentum"]), float(group["lr"])
    if not beta:
        return lr, 2.0, "2/λmax"
    if group["nesterov"]:
        return lr, 2 * (1 + beta) / (1 + 2 * beta), "2(1+β)/((1+2β)λmax)"
    return lr, 2 * (1 + beta) / (1 - float(group["dampening"])), "2(1+β)/λmax"

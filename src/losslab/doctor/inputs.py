"""What may be wrong with the inputs."""

from collections.abc import Iterator

from torch import Tensor

from losslab.doctor.case import Case
from losslab.doctor.finding import Finding, error, warning

_LARGE = 30.0
"""Root mean square of inputs that were surely not normalised; of bytes it is about 85 (MNIST) to 135 (CIFAR-10)."""


def finite(case: Case) -> Iterator[Finding]:
    """NaN and infinity, unless the network knows what to do with them."""
    inputs, outputs = case.inputs, case.outputs
    if not isinstance(outputs, Tensor) or outputs.isfinite().all():
        return
    why = "one such number makes the loss, its gradient and with the first step all weights NaN"
    if isinstance(inputs, Tensor) and not inputs.isfinite().all():
        rows = (~inputs.isfinite()).flatten(1).any(1).sum() if inputs.ndim > 1 else (~inputs.isfinite()).sum()
        seen = f"{rows} of {len(inputs)} examples have NaN or infinity among their inputs"
        yield error("inputs-not-finite", seen, why, "remove these examples, or fill in what is missing")
        return
    rows = (~outputs.isfinite()).flatten(1).any(1).sum() if outputs.ndim > 1 else (~outputs.isfinite()).sum()
    seen = f"{rows} of {len(outputs)} outputs are NaN or infinite, though the inputs are finite"
    fix = "look for a division by 0, a log or sqrt of 0, or weights that were not initialised"
    yield error("outputs-not-finite", seen, why, fix)


def normalised(case: Case) -> Iterator[Finding]:
    """Inputs of a size for which no initialisation is made; asked where they meet the first weights."""
    if case.layers.first is None:
        return
    _, layer, given = case.layers.first
    if not given.is_floating_point() or "Norm" in type(layer).__name__ or not given.isfinite().all():
        return
    size = given.float().square().mean().sqrt().item()
    if size <= _LARGE:
        return
    low, high = given.min().item(), given.max().item()
    seen = f"the first layer with weights is given inputs from {low:.4g} to {high:.4g} (root mean square {size:.4g})"
    why = (
        "initialisations and usual learning rates are made for inputs of size 1; the gradient of the first layer grows "
        "with the inputs, so training diverges or crawls"
    )
    bytes_ = given.ndim > 3 and low >= 0 and 100 < high <= 255
    fix = (
        "these look like bytes: divide by 255, subtract each channel's mean and divide by its standard deviation"
        if bytes_
        else "standardise each input: subtract its mean over the training set and divide by its standard deviation"
    )
    yield warning("inputs-not-normalised", seen, why, fix)

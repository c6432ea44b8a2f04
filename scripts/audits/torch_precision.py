"""torch: values that are wrong because of rounding, overflow or an added constant."""

import math
from functools import partial

import torch
import torch.nn.functional as F

from audits.finding import Evidence, Severity, finding
from audits.measure import say, value_and_gradient


@finding(
    "torch.nn.functional.cross_entropy",
    claim="the mean of the losses of the examples, here log 10 = 2.303",
    source="torch documentation",
    severity=Severity.NOT_FINITE,
    losslab="every loss converts half precision to float32 before it computes anything",
)
def half_precision_mean() -> Evidence:
    """In float16 on the CPU, the sum of 30,000 examples overflows: the mean is infinite, or NaN without a gradient."""
    found = []
    for count in (24_000, 30_000, 70_000):
        target = torch.zeros(count, dtype=torch.int64)
        value, gradient = value_and_gradient(
            partial(F.cross_entropy, target=target), torch.zeros(count, 10), torch.float16
        )
        found.append((float(value), float(gradient.abs().max())))
    values, gradients = (", ".join(say(number) for number in column) for column in zip(*found, strict=True))
    seen = f"10 classes, zero logits, 24,000, 30,000, 70,000 examples: value {values}; largest gradient {gradients}"
    return Evidence(seen, holds=not all(math.isfinite(value) for value, _ in found))


@finding(
    "torch.nn.functional.cross_entropy",
    claim="-log p, which for two classes is log(1 + exp(-margin))",
    source="torch documentation",
    severity=Severity.WRONG_VALUE,
    losslab="cross_entropy also uses torch's log_softmax; the value is exact in 64-true, or with bce on one logit",
)
def small_losses_round() -> Evidence:
    """In float32, the loss of a confident correct example is off by 17 % at a margin of 15, and 0 from 17 on."""
    found = []
    for margin in (9.0, 15.0, 17.0):
        softmax = F.cross_entropy(torch.tensor([[margin, 0.0]]), torch.tensor([0]))
        sigmoid = F.binary_cross_entropy_with_logits(torch.tensor([margin]), torch.ones(1))
        found.append((softmax, sigmoid, math.log1p(math.exp(-margin))))
    softmaxes, sigmoids, exacts = (", ".join(say(value) for value in column) for column in zip(*found, strict=True))
    seen = f"margin 9, 15, 17: {softmaxes}; binary_cross_entropy_with_logits {sigmoids}; exactly {exacts}"
    return Evidence(seen, holds=any(abs(float(value) / true - 1) > 0.1 for value, _, true in found))


@finding(
    "torch.nn.functional.pairwise_distance",
    claim="a distance, which is 0 for equal points and symmetric",
    source="definition of a metric; torch documents ‖x - y + eps e‖, which triplet_margin_loss uses",
    severity=Severity.WRONG_VALUE,
    losslab="not in the catalog",
    documented=True,
)
def distance_to_itself() -> Evidence:
    """A constant is added to the difference, so d(a, a) is not 0 and d(a, b) differs from d(b, a)."""
    point = torch.zeros(1, 10_000)
    near = point + 1e-6
    distances = torch.cat([F.pairwise_distance(*pair) for pair in ((point, point), (point, near), (near, point))])
    seen = f"10,000 dimensions, b = a + 1e-6 (exactly 1e-4 away): d(a, a), d(a, b), d(b, a) = {say(distances)}"
    return Evidence(seen, holds=float(distances[0]) > 0)


FINDINGS = (half_precision_mean, small_losses_round, distance_to_itself)

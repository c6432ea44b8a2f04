"""pytorch-metric-learning: values and gradients that are wrong, constant or not finite."""

from functools import partial

import torch
import torch.nn.functional as F
from pytorch_metric_learning import losses
from torch import Tensor

from audits.finding import Evidence, Severity, finding
from audits.measure import precision, say, value_and_gradient

NONE = "no metric-learning losses in the catalog"


def proxy_nca(scale: float) -> losses.ProxyNCALoss:
    """Build the loss with the proxies (1, 0) and (-1, 0)."""
    loss = losses.ProxyNCALoss(num_classes=2, embedding_size=2, softmax_scale=scale)
    with torch.no_grad():
        loss.proxies.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    return loss


@finding(
    "pytorch_metric_learning.losses.ProxyNCALoss",
    claim="-log p, which grows with the distance; here 4 x 32 = 128 for the wrong example, 64 for both",
    source="Movshovitz-Attias et al., No fuss distance metric learning using proxies, 2017",
    severity=Severity.WRONG_GRADIENT,
    losslab=f"{NONE}; its losses compute with log p, so that no gradient vanishes by underflow",
)
def wrong_examples_are_dropped() -> Evidence:
    """Examples whose probability underflows to 0 are removed from the loss, so the largest errors do not count."""
    loss = proxy_nca(32.0)
    value, gradient = value_and_gradient(lambda e: loss(e, torch.tensor([0, 1])), [[1.0, 0.01], [1.0, 0.01]])
    alone, _ = value_and_gradient(lambda e: loss(e, torch.tensor([1])), [[1.0, 0.01]])
    seen = (
        f"softmax_scale 32, a correct and an opposite example: value {say(value)}, gradient of the opposite one "
        f"{say(gradient[1])}; the opposite one alone: value {say(alone)}"
    )
    return Evidence(seen, holds=float(value) < 1)


@finding(
    "pytorch_metric_learning.losses.NTXentLoss",
    claim="-log(exp(s₊/τ) / Σ exp(s/τ)), about 2/τ if the positive is opposite and the negative equal",
    source="Chen et al., A simple framework for contrastive learning, 2020",
    severity=Severity.WRONG_GRADIENT,
    losslab=f"{NONE}; its losses compute with the logarithms of log_softmax",
)
def flat_beyond_the_smallest_number() -> Evidence:
    """The smallest float is added inside the logarithm, so value and gradient saturate from 87 on (9.7 in float16)."""
    pairs = tuple(torch.tensor(index) for index in ([0, 0], [1, 1], [0], [2]))
    points = torch.tensor([[1.0, 0.1], [-1.0, 0.1], [1.0, 0.2]])
    found = []
    for dtype, temperature in ((torch.float32, 0.02), (torch.float16, 0.07)):
        loss = losses.NTXentLoss(temperature=temperature)
        value, gradient = value_and_gradient(partial(loss, indices_tuple=pairs), points, dtype)
        exact, steepest = value_and_gradient(partial(_exact_ntxent, temperature=temperature), points, torch.float64)
        at = f"{precision(dtype)} τ {temperature:g}"
        found.append((at, float(value), float(exact), gradient.abs().max(), steepest.abs().max()))
    seen = "; ".join(
        f"{at}: {say(value)}, exactly {say(exact)}, largest gradient {say(flat)}, exactly {say(steep)}"
        for at, value, exact, flat, steep in found
    )
    return Evidence(seen, holds=any(value < 0.95 * exact for _, value, exact, _, _ in found))


def _exact_ntxent(points: Tensor, temperature: float) -> Tensor:
    """Compute the loss of the first point; the second is its positive, and the third its negative."""
    scaled = F.cosine_similarity(points[:1], points[1:]) / temperature
    return scaled.logsumexp(0) - scaled[0]


@finding(
    "pytorch_metric_learning.losses.TupletMarginLoss",
    claim="log(1 + Σ exp(s (cos θ₋ - cos(θ₊ - β)))), finite for every pair of embeddings",
    source="Yu & Tao, Deep metric learning with tuplet margin loss, 2019",
    severity=Severity.NOT_FINITE,
    losslab=f"{NONE}; its losses are finite for all finite outputs",
)
def equal_embeddings() -> Evidence:
    """The cosine is not clamped before arccos: for equal embeddings it rounds to 1 or more, which gives NaN."""
    loss = losses.TupletMarginLoss()
    values, gradients = 0, 0
    for place in range(50):
        twin = torch.tensor([1.0, float(place), 0.3])
        value, gradient = value_and_gradient(
            lambda e: loss(e, torch.tensor([0, 0, 1])), torch.stack([twin, twin, -twin])
        )
        values, gradients = values + int(value.isnan()), gradients + int(gradient.isnan().any())
    return Evidence(
        f"50 pairs of equal embeddings: {values} NaN values, {gradients} NaN gradients", holds=gradients > 0
    )


@finding(
    "pytorch_metric_learning.losses.ContrastiveLoss",
    claim="the loss of the pairs given in indices_tuple, here a positive pair at distance 2",
    source="pytorch-metric-learning documentation",
    severity=Severity.WRONG_VALUE,
    losslab="an example has the same loss alone and in a batch: the tests check this for per_example",
)
def single_pair_is_free() -> Evidence:
    """The loss of one positive and one negative pair is 0, without a gradient; if each is given twice, it is not."""
    loss = losses.ContrastiveLoss()
    points = [[1.0, 0.0], [-1.0, 0.1], [1.0, 0.1]]
    single = tuple(torch.tensor([index]) for index in (0, 1, 0, 2))
    twice = tuple(torch.cat([index, index]) for index in single)
    one, two = (value_and_gradient(partial(loss, indices_tuple=pairs), points)[0] for pairs in (single, twice))
    return Evidence(f"one pair of each kind: {say(one)}; the same pairs twice: {say(two)}", holds=float(one) == 0)


FINDINGS = (
    wrong_examples_are_dropped,
    flat_beyond_the_smallest_number,
    equal_embeddings,
    single_pair_is_free,
)

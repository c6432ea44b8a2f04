"""pytorch-metric-learning: losses that differ from their papers."""

import torch
from pytorch_metric_learning import losses, reducers

from audits.finding import Evidence, Severity, finding
from audits.measure import say, value_and_gradient
from audits.metric_learning_numerics import NONE, proxy_nca


@finding(
    "pytorch_metric_learning.losses.ContrastiveLoss",
    claim="½ d² for a positive pair, ½ max(0, m - d)² for a negative pair",
    source="Hadsell et al., Dimensionality reduction by learning an invariant mapping, 2006; documented as max(0, d)",
    severity=Severity.DIFFERS,
    losslab=NONE,
    documented=True,
)
def contrastive_is_linear() -> Evidence:
    """The distances are not squared: pairs with small errors have the same gradient norm as pairs with large errors."""
    loss = losses.ContrastiveLoss()
    value, _ = value_and_gradient(lambda e: loss(e, torch.tensor([0, 0])), [[1.0, 0.0], [0.6, 0.8]])
    distance = 0.8**0.5
    seen = f"a positive pair at distance {say(distance)}: {say(value)}; in the paper {say(distance**2 / 2)}"
    return Evidence(seen, holds=abs(float(value) - distance**2 / 2) > 0.01)


@finding(
    "pytorch_metric_learning.losses.TripletMarginLoss",
    claim="the sum over the triplets, or torch's mean over them",
    source="Schroff et al., FaceNet, 2015; torch's triplet_margin_loss; AvgNonZeroReducer is documented as the default",
    severity=Severity.DIFFERS,
    losslab="every mean is Σ per_example / Σ example_weight, including examples whose loss is 0",
    documented=True,
)
def only_violations_count() -> Evidence:
    """The mean is over the triplets whose loss is not 0, so solving half of the triplets does not lower it."""
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.1]])
    triplets = tuple(torch.tensor(index) for index in ([0, 0], [1, 1], [2, 3]))
    default = losses.TripletMarginLoss(margin=0.2)(points, indices_tuple=triplets)
    plain = losses.TripletMarginLoss(margin=0.2, reducer=reducers.MeanReducer())(points, indices_tuple=triplets)
    seen = f"one triplet violated, one not: {say(default)}; the mean over both {say(plain)}"
    return Evidence(seen, holds=abs(float(default - plain)) > 0.01)


@finding(
    "pytorch_metric_learning.losses.VICRegLoss",
    claim="λ/n Σ ‖z - z'‖² + μ (v(Z) + v(Z')) + ν (c(Z) + c(Z')), as quoted in a comment of its code",
    source="Bardes et al., VICReg, 2022 (the authors' code does the same)",
    severity=Severity.DIFFERS,
    losslab=NONE,
)
def vicreg_terms() -> Evidence:
    """Invariance is divided by the dimension and variance by 2, so the paper's λ = μ = 25 have another effect."""
    first = torch.linspace(-1, 1, 40).sin().view(8, 5)
    second = first.flip(0) * 0.5
    invariance = losses.VICRegLoss(invariance_lambda=1, variance_mu=0, covariance_v=0)(first, ref_emb=second)
    variance = losses.VICRegLoss(invariance_lambda=0, variance_mu=1, covariance_v=0)(first, ref_emb=second)
    paper = (first - second).square().sum(1).mean()
    hinges = sum((1 - (z.var(0) + 1e-4).sqrt()).relu().mean() for z in (first, second))
    seen = (
        f"8 examples, 5 dimensions: invariance {say(invariance)}, in the paper {say(paper)}; variance {say(variance)}, "
        f"in the paper {say(hinges)}"
    )
    return Evidence(seen, holds=abs(float(invariance - paper)) > 0.01)


@finding(
    "pytorch_metric_learning.losses.ProxyNCALoss",
    claim="-log(exp(-d(x, p₊)) / Σ₋ exp(-d(x, p₋))), a sum over the negative proxies only",
    source="Movshovitz-Attias et al., No fuss distance metric learning using proxies, 2017 (library issue 206)",
    severity=Severity.DIFFERS,
    losslab=NONE,
)
def positive_proxy_in_the_sum() -> Evidence:
    """The sum includes the positive proxy, as the softmax of Goldberger et al. 2004; the paper's sum does not."""
    loss = proxy_nca(1.0)
    value, _ = value_and_gradient(lambda e: loss(e, torch.tensor([0])), [[1.0, 0.0]])
    seen = f"embedding equal to its proxy, other proxy at squared distance 4: {say(value)}; in the paper -4"
    return Evidence(seen, holds=float(value) > 0)


FINDINGS = (
    only_violations_count,
    contrastive_is_linear,
    vicreg_terms,
    positive_proxy_in_the_sum,
)

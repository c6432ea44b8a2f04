"""Noise changes the best prediction of cross-entropy but not of symmetric losses, in an exact example."""

import pytest
import torch

from losslab.losses import GCE, MAE, NCE, NFL, RCE, CrossEntropy, Loss, catalog

CLEAN = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
"""The true probabilities of three labels for one input."""
NOISE = 0.5
"""The share of labels that are replaced by one of the other two. Losses tolerate shares below (K - 1)/K = 2/3."""
NOISY = (1 - NOISE) * CLEAN + NOISE / 2 * (1 - CLEAN)


def grid(steps=60):
    """Return a grid of probabilities of three classes, none of them 0, as logits (N, 3)."""
    sides = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    first, second = torch.cartesian_prod(sides, sides).T
    inside = first + second < 1 - 1e-9
    first, second = first[inside], second[inside]
    return torch.stack([first, second, 1 - first - second], 1).log()


@pytest.mark.parametrize("loss", [MAE(), RCE(), NCE(), NFL(0.5), NFL(2.0), GCE(1.0)])
def test_noisy_risk_of_a_symmetric_loss_is_a_linear_function_of_the_clean_risk(loss):
    # Ghosh et al. 2017: if Σ_k L = S, the risk under noise η is (1 - η K/(K - 1)) risk + η S/(K - 1).
    clean, noisy = loss.classwise(grid()) @ CLEAN, loss.classwise(grid()) @ NOISY
    total = loss.classwise(grid()).sum(1)
    torch.testing.assert_close(noisy, (1 - NOISE * 3 / 2) * clean + NOISE / 2 * total)
    assert noisy.argmin() == clean.argmin()


@pytest.mark.parametrize("loss", [CrossEntropy(), GCE(0.5)])
def test_noise_changes_the_best_prediction_of_cross_entropy(loss: Loss):
    clean, noisy = loss.classwise(grid()) @ CLEAN, loss.classwise(grid()) @ NOISY
    assert noisy.argmin() != clean.argmin()
    if isinstance(loss, CrossEntropy):
        torch.testing.assert_close(grid()[noisy.argmin()].exp(), NOISY, atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("name", "weights", "parameters"),
    [
        ("sce", {"cross_entropy": 0.1, "rce": 1.0}, {}),
        ("nce_mae", {"nce": 1.0, "mae": 1.0}, {}),
        ("nce_rce", {"nce": 1.0, "rce": 1.0}, {}),
        ("nfl_rce", {"nfl": 1.0, "rce": 1.0}, {}),
        ("nce_agce", {"nce": 1.0, "agce": 4.0}, {"agce": {"a": 6.0, "q": 1.5}}),
        ("nce_aul", {"nce": 1.0, "aul": 4.0}, {"aul": {"a": 6.3, "p": 1.5}}),
    ],
)
def test_composed_losses_are_the_sums_in_the_papers(name, weights, parameters):
    outputs, target = grid(), torch.arange(len(grid())) % 3
    made = {term: catalog.make(term) for term in weights}
    for term, values in parameters.items():
        for key, value in values.items():
            made[term].set_hyperparameter(key, value)
    expected = sum(weight * made[term].per_example(outputs, target) for term, weight in weights.items())
    torch.testing.assert_close(catalog.make(name).per_example(outputs, target), expected)


@pytest.mark.parametrize("name", ["nce_mae", "nce_rce", "nfl_rce"])
def test_sums_of_symmetric_losses_are_symmetric(name):
    assert catalog.make(name).card.symmetric is not None

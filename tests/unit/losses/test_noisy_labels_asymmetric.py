"""Asymmetric losses: agce and aul."""

import math

import mpmath as mp
import pytest
import torch
from exact import check, softmax

from losslab.errors import LabError
from losslab.losses import AGCE, AUL, GCE, MAE

Z = 3 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 4, 2, 1, 1, 3, 0, 2])


def agce(a, q):
    a, q = mp.mpf(a), mp.mpf(q)
    return lambda z: ((a + 1) ** q - (a + softmax(z)[0]) ** q) / q


def aul(a, p):
    a, p = mp.mpf(a), mp.mpf(p)
    return lambda z: ((a - softmax(z)[0]) ** p - (a - 1) ** p) / p


@pytest.mark.parametrize(
    ("loss", "formula"),
    [(AGCE(a, q), agce(a, q)) for a in (1e-6, 0.6, 100.0) for q in (0.01, 0.6, 3.0)]
    + [(AUL(a, p), aul(a, p)) for a in (1.0 + 2**-20, 5.5, 100.0) for p in (0.01, 1.0, 3.0)],
)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-4), (torch.float64, 1e-10)])
def test_value_and_gradient_are_exact_at_all_confidences(loss, formula, dtype, rtol):
    check(loss, formula, dtype, rtol)


@pytest.mark.parametrize("a", [0.1, 6.0])
def test_agce_with_q_1_is_mae(a):
    torch.testing.assert_close(AGCE(a, 1.0).per_example(Z, Y), MAE().per_example(Z, Y))


@pytest.mark.parametrize("a", [1.1, 6.0])
def test_aul_with_p_1_is_mae(a):
    torch.testing.assert_close(AUL(a, 1.0).per_example(Z, Y), MAE().per_example(Z, Y))


def test_agce_approaches_gce_as_a_goes_to_0():
    torch.testing.assert_close(AGCE(1e-12, 0.7).per_example(Z, Y), GCE(0.7).per_example(Z, Y))


def expected(loss, first, likelier):
    """Return `likelier` L(p, 0) + L(p, 1) at p = (first, 1 - first). Label 0 is `likelier` times as likely as 1."""
    outputs = torch.stack([first.log(), (1 - first).log()], 1)
    return loss.classwise(outputs) @ torch.tensor([likelier, 1.0], dtype=torch.float64)


# The smallest ratio of right to wrong labels with which noise is tolerated (Zhou et al. 2021): above it, the expected
# loss decreases until the likelier class has probability 1.
RATIOS = [
    (AGCE(0.6, 0.6), (1 + 1 / 0.6) ** 0.4),
    (AGCE(0.1, 0.2), 11**0.8),
    (AGCE(0.6, 1.5), 1.0),
    (AUL(5.5, 3.0), (5.5 / 4.5) ** 2),
    (AUL(1.1, 2.0), 11.0),
    (AUL(1.1, 0.5), 1.0),
]


@pytest.mark.parametrize(("loss", "ratio"), RATIOS)
def test_noise_is_tolerated_above_the_declared_ratio_of_right_to_wrong_labels(loss, ratio):
    p = torch.linspace(1e-6, 1 - 1e-6, 20_001, dtype=torch.float64)
    assert expected(loss, p, 1.01 * ratio).argmin() == len(p) - 1
    assert expected(loss, p, 0.97 * ratio).argmin() < len(p) - 1


@pytest.mark.parametrize(
    "wrong", [lambda: AGCE(a=0.0), lambda: AGCE(q=0.0), lambda: AUL(a=1.0), lambda: AUL(p=0.0), lambda: AUL(p=math.nan)]
)
def test_hyperparameters_outside_their_range_are_rejected(wrong):
    with pytest.raises(LabError, match="must be a number in"):
        wrong()

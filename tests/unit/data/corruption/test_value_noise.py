"""Outliers and heteroscedastic noise."""

import pytest
import torch

from losslab.data.batch import DataSpec, Examples
from losslab.data.corruption.base import Subset
from losslab.data.corruption.value_noise import Heteroscedastic, Outliers
from losslab.data.synthetic import Counts, LinearSynthetic
from losslab.errors import LabError
from losslab.targets import Kind, Task

VALUES = DataSpec(Task.REGRESSION, Kind.VALUES, (3,), 2)


def examples(count=1000):
    random = torch.Generator().manual_seed(0)
    return Examples.of(torch.randn(count, 3, generator=random), torch.randn(count, 2, generator=random))


def moved(noise, split=None):
    noisy = noise(split or examples(), VALUES)
    return noisy.target - noisy.truth


def test_outliers_change_training_targets_only():
    data = LinearSynthetic(n=1000)
    data.corrupt([Outliers(0.1, size=20.0)])
    data.setup()
    train = data.splits["train"]
    thrown = (train.target - train.truth).flatten()
    assert (thrown != 0).sum() == 100
    assert thrown.min() >= 0
    assert thrown[thrown != 0].mean().item() == pytest.approx(20, rel=0.3)
    for name in ("val", "test"):
        assert torch.equal(data.splits[name].target, data.splits[name].truth)


def test_two_sided_outliers_differ_in_sign_only():
    one, two = moved(Outliers(0.5)), moved(Outliers(0.5, sides="two"))
    torch.testing.assert_close(one, two.abs())
    assert 400 < (two < 0).sum() < 600


def test_a_higher_rate_keeps_the_outliers_of_a_lower_one():
    low, high = moved(Outliers(0.1)), moved(Outliers(0.4))
    thrown = low.any(1)
    assert thrown.sum() == 100
    torch.testing.assert_close(low[thrown], high[thrown])


def test_outliers_of_counts_are_counts():
    data = Counts(n=500)
    data.corrupt([Outliers(0.2, size=3.0)])
    data.setup()
    train = data.splits["train"]
    assert torch.equal(train.target, train.target.round())
    assert (train.target > train.truth).sum() == 100


def test_heteroscedastic_noise_grows_with_the_feature():
    split = examples(200_000)
    noise = moved(Heteroscedastic(scale=0.5, growth=0.7, feature=1), split)
    z = split.inputs[:, 1]
    for low, high in ((-2, -1.5), (-0.2, 0.2), (1.5, 2)):
        here = (z > low) & (z < high)
        expected = 0.5 * torch.exp(0.7 * z[here]).square().mean().sqrt()
        assert noise[here].std().item() == pytest.approx(expected.item(), rel=0.05)
    assert noise.mean().abs() < 0.01


def test_without_growth_the_noise_is_homoscedastic():
    assert moved(Heteroscedastic(scale=2.0, growth=0)).std().item() == pytest.approx(2, rel=0.05)


def test_a_constant_feature_gives_homoscedastic_noise():
    split = examples()._replace(inputs=torch.ones(1000, 3))
    assert moved(Heteroscedastic(scale=2.0), split).std().item() == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("noise", [Outliers, Heteroscedastic])
def test_noise_is_a_function_of_the_seed(noise):
    first, again, other = (moved(noise(0.3, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("noise", "options", "message"),
    [
        (Outliers, {"rate": 2}, "noise.rate must be a share from 0 to 1, got 2"),
        (Outliers, {"rate": 0.1, "size": 0}, "noise.size must be a number above 0"),
        (Outliers, {"rate": 0.1, "sides": "three"}, "noise.sides must be one or two, got 'three'"),
        (Heteroscedastic, {"scale": -1}, "noise.scale must be a number above 0"),
        (Heteroscedastic, {"growth": 11}, "noise.growth must be a number from -10 to 10"),
        (Heteroscedastic, {"feature": 0.5}, "noise.feature must be a column index, 0 or more"),
        (Heteroscedastic, {"seed": "x"}, "noise.seed must be an integer"),
    ],
)
def test_invalid_parameters_are_refused(noise, options, message):
    with pytest.raises(LabError, match=message):
        noise(**options)


@pytest.mark.parametrize(
    ("noise", "spec", "message"),
    [
        (Outliers(0.1), DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), 3), "use noise=symmetric or pair_flip"),
        (Outliers(0.1, sides="two"), Counts().spec, "negative: use noise.sides=one"),
        (Heteroscedastic(), Counts().spec, "these are counts: use noise=outliers"),
        (Heteroscedastic(feature=3), VALUES, "noise.feature must be a column index, 0 to 2, got 3"),
    ],
)
def test_unsuitable_data_are_refused_with_a_noise_that_fits(noise, spec, message):
    with pytest.raises(LabError, match=message):
        noise.check(spec)


def test_heteroscedastic_noise_needs_data_in_memory():
    train = examples()
    with pytest.raises(LabError, match="the data must be in memory"):
        Heteroscedastic()(Subset(train, train.index, train.target), VALUES)

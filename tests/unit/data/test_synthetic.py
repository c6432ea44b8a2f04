"""The synthetic data follow their declared laws."""

import pytest
import torch
from sklearn.linear_model import PoissonRegressor

from losslab.data.synthetic import Counts, Line, LinearSynthetic
from losslab.errors import LabError
from losslab.targets import Kind, Task


def test_the_line_is_the_same_three_points_in_every_split():
    data = Line()
    data.setup()
    for examples in data.splits.values():
        assert examples.inputs.flatten().tolist() == [1, 2, 3]
        assert examples.target.flatten().tolist() == [2, 4, 6]


def test_the_synthetic_law_can_be_recovered_up_to_its_noise():
    data = LinearSynthetic(n=5000, noise=0.1)
    data.setup()
    train = data.splits["train"]
    x = torch.cat([train.inputs, torch.ones(5000, 1)], 1)
    residual = train.target - x @ torch.linalg.lstsq(x, train.target).solution
    assert residual.std().item() == pytest.approx(0.1, rel=0.05)


def splits(**options):
    data = Counts(**options)
    data.setup()
    return data.splits


def test_counts_are_integers_and_the_truth_is_the_target():
    data = Counts(n=50)
    data.setup()
    assert (data.spec.task, data.spec.kind, data.spec.targets) == (Task.REGRESSION, Kind.VALUES, 1)
    for examples in data.splits.values():
        assert examples.target.shape == (50, 1)
        assert examples.target.dtype == torch.float32
        assert torch.equal(examples.target, examples.target.round())
        assert examples.target.min() >= 0
        assert examples.truth is examples.target


def test_counts_follow_a_log_linear_law_with_poisson_noise():
    examples = splits(n=20_000, features=4, rate=3.0, effect=0.5)["train"]
    inputs, counts = examples.inputs.numpy(), examples.target.flatten().numpy()
    law = PoissonRegressor(alpha=0, tol=1e-8).fit(inputs, counts)
    assert law.intercept_ == pytest.approx(1.0986, abs=0.02)
    assert torch.from_numpy(law.coef_).norm().item() == pytest.approx(0.5, abs=0.02)
    rates = law.predict(inputs)
    # Poisson noise has the variance of its mean.
    assert ((counts - rates) ** 2 / rates).mean() == pytest.approx(1, abs=0.05)
    assert ((counts - rates) ** 2).mean() == pytest.approx(3 * 2.71828**0.125, rel=0.05)


def test_splits_share_the_law_and_no_example():
    drawn = splits(n=20_000, features=4)
    laws = [PoissonRegressor(alpha=0).fit(s.inputs.numpy(), s.target.flatten().numpy()).coef_ for s in drawn.values()]
    for law in laws[1:]:
        assert law == pytest.approx(laws[0], abs=0.03)
    assert not torch.equal(drawn["train"].inputs, drawn["val"].inputs)
    assert not torch.equal(drawn["val"].inputs, drawn["test"].inputs)


def test_the_draws_depend_on_the_data_seed_alone():
    first, again, other = splits(seed=1)["test"], splits(seed=2)["test"], splits(data_seed=1)["test"]
    assert torch.equal(first.target, again.target)
    assert not torch.equal(first.target, other.target)


@pytest.mark.parametrize("options", [{"n": 0}, {"features": 0}, {"rate": 0}, {"rate": 1e7}, {"effect": -1}])
def test_impossible_parameters_of_counts_are_refused(options):
    with pytest.raises(LabError, match="counts needs n ≥ 1"):
        Counts(**options)

"""Label noise: exact rates, reproducible draws, and a truth that stays clean."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losslab.data.batch import DataSpec, Examples
from losslab.data.cifar10 import CLASSES
from losslab.data.corruption.base import Subset, select_rows
from losslab.data.corruption.label_noise import Asymmetric, PairFlip, Symmetric
from losslab.errors import LabError
from losslab.targets import Kind, Task

CLASSES_OF_CIFAR = DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), 10, CLASSES)
BINARY = DataSpec(Task.BINARY, Kind.BINARY, (1,), 1, ("no", "yes"))
LABELS = DataSpec(Task.MULTILABEL, Kind.BINARY, (1,), 3, ("a", "b", "c"))


def spec(classes):
    return DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), classes, tuple(map(str, range(classes))))


def examples(target):
    return Examples.of(torch.zeros(len(target), 1), target)


def drawn(classes, count, seed=0):
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))


class Files:
    """A source that is not in memory."""

    device, shape = torch.device("cpu"), torch.Size((1,))

    def __init__(self, target):
        self.target, self.size = target, len(target)

    def take(self, rows):
        return Examples(rows[:, None].float(), self.target[rows], self.target[rows], rows)


@pytest.mark.parametrize("noise", [Symmetric, PairFlip])
@settings(max_examples=40, deadline=None)
@given(
    classes=st.integers(2, 12), count=st.integers(1, 200), rate=st.floats(0, 1), seed=st.integers(0, 99), data=st.data()
)
def test_the_exact_share_of_each_class_gets_another_class(noise, classes, count, rate, seed, data):
    truth = drawn(classes, count, data.draw(st.integers(0, 5)))
    clean = truth.clone()
    noisy = noise(rate, seed)(examples(truth), spec(classes))
    for label in range(classes):
        members = truth == label
        assert (noisy.target[members] != label).sum() == round(rate * int(members.sum()))
    assert ((noisy.target >= 0) & (noisy.target < classes)).all()
    assert torch.equal(noisy.truth, clean)
    assert torch.equal(truth, clean)
    assert torch.equal(noisy.index, torch.arange(count))


def test_symmetric_noise_is_uniform_over_the_other_classes():
    noisy = Symmetric(1.0)(examples(torch.full((9000,), 3)), spec(10))
    counts = torch.bincount(noisy.target, minlength=10)
    assert counts[3] == 0
    assert (counts[torch.arange(10) != 3] - 1000).abs().max() < 5 * 1000**0.5


def test_pair_flip_gives_the_next_class():
    truth = drawn(5, 500)
    target = PairFlip(0.3)(examples(truth), spec(5)).target
    wrong = target != truth
    assert torch.equal(target[wrong], (truth[wrong] + 1) % 5)


def test_asymmetric_noise_confuses_similar_classes_only():
    truth = torch.arange(10).repeat_interleave(100)
    target = Asymmetric(0.4)(examples(truth), CLASSES_OF_CIFAR).target
    given_as = {CLASSES[y]: {CLASSES[t] for t in target[truth == y].tolist()} - {CLASSES[y]} for y in range(10)}
    assert {name: others.pop() for name, others in given_as.items() if others} == {
        "truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat",
    }  # fmt: skip
    wrong = torch.bincount(truth[target != truth], minlength=10)
    assert set(wrong.tolist()) == {0, 40}


def test_noise_is_a_function_of_the_seed():
    split = examples(drawn(10, 1000))
    same = [Symmetric(0.4, seed)(split, spec(10)).target for seed in (7, 7, 8)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])


def test_a_higher_rate_keeps_the_wrong_labels_of_a_lower_one():
    split = examples(drawn(10, 1000))
    low, high = (Symmetric(rate)(split, spec(10)).target for rate in (0.2, 0.6))
    wrong = low != split.truth
    assert torch.equal(low[wrong], high[wrong])


def test_symmetric_and_pair_flip_noise_change_the_same_examples():
    split = examples(drawn(10, 1000))
    wrong = [noise(0.3)(split, spec(10)).target != split.truth for noise in (Symmetric, PairFlip)]
    assert torch.equal(*wrong)


def test_noise_does_not_change_ignored_indices():
    truth = drawn(4, 100)
    truth[::3] = -100
    target = Symmetric(1.0)(examples(truth), spec(4)).target
    assert torch.equal(target == -100, truth == -100)


@pytest.mark.parametrize("noise", [Symmetric, PairFlip])
def test_binary_labels_are_flipped_and_stay_floats(noise):
    truth = drawn(2, 300)[:, None].float()
    target = noise(0.25)(examples(truth), BINARY).target
    assert target.dtype == torch.float32
    assert target.shape == (300, 1)
    for answer in (0, 1):
        assert (target[truth == answer] != answer).sum() == round(0.25 * int((truth == answer).sum()))
    assert set(target.unique().tolist()) == {0, 1}


def test_labels_are_flipped_independently():
    truth = (torch.rand(400, 3, generator=torch.Generator().manual_seed(0)) < torch.tensor([0.1, 0.5, 0.8])).float()
    target = Symmetric(0.2)(examples(truth), LABELS).target
    for label in range(3):
        for answer in (0, 1):
            members = truth[:, label] == answer
            assert (target[members, label] != answer).sum() == round(0.2 * int(members.sum()))
    alike = drawn(2, 400)[:, None].float().expand(-1, 3).contiguous()
    flipped = Symmetric(0.2)(examples(alike), LABELS).target != alike
    assert not torch.equal(flipped[:, 0], flipped[:, 1])


def test_a_source_on_disk_gets_the_same_labels_as_one_in_memory():
    truth = drawn(10, 200)
    odd, rows = torch.arange(1, 200, 2), torch.tensor([3, 99, 4])
    streamed = Symmetric(0.5)(select_rows(Subset(Files(truth), torch.arange(200), truth), odd), spec(10))
    held = Symmetric(0.5)(select_rows(examples(truth), odd), spec(10))
    assert isinstance(streamed, Subset)
    assert torch.equal(streamed.target, held.target)
    batch = streamed.take(rows)
    assert torch.equal(batch.target, held.target[rows])
    assert torch.equal(batch.truth, truth[odd][rows])
    assert batch.index.tolist() == batch.inputs.flatten().tolist() == [7, 199, 9]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 1.5}, r"noise.rate must be a share from 0 to 1, got 1.5"),
        ({"rate": "much"}, r"noise.rate must be a share from 0 to 1, got 'much'"),
        ({"rate": True}, "noise.rate must be a share"),
        ({"rate": float("nan")}, "noise.rate must be a share"),
        ({"rate": 0.1, "seed": 0.5}, "noise.seed must be an integer, got 0.5"),
    ],
)
def test_invalid_rates_and_seeds_are_refused(options, message):
    with pytest.raises(LabError, match=message):
        Symmetric(**options)


@pytest.mark.parametrize(
    ("noise", "data", "message"),
    [
        (Symmetric(0.1), DataSpec(Task.REGRESSION, Kind.VALUES, (1,), 1), "use noise=outliers or heteroscedastic"),
        (Symmetric(0.1), DataSpec(Task.MULTICLASS, Kind.PROBABILITIES, (1,), 3), "are probabilities"),
        (PairFlip(0.1), LABELS, "use noise=symmetric for several labels"),
        (Asymmetric(0.1), spec(10), "these data have no airplane, .*: use noise=pair_flip"),
        (Asymmetric(0.1), BINARY, "use noise=pair_flip"),
    ],
)
def test_unsuitable_data_are_refused_with_a_noise_that_fits(noise, data, message):
    with pytest.raises(LabError, match=message) as error:
        noise.check(data)
    assert "\n" not in str(error.value)

"""Long tails with the profile of Cao et al."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losslab.data.batch import DataSpec, Examples
from losslab.data.corruption.long_tail import LongTail
from losslab.errors import LabError
from losslab.targets import Kind, Task

TEN = DataSpec(Task.MULTICLASS, Kind.INDEX, (1,), 10, tuple("abcdefghij"))


def split_of(sizes):
    labels = torch.cat([torch.full((size,), label) for label, size in enumerate(sizes)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    return Examples.of(torch.arange(len(labels))[:, None], labels)


def test_class_sizes_of_cifar10_are_those_of_the_paper():
    # The sizes that the authors' code gives for 5,000 images a class, 12,406 images in all.
    assert LongTail(100).sizes([5000] * 10) == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert LongTail(10).sizes([5000] * 10) == [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]


@settings(max_examples=60, deadline=None)
@given(available=st.lists(st.integers(50, 400), min_size=2, max_size=12), ratio=st.floats(1, 50))
def test_sizes_are_exponential_and_as_large_as_available(available, ratio):
    sizes = LongTail(ratio).sizes(available)
    classes = len(available)
    assert all(1 <= size <= there for size, there in zip(sizes, available, strict=True))
    assert sizes == sorted(sizes, reverse=True)
    for label, size in enumerate(sizes):
        assert size == pytest.approx(sizes[0] * ratio ** (-label / (classes - 1)), abs=1)
    larger = [(sizes[0] + 1) * ratio ** (-label / (classes - 1)) for label in range(classes)]
    assert any(wanted > there for wanted, there in zip(larger, available, strict=True))


def test_kept_examples_are_unchanged_and_in_order():
    whole = split_of([30, 40, 50, 60, 70, 30, 40, 50, 60, 70])
    tail = LongTail(5)(whole, TEN)
    assert tail.index.tolist() == sorted(tail.index.tolist())
    assert torch.equal(tail.inputs.flatten(), tail.index)
    assert torch.equal(tail.target, whole.target[tail.index])
    assert torch.bincount(tail.target).tolist() == LongTail(5).sizes([30, 40, 50, 60, 70, 30, 40, 50, 60, 70])


def test_kept_examples_depend_on_seed_and_class_only():
    whole = split_of([60] * 10)
    kept = {ratio: set(LongTail(ratio)(whole, TEN).index.tolist()) for ratio in (1, 2, 20)}
    assert kept[20] < kept[2] < kept[1]
    assert kept[20] == set(LongTail(20)(whole, TEN).index.tolist())
    assert kept[20] != set(LongTail(20, seed=1)(whole, TEN).index.tolist())


def test_class_0_is_the_larger_class_of_binary_data():
    answers = torch.tensor([0.0, 1.0]).repeat(100)[:, None]
    tail = LongTail(4)(Examples.of(torch.zeros(200, 1), answers), DataSpec(Task.BINARY, Kind.BINARY, (1,), 1))
    assert [int((tail.target == answer).sum()) for answer in (0, 1)] == [100, 25]


@pytest.mark.parametrize("ratio", [0.5, "steep", float("inf"), float("nan"), True])
def test_an_invalid_ratio_is_refused(ratio):
    with pytest.raises(LabError, match=r"imbalance.ratio must be a number, 1 or more"):
        LongTail(ratio)


def test_a_ratio_that_empties_a_class_is_refused_and_the_suggested_one_works():
    whole = split_of([30] * 10)
    with pytest.raises(LabError, match="leaves class j none of its 30 training examples: choose a ratio of at most 30"):
        LongTail(31)(whole, TEN)
    assert torch.bincount(LongTail(30)(whole, TEN).target).min() == 1


def test_data_without_exclusive_classes_are_refused():
    with pytest.raises(LabError, match="these data have values"):
        LongTail(10).check(DataSpec(Task.REGRESSION, Kind.VALUES, (1,), 1))
    with pytest.raises(LabError, match="several labels"):
        LongTail(10).check(DataSpec(Task.MULTILABEL, Kind.BINARY, (1,), 3))

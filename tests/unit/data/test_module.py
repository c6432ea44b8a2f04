"""The base class of data modules, and the data sets that need no download."""

import itertools
import logging
from types import SimpleNamespace

import pytest
import torch

from losslab.data.module import split_rows
from losslab.data.sklearn_datasets import BreastCancer, Diabetes, Digits, MultilabelSynthetic
from losslab.data.synthetic import Counts, Line, LinearSynthetic
from losslab.errors import LabError
from losslab.targets import Task

ALL = [Line, LinearSynthetic, Counts, Diabetes, BreastCancer, Digits, MultilabelSynthetic]


@pytest.mark.parametrize("module", ALL)
def test_batches_match_the_declared_spec(module):
    data = module()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    spec = data.spec
    assert batch.inputs.shape[1:] == spec.input_shape
    assert batch.inputs.dtype == torch.float32
    if spec.task is Task.MULTICLASS:
        assert batch.target.dtype == torch.int64
        assert batch.target.max() < spec.targets == len(spec.class_names)
    else:
        assert batch.target.shape[1:] == (spec.targets,)
        assert batch.target.dtype == torch.float32


@pytest.mark.parametrize("module", ALL)
def test_no_example_is_lost_at_any_batch_size(module):
    data = module(batch_size=7, eval_batch_size=16)
    data.setup()
    for split, loader in (("train", data.train_dataloader()), ("val", data.val_dataloader())):
        seen = sorted(itertools.chain(*(batch.index.tolist() for batch in loader)))
        assert seen == sorted(data.splits[split].index.tolist())


@pytest.mark.parametrize("module", [Diabetes, BreastCancer, Digits, MultilabelSynthetic])
def test_splits_do_not_overlap(module):
    data = module()
    data.setup()
    parts = [set(data.splits[name].index.tolist()) for name in ("train", "val", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts))


@pytest.mark.parametrize("module", [Diabetes, BreastCancer, MultilabelSynthetic])
def test_features_are_standardised_by_training_statistics(module):
    data = module()
    data.setup()
    train, test = data.splits["train"].inputs, data.splits["test"].inputs
    torch.testing.assert_close(train.mean(0), torch.zeros(train.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(train.shape[1]), atol=1e-5, rtol=0)
    assert test.mean(0).abs().max() > 1e-3, "the test split was standardised with its own statistics"


@pytest.mark.parametrize("size", [0, -3])
@pytest.mark.parametrize("name", ["batch_size", "eval_batch_size"])
def test_a_batch_size_below_1_is_refused(name, size):
    with pytest.raises(LabError, match=f"data.{name} must be 1 or more"):
        Line(**{name: size})


def test_a_split_larger_than_the_data_is_refused():
    with pytest.raises(LabError, match="cannot split 10"):
        split_rows(10, (8, 3), seed=0)


def test_multilabel_examples_have_few_labels_that_follow_from_their_words():
    data = MultilabelSynthetic(n=3000, features=30, labels=20, positives=2)
    data.setup()
    train = data.splits["train"]
    labels = train.target.sum(1)
    assert (train.size, data.spec.targets) == (2100, 20)
    assert labels.mean().item() == pytest.approx(2, abs=0.15)
    assert labels.max() > 3
    weights = torch.linalg.lstsq(train.inputs, train.target - train.target.mean(0)).solution
    test = data.splits["test"]
    score = test.inputs @ weights
    above = [score[test.target[:, k] == 1, k].mean() > score[test.target[:, k] == 0, k].mean() for k in range(20)]
    assert all(above)


def test_some_digits_become_the_classes_of_their_own_data():
    data, whole = Digits(size=8, classes=(7, 2)), Digits(size=8)
    (images, target), (all_images, digit) = data.read(), whole.read()
    assert (data.spec.targets, data.spec.class_names) == (2, ("7", "2"))
    assert torch.equal(images[target == 0], all_images[digit == 7])
    assert torch.equal(images[target == 1], all_images[digit == 2])


@pytest.mark.parametrize("classes", [(1,), (1, 1), (1, 10), (1, "x")])
def test_classes_that_are_no_digits_are_refused(classes):
    with pytest.raises(LabError, match=r"data\.classes must be two or more different digits"):
        Digits(classes=classes)


@pytest.mark.parametrize("options", [{"n": 6}, {"features": 0}, {"positives": 0}, {"labels": 3, "positives": 4}])
def test_impossible_multilabel_data_are_refused(options):
    with pytest.raises(LabError, match="multilabel_synthetic needs n ≥ 7"):
        MultilabelSynthetic(**options)


def test_digits_have_the_configured_size():
    data = Digits(size=16)
    data.setup()
    assert data.splits["train"].inputs.shape[1:] == (16, 16, 3)
    assert data.splits["train"].inputs.dtype == torch.uint8


def test_data_too_large_for_the_gpu_stay_in_host_memory(monkeypatch, caplog):
    data = Digits()
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (2**20, 2**30))
    gpu = SimpleNamespace(root_device=torch.device("cuda", 0))
    data.trainer = SimpleNamespace(strategy=gpu, overfit_batches=0, global_rank=0, world_size=1)
    with caplog.at_level(logging.INFO):
        data.setup()
    assert data.splits["train"].device.type == "cpu"
    assert data.train_dataloader().device.type == "cuda"
    assert "stay in host memory: they take 5.3 MiB, and 1.0 MiB are free on cuda:0" in caplog.text


def test_truth_and_target_stay_one_tensor_when_moved():
    examples = Line().load()["train"]
    moved = examples.to(torch.device("meta"))
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert moved.truth is moved.target
    part = examples.take(torch.tensor([2, 0]))
    assert part.truth is part.target
    assert part.index.tolist() == [2, 0]


@pytest.mark.parametrize("module", [Digits, BreastCancer])
def test_class_counts_are_those_of_the_training_split(module):
    data = module()
    data.setup()
    target = data.splits["train"].target
    columns = target if target.is_floating_point() else torch.nn.functional.one_hot(target, data.spec.targets)
    assert data.class_counts.dtype == torch.int64
    assert data.class_counts.tolist() == columns.sum(0).tolist()


def test_missing_classes_count_0_and_ignored_indices_are_not_counted():
    data = Digits()
    data.setup()
    train = data.splits["train"]
    data.splits = {**data.splits, "train": train._replace(target=train.target.where(train.target < 8, -100))}
    assert data.class_counts[8:].tolist() == [0, 0]
    assert data.class_counts.sum() == (train.target < 8).sum()


def test_values_have_no_class_counts():
    assert Diabetes().class_counts is None


def test_class_counts_before_setup_are_refused():
    with pytest.raises(LabError, match=r"call setup\(\) first"):
        _ = Digits().class_counts

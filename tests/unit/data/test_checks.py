"""Checks of the examples that a data module reads."""

import logging
from math import inf, nan

import numpy as np
import pytest
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from losslab.data.batch import DataSpec, Examples
from losslab.data.checks import check_splits, find_degenerate, weighted_means
from losslab.data.module import ExperimentDataModule
from losslab.data.sklearn_datasets import SplitDataModule
from losslab.errors import LabError
from losslab.targets import Kind, Task
from losslab.training.instantiate import make_data

NAN = float("nan")
X = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
CLASSES = DataSpec(Task.MULTICLASS, Kind.INDEX, (2,), 3, ("a", "b", "c"))
SOFT = DataSpec(Task.MULTICLASS, Kind.PROBABILITIES, (2,), 3)
LABEL = DataSpec(Task.BINARY, Kind.BINARY, (2,), 1)
LABELS = DataSpec(Task.MULTILABEL, Kind.BINARY, (2,), 2)
VALUE = DataSpec(Task.REGRESSION, Kind.VALUES, (2,), 1)
VALUES = DataSpec(Task.REGRESSION, Kind.VALUES, (2,), 2)


def checked(spec, target, inputs=X, **options):
    split = (inputs, target)
    return check_splits(dict.fromkeys(("train", "val", "test"), split), spec, "Mine", **options)["train"]


def cycle(*rows):
    return (list(rows) * 12)[:12]


class Given(SplitDataModule):
    """Returns what a test sets as `result`."""

    spec = VALUE

    def __init__(self, result, spec=VALUE, **options):
        super().__init__(**options)
        self.result, self.spec = result, spec

    def read(self):
        return self.result


@pytest.mark.parametrize(
    ("spec", "unknown", "target"),
    [
        (CLASSES, "-100", cycle(0, 1, -100, 2)),
        (CLASSES, "-1", cycle(0, 1, -1, 2)),
        (CLASSES, "-100", cycle(0.0, 1.0, NAN, 2.0)),
        (SOFT, "NaN", cycle([1.0, 0, 0], [0.5, 0.5, 0], [NAN] * 3, [0, 0, 1])),
        (SOFT, "0", cycle([1.0, 0, 0], [0.5, 0.5, 0], [0.0, 0, 0], [0, 0, 1])),
        (LABEL, "NaN", cycle(0.0, 1.0, NAN, 1.0)),
        (LABEL, "-1", cycle([0], [1], [-1], [1])),
        (LABELS, "NaN", cycle([0, 1.0], [1, 1], [NAN, NAN], [1, 0])),
        (LABELS, "-1", cycle([0, 1], [1, 1], [-1, -1], [1, 0])),
        (VALUE, "NaN", cycle(0.5, 1.5, NAN, 2.5)),
        (VALUES, "NaN", cycle([0.5, 1], [1.5, 1], [NAN, NAN], [2.5, 3])),
    ],
)
def test_examples_with_an_unknown_label_are_left_out_and_counted(spec, unknown, target, caplog):
    with caplog.at_level(logging.WARNING):
        examples = checked(spec, target)
    assert examples.index.tolist() == [0, 1, 3, 4, 5, 7, 8, 9, 11]
    assert torch.equal(examples.inputs, X[examples.index])
    assert examples.truth.isfinite().all()
    (line,) = caplog.messages
    assert f"not known ({unknown}) for 3 of 12 train, 3 of 12 val, 3 of 12 test examples" in line


def test_a_class_that_the_loss_ignores_is_left_out(caplog):
    examples = checked(CLASSES, cycle(0, 1, 2, 2), ignore_index=2)
    assert examples.target.unique().tolist() == [0, 1]
    assert "not known (2) for 6 of 12 train" in caplog.text


def test_known_labels_are_returned_unchanged_and_without_a_line(caplog):
    target = torch.tensor(cycle(0, 1, 2))
    examples = checked(CLASSES, target, ignore_index=-100)
    assert examples.inputs is X
    assert examples.target is examples.truth is target
    assert not caplog.messages


def test_an_unknown_truth_is_left_out_too():
    truth = torch.tensor(cycle(0, -1, 2))
    split = Examples.of(X, torch.tensor(cycle(0, 1, 2)), truth)
    examples = check_splits(dict.fromkeys(("train", "val", "test"), split), CLASSES, "Mine")["train"]
    assert examples.index.tolist() == [row for row in range(12) if row % 3 != 1]


def test_labels_of_plus_and_minus_1_are_all_known():
    examples = checked(LABEL, cycle(-1, 1, 1))
    assert examples.size == 12
    assert examples.target[:3, 0].tolist() == [-1, 1, 1]
    assert examples.truth[:3, 0].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("spec", "target", "truth"),
    [(LABEL, cycle(0.9, 0.1), [[1], [0]]), (SOFT, cycle([0.1, 0.2, 0.7], [0.8, 0.1, 0.1]), [2, 0])],
)
def test_the_truth_of_probabilities_is_the_likeliest_label(spec, target, truth):
    examples = checked(spec, target)
    assert examples.truth[:2].tolist() == truth
    torch.testing.assert_close(examples.target, torch.tensor(target).view(examples.target.shape))


@pytest.mark.parametrize(
    ("spec", "target", "message"),
    [
        (CLASSES, cycle(1, 2, 3), "go up to 3, but spec.targets=3 means the classes 0 to 2: subtract 1"),
        (CLASSES, cycle(0, 2, 255), "go up to 255, .*: set spec.targets=256; where the label is not known, write -100"),
        (CLASSES, cycle(0.5, 1), "must be class indices 0, 1, 2"),
        (CLASSES, cycle([1, 0, 0], [0, 1, 0]), r"must be class indices \(N,\).*argmax\(1\) for one-hot rows"),
        (CLASSES, cycle("a", "b"), "must be an array of numbers, got a list .*'a'"),
        (CLASSES, [0, 1], "has 12 inputs, but 2 targets"),
        (CLASSES, cycle(-100), "the split train of Mine has no examples with a known label"),
        (DataSpec(Task.MULTICLASS, Kind.INDEX, (2,), 2), cycle(-1, 1), "are -1 and 1, but the classes are 0 and 1"),
        (LABEL, cycle(0, 1, 2), "go from 0 to 2, but spec.kind=binary means numbers from 0 to 1"),
        (LABELS, cycle([0, 1], [-1, 1], [0, 0]), "unknown in some columns of 4 of 12 examples"),
        (LABELS, cycle(0, 1), r"must have the shape \(N, 2\) for spec.targets=2"),
        (VALUES, cycle([0, NAN], [1, 1]), "unknown in some columns of 6 of 12 examples"),
        (VALUE, cycle(0.0, float("inf")), "are infinite for some examples"),
        (VALUE, cycle([0, 1]), r"must have the shape \(N, 1\) for spec.targets=1"),
        (SOFT, cycle([-0.5, 0.5, 1]), "go from -0.5 to 1, but spec.kind=probabilities"),
    ],
)
def test_wrong_targets_are_refused_in_one_line(spec, target, message):
    with pytest.raises(LabError, match=message) as error:
        checked(spec, target)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "inputs",
    [X.double(), X.half(), X.bfloat16(), X.numpy(), X.double().numpy(), X.tolist(), X.numpy().astype(">f8"), [*X]],
    ids=["float64", "float16", "bfloat16", "array", "float64 array", "list", "big-endian", "list of tensors"],
)
def test_inputs_and_targets_become_tensors_of_float32_and_int64(inputs):
    for spec, target in ((CLASSES, cycle(0, 1, 2)), (VALUE, cycle(1, 2, 4)), (LABEL, cycle(1, 0))):
        arrays = (target, np.array(target), np.array(target, dtype=float), torch.tensor(target, dtype=torch.int32))
        for given in arrays:
            examples = checked(spec, given, inputs)
            assert examples.inputs.dtype == torch.float32
            torch.testing.assert_close(examples.inputs, X, atol=1e-2, rtol=1e-2)
            assert examples.target.dtype == (torch.int64 if spec is CLASSES else torch.float32)
            assert examples.target.flatten().tolist() == target


class Table:
    """Converts itself to an array as a table of pandas with columns of numbers and bools does."""

    def __init__(self, *columns):
        self.columns = columns

    def __array__(self, dtype=None, copy=None):
        return np.array(list(zip(*self.columns, strict=True)), dtype=object)


def test_a_table_of_numbers_and_bools_is_read():
    examples = checked(VALUE, Table(range(12)), Table(X[:, 0].tolist(), [True, False] * 6))
    assert examples.inputs[:2, 1].tolist() == [1, 0]
    assert examples.target[:3, 0].tolist() == [0, 1, 2]


def test_tensor_datasets_are_read():
    splits = dict.fromkeys(("train", "val", "test"), TensorDataset(X, torch.arange(12) % 3))
    assert check_splits(splits, CLASSES, "Mine")["val"].size == 12
    data = Given(TensorDataset(X, X.sum(1)))
    data.setup()
    assert data.splits["train"].target.shape == (8, 1)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": (X, X[:, 0]), "val": (X, X[:, 0])}, "must return a dict of train, val and test, got train, val"),
        (None, "must return a dict of train, val and test, got a NoneType"),
        (dict.fromkeys(("train", "val", "test"), (X, X, X)), "must be a pair of inputs and targets, got 3 values"),
        (dict.fromkeys(("train", "val", "test"), 5), "a pair of inputs and targets, got a int"),
        (dict.fromkeys(("train", "val", "test"), (X[:0], X[:0, :1])), "the split train of Mine has no examples"),
        (dict.fromkeys(("train", "val", "test"), (X[:, :1], X[:, :1])), r"\(12, 1\), but spec.input_shape is \(2,\)"),
        (dict.fromkeys(("train", "val", "test"), (["a"] * 12, X[:, :1])), "inputs of Mine must be an array of numbers"),
    ],
)
def test_wrong_splits_are_refused_in_one_line(splits, message):
    with pytest.raises(LabError, match=message):
        check_splits(splits, VALUE, "Mine")


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "Given.read.. must return inputs and targets, got a NoneType"),
        ((X, X, X), "must return inputs and targets, got 3 values"),
        ((X, X[:5, :1]), "returns 12 inputs, but 5 targets"),
        (({"a": 1}, X[:, :1]), "the inputs of Given must be an array of numbers, got a dict"),
    ],
)
def test_a_wrong_result_of_read_is_refused_in_one_line(result, message):
    with pytest.raises(LabError, match=message):
        Given(result).setup()


def test_the_statistics_of_targets_are_those_of_known_values():
    target = X.sum(1, keepdim=True).double()
    target[::4] = NAN
    data = Given((X, target))
    data.setup()
    train = data.splits["train"].target
    assert 0 < len(train) < 8
    torch.testing.assert_close(train.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_images_of_bytes_are_normalised_per_channel(layout):
    images = torch.randint(256, (12, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    given = images if layout == "NCHW" else images.permute(0, 2, 3, 1)
    spec = DataSpec(Task.MULTICLASS, Kind.INDEX, (3, 5, 4), 3)
    data = Given((given.numpy(), np.arange(12) % 3), spec)
    data.setup()
    batch = next(iter(data.val_dataloader()))
    assert batch.inputs.shape == (2, 3, 5, 4)
    assert batch.inputs.abs().max() < 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "clustering"}, "spec.task must be one of regression, binary, multiclass, multilabel"),
        ({"kind": "one-hot"}, "spec.kind must be one of index"),
        ({"kind": Kind.VALUES}, "spec.kind must be index or probabilities for a multiclass task, got values"),
        ({"input_shape": 2}, r"spec.input_shape must be a tuple .* got 2"),
        ({"input_shape": ()}, "spec.input_shape must be a tuple"),
        ({"input_shape": (2, 0)}, "spec.input_shape must be a tuple"),
        ({"targets": 1, "class_names": ()}, "spec.targets must be an integer, 2 or more, for a multiclass task, got 1"),
        ({"targets": 2.0}, "spec.targets must be an integer"),
        ({"class_names": ("a", "b")}, "spec.class_names must be 3 names .*: got 2"),
        ({"class_names": ("a", "b", "a")}, "spec.class_names contains 'a' twice"),
        ({"class_names": "abc"}, "spec.class_names must be a tuple of strings, got 'abc'"),
        ({"class_names": (0, 1, 2)}, "spec.class_names must be a tuple of strings"),
        ({"task": Task.BINARY, "kind": Kind.BINARY}, "spec.targets must be 1 for a binary task, got 3"),
    ],
)
def test_a_wrong_spec_is_refused_by_the_name_of_its_field(change, message):
    spec = DataSpec(**{**vars(CLASSES), **change})
    with pytest.raises(LabError, match=message) as error:
        spec.check()
    assert "\n" not in str(error.value)


def test_a_spec_may_have_lists_and_strings():
    spec = DataSpec("multiclass", "index", [2], 3, ["a", "b", "c"])
    spec.check()
    assert spec == CLASSES


class Loaders(LightningDataModule):
    """A data module as Lightning's documentation writes it."""


class NoSpec(ExperimentDataModule):
    """Forgets `spec`."""

    def load(self):
        return {}


class NoInit(NoSpec):
    """Forgets the constructor of its base class."""

    spec = VALUE

    def __init__(self):
        pass


class OneName(NoSpec):
    """Has one name for two classes."""

    spec = DataSpec(Task.BINARY, Kind.BINARY, (2,), 1, ("yes",))


class OwnLoader(NoSpec):
    """Returns a loader, as Lightning's documentation writes it."""

    spec = VALUE

    def train_dataloader(self):
        return DataLoader([])


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Loaders, "data: Loaders is not a losslab.data.module.ExperimentDataModule: subclass it"),
        (NoSpec, r"data: NoSpec must set spec = DataSpec\("),
        (NoInit, r"data: NoInit.__init__\(\) must call super\(\).__init__\("),
        (OneName, "data: OneName.spec.class_names must be 2 names"),
        (OwnLoader, r"data: OwnLoader must not define train_dataloader\(\): return the split from load\(\)"),
    ],
)
def test_an_incomplete_data_module_is_refused_when_it_is_made(module, message):
    with pytest.raises(LabError, match=message):
        make_data({"_target_": f"{__name__}.{module.__name__}"})


def sentences(spec, target, inputs=X, **others):
    splits = {split: Examples.of(inputs, torch.tensor(target)) for split in ("train", "val", "test")}
    splits |= {split: Examples.of(X, torch.tensor(each)) for split, each in others.items()}
    return list(find_degenerate(splits, spec))


@pytest.mark.parametrize(
    ("spec", "target", "message"),
    [
        (CLASSES, cycle(1), "every train label is b: a constant output is right"),
        (CLASSES, cycle(0, 2), "no train example is of class b"),
        (LABEL, cycle([1.0]), "every train label is 1: a constant output is right"),
        (LABELS, cycle([0.0, 1.0], [1.0, 1.0]), "every train example has the same label for 1"),
        (VALUE, cycle([0.1]), "the target never varies in train: r2"),
        (VALUES, cycle([0.1, 1.0], [0.1, 2.0]), "the target in column 0 never varies in train: r2"),
    ],
)
def test_targets_that_never_vary_are_named_before_training(spec, target, message):
    assert sentences(spec, target)[0].startswith(message)


def test_classes_that_a_split_lacks_are_named():
    lines = sentences(CLASSES, cycle(0, 1, 2), val=cycle(0, 2), test=cycle(1))
    assert [line.partition(":")[0] for line in lines] == [
        "no val example is of class b",
        "no test example is of class a, c",
    ]


def test_inputs_that_never_vary_are_named():
    target = cycle(0, 1, 2)
    constant = torch.stack([X[:, 0], torch.full((12,), 0.1)], dim=1)
    assert sentences(CLASSES, target, constant) == [
        "1 of 2 input columns never vary in train (column 1): they do not tell the examples apart"
    ]
    assert sentences(CLASSES, target, torch.ones(12, 3, 4, 4))[0].startswith("all train inputs are equal")
    assert sentences(CLASSES, target) == []


@pytest.mark.parametrize("value", [nan, inf])
def test_inputs_that_are_not_finite_are_counted(value):
    inputs = X.clone()
    inputs[3, 1] = value
    assert sentences(CLASSES, cycle(0, 1, 2), inputs)[0] == (
        "1 of 12 train inputs contain NaN or infinity: fill them in or leave them out"
    )


def test_weighted_means_tell_splits_from_others():
    target = torch.tensor(cycle(0, 1, 2))
    means = weighted_means(Examples.of(X, target))
    assert means == weighted_means(Examples.of(X.clone(), target.clone()))
    others = [Examples.of(X, target.roll(1)), Examples.of(X.roll(1, 0), target), Examples.of(X.roll(1, 1), target)]
    for other in others:
        assert weighted_means(other) != pytest.approx(means, rel=1e-5)


@pytest.mark.parametrize("value", [0.1, 0.2, 1e-9, 1e9, -3.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_column_is_standardised_to_0(value, dtype):
    inputs = torch.stack([X[:, 0], torch.full((12,), value)], dim=1).to(dtype).repeat(40, 1)
    data = Given((inputs, inputs[:, :1]))
    data.setup()
    assert data.splits["train"].inputs[:, 1].abs().max() < 1e-6 * max(1, abs(value))
    torch.testing.assert_close(data.splits["train"].inputs[:, 0].std(correction=0), torch.tensor(1.0))

"""CIFAR-10N with small random files in its formats."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from losslab.data.batch import DataSpec, Examples
from losslab.data.cifar10 import CIFAR10, CLASSES
from losslab.data.corruption.label_noise import HumanNoise
from losslab.data.corruption.long_tail import LongTail
from losslab.errors import LabError
from losslab.targets import Kind, Task

SPEC = DataSpec(Task.MULTICLASS, Kind.INDEX, (3, 32, 32), 10, CLASSES)
COUNT = 500


@pytest.fixture
def arrays():
    random = np.random.default_rng(0)
    clean = random.integers(0, 10, COUNT)
    names = ("worse_label", "aggre_label", "random_label1", "random_label2", "random_label3")
    return {"clean_label": clean} | {name: random.integers(0, 10, COUNT) for name in names}


@pytest.fixture(params=["npz", "pt"])
def file(request, arrays, tmp_path):
    path = tmp_path / f"CIFAR-10_human.{request.param}"
    if request.param == "npz":
        np.savez(path, **{name: labels.astype(np.uint8) for name, labels in arrays.items()})
    else:
        torch.save(arrays, path)
    return path


def some_of(arrays, rows):
    """Examples of some rows in any order, as after a split; they keep their index."""
    return Examples.of(torch.zeros(COUNT, 1), torch.from_numpy(arrays["clean_label"])).take(rows)


@pytest.mark.parametrize("labels", ["worse", "aggre", "random1", "random2", "random3"])
def test_labels_are_looked_up_by_index(file, arrays, labels):
    rows = torch.tensor([77, 3, 499, 250])
    train = HumanNoise(str(file), labels)(some_of(arrays, rows), SPEC)
    name = labels.replace("random", "random_label") if "random" in labels else f"{labels}_label"
    assert train.target.tolist() == arrays[name][rows.numpy()].tolist()
    assert train.truth.tolist() == arrays["clean_label"][rows.numpy()].tolist()
    assert train.target.dtype == torch.int64


def test_labels_follow_the_examples_after_a_long_tail(file, arrays):
    whole = some_of(arrays, torch.arange(COUNT))
    tail = HumanNoise(str(file))(LongTail(3)(whole, SPEC), SPEC)
    assert tail.size < COUNT
    assert tail.target.tolist() == arrays["worse_label"][tail.index.numpy()].tolist()


def test_a_file_in_another_order_is_refused(file, arrays):
    backwards = some_of(arrays, torch.arange(COUNT))._replace(index=torch.arange(COUNT).flip(0))
    with pytest.raises(LabError, match=r"another order: its clean_label differs from the labels of 4\d\d of 500"):
        HumanNoise(str(file))(backwards, SPEC)


def test_a_file_with_fewer_images_is_refused(file, arrays):
    train = some_of(arrays, torch.arange(COUNT))
    with pytest.raises(LabError, match="labels of 500 images, too few for the image with index 999"):
        HumanNoise(str(file))(train._replace(index=train.index + 500), SPEC)


def test_data_other_than_cifar10_are_refused_before_the_file_is_read():
    digits = DataSpec(Task.MULTICLASS, Kind.INDEX, (3, 8, 8), 10, tuple(map(str, range(10))))
    with pytest.raises(LabError, match="use data=cifar10, or noise=symmetric or pair_flip"):
        HumanNoise("nowhere").check(digits)


def test_unknown_labels_and_a_missing_file_are_refused(arrays):
    with pytest.raises(LabError, match=r"noise.labels must be one of worse, aggre, random1.* got 'best'"):
        HumanNoise("nowhere", labels="best")
    with pytest.raises(LabError, match=r"there is no nowhere.pt: set noise.file \(http"):
        HumanNoise("nowhere.pt")(some_of(arrays, torch.arange(3)), SPEC)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile-was-here",)


class LyingType:
    """A dtype whose pickled state claims that its bytes are object pointers: NumPy would crash on them."""

    def __reduce__(self):
        state = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
        return np.dtype, ("V8", False, True), state


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"clean_label": Hostile(), "worse_label": 1}, "cannot read"),
        ({"clean_label": LyingType(), "worse_label": 1}, "cannot read"),
        ({"clean_label": np.array([[1]]), "worse_label": np.array([1])}, "not one row of integers"),
        ({"clean_label": np.array([0.5]), "worse_label": np.array([1])}, "not one row of integers"),
        ({"clean_label": np.array([1])}, "contains no worse_label"),
        ({"clean_label": np.array([10]), "worse_label": np.array([1])}, "labels from 0 to 9"),
        ({"clean_label": np.array([-1]), "worse_label": np.array([1])}, "labels from 0 to 9"),
    ],
    ids=["hostile", "lying dtype", "table", "fractions", "missing", "no class", "negative"],
)
def test_nothing_but_labels_is_read_from_a_torch_file(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "labels.pt")
    with pytest.raises(LabError, match=message) as error:
        HumanNoise("labels.pt")(Examples.of(torch.zeros(1, 1), torch.tensor([1])), SPEC)
    assert "\n" not in str(error.value)
    assert not Path("hostile-was-here").exists()


@pytest.mark.parametrize("name", ["labels.pt", "labels.npz"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"clean_label": 1})[:-3])
    with pytest.raises(LabError, match=r"cannot read .* as labels of CIFAR-10N") as error:
        HumanNoise(str(tmp_path / name))(Examples.of(torch.zeros(1, 1), torch.tensor([1])), SPEC)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_official_labels_have_their_published_rates(real_cifar):
    files = [real_cifar / "CIFAR-10_human.pt", real_cifar / "cifar10n.npz"]
    found = next((path for path in files if path.is_file()), None)
    if found is None:
        pytest.skip("LOSSLAB_DATA holds no labels of CIFAR-10N")
    data = CIFAR10(real_cifar, verify=False, val_size=1)
    data.setup()
    published = {"aggre": 0.0901, "worse": 0.4021, "random1": 0.1723, "random2": 0.1812, "random3": 0.1764}
    for labels, rate in published.items():
        train = HumanNoise(str(found), labels)(data.splits["train"], data.spec)
        assert (train.target != train.truth).double().mean().item() == pytest.approx(rate, abs=1e-4)

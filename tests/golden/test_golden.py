"""Runs of all losses have their golden bits, whether or not they are resumed."""

import pytest
import torch

from golden import bits, runs
from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(scope="module")
def found(folder):
    return dict(runs.train_all(folder, runs.names()))


def test_every_run_has_its_golden_bits(found):
    golden, exact = bits.read()
    assert found.keys() == golden.keys()
    texts = {name: bits.differences(found[name], golden[name], exact=exact) for name in golden}
    assert {name: differing for name, differing in texts.items() if differing} == {}


@pytest.mark.parametrize("name", runs.names()[::-4])
def test_a_run_resumed_within_an_epoch_has_the_same_bits(found, folder, name):
    expected = found[name] | {"losses": found[name]["losses"][runs.RESUMED_AFTER :]}
    assert len(expected["losses"]) == 2
    assert bits.differences(runs.resume(folder, name), expected, exact=True) == []


def test_a_loss_that_is_off_by_one_bit_is_found(found, tmp_path, monkeypatch):
    total = Loss.total

    def one_bit_more(self, outputs, target):
        sums = total(self, outputs, target)
        above = torch.nextafter(sums.value.detach(), torch.tensor(torch.inf))
        return sums._replace(value=sums.value + (above - sums.value.detach()))

    monkeypatch.setattr(CrossEntropy, "total", one_bit_more)
    whole = found["cross_entropy"]
    off = runs.train(runs.configuration("cross_entropy", tmp_path), tmp_path / "run")
    assert off["weights"] == whole["weights"]
    assert len(bits.differences(off, whole, exact=True)) > 0
    assert bits.differences(off, whole, exact=False) == []


def test_on_another_machine_losses_must_agree_to_the_tolerance():
    focal = bits.read()[0]["focal"]
    off = {"losses": [loss * (1 + 2e-5) for loss in focal["losses"]], "weights": ""}
    assert len(bits.differences(off, focal, exact=False)) == 6
    nan = {"losses": [float("nan")] * 6, "weights": ""}
    assert len(bits.differences(nan, focal, exact=False)) == 6

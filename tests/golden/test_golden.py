"""A run of each loss has the bits that it had when they were committed, whole and resumed."""

import pytest
import torch
from goldens import bits, runs

from losslab.losses.base import Loss
from losslab.losses.cross_entropy import CrossEntropy


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(scope="module")
def found(place):
    return dict(runs.whole(place, runs.names()))


def test_every_run_has_its_golden_bits(found):
    golden, exact = bits.read()
    assert found.keys() == golden.keys()
    said = {name: bits.differences(found[name], golden[name], exact=exact) for name in golden}
    assert {name: differing for name, differing in said.items() if differing} == {}


@pytest.mark.parametrize("name", runs.names()[::-4])
def test_a_run_that_was_resumed_within_an_epoch_has_the_bits_of_the_whole_one(found, place, name):
    expected = found[name] | {"losses": found[name]["losses"][runs.HALFWAY :]}
    assert len(expected["losses"]) == 2
    assert bits.differences(runs.resumed(place, name), expected, exact=True) == []


def test_a_loss_that_is_one_bit_off_is_found(found, tmp_path, monkeypatch):
    total = Loss.total

    def one_bit_more(self, outputs, target):
        sums = total(self, outputs, target)
        above = torch.nextafter(sums.value.detach(), torch.tensor(torch.inf))
        return sums._replace(value=sums.value + (above - sums.value.detach()))

    monkeypatch.setattr(CrossEntropy, "total", one_bit_more)
    whole = found["cross_entropy"]
    off = runs.trained(runs.configuration("cross_entropy", tmp_path), tmp_path / "run")
    assert off["weights"] == whole["weights"]
    assert len(bits.differences(off, whole, exact=True)) > 0
    assert bits.differences(off, whole, exact=False) == []


def test_on_another_machine_losses_must_still_agree_to_the_tolerance():
    focal = bits.read()[0]["focal"]
    off = {"losses": [loss * (1 + 2e-5) for loss in focal["losses"]], "weights": ""}
    assert len(bits.differences(off, focal, exact=False)) == 6
    nan = {"losses": [float("nan")] * 6, "weights": ""}
    assert len(bits.differences(nan, focal, exact=False)) == 6

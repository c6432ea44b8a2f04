import logging

import pytest
from torch import nn

from losslab.errors import LabError
from losslab.training import preflight


def test_batch_norm_needs_examples_on_every_rank():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    with pytest.raises(LabError, match=r"last batch of an epoch has 1 examples.*network\.1"):
        preflight.check_batch_norm(network, 129, 64, 2)
    with pytest.raises(LabError, match="3 examples: too few for the BatchNorm of 4 processes"):
        preflight.check_batch_norm(network, 3, None, 4)
    preflight.check_batch_norm(nn.Linear(3, 4), 129, 64, 2)


def test_batch_norm_on_several_ranks_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        preflight.check_batch_norm(nn.BatchNorm1d(4), 128, 64, 2)
    assert "sync_batchnorm" in caplog.text

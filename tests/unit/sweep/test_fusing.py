"""Which jobs of a sweep train as one."""

import pytest

from losslab.errors import LabError
from losslab.sweep.fusing import parse_fuse


@pytest.mark.parametrize("fuse", [None, "auto", 2, 1024])
def test_a_valid_value_of_fuse_is_returned(fuse):
    assert parse_fuse(fuse) == fuse


@pytest.mark.parametrize("fuse", [0, 1, -1, 2.5, True, "all", "2", [2]])
def test_an_invalid_value_of_fuse_is_refused_in_one_line(fuse):
    with pytest.raises(LabError, match=r"hydra\.launcher\.fuse must be 2 or more, auto, or null: got ") as refused:
        parse_fuse(fuse)
    assert "\n" not in str(refused.value)

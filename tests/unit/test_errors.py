import pytest
import torch

from losslab.errors import LabError, message_of, part_error
from losslab.losses.base import Loss
from losslab.models.linear import mlp
from losslab.training.instantiate import make


@pytest.mark.parametrize(
    ("error", "limit", "expected"),
    [
        (ValueError("two\n  lines"), None, "two lines"),
        (ValueError("a long message"), 6, "a long"),
        (KeyError(), None, "KeyError"),
    ],
)
def test_message_of_an_exception_is_one_line(error, limit, expected):
    assert message_of(error, limit) == expected


def error_of(function, *arguments):
    """Return the exception that a call raises."""
    try:
        function(*arguments)
    except Exception as error:  # noqa: BLE001 -- the test asks for any
        return error
    raise AssertionError("nothing was raised")


def stop():
    raise KeyError("nothing")


@pytest.mark.parametrize("raised", [KeyError("nothing"), ValueError("two\nlines"), AssertionError()])
def test_exception_of_a_users_part_names_its_line(raised):
    class Raises(Loss):
        wants = ()

        def score(self, *_):
            raise raised

    error = error_of(Raises().per_example, torch.zeros(2, 3), torch.zeros(2, 3))
    part = part_error(error)
    assert isinstance(part, LabError)
    assert "test_errors.py:" in str(part)
    assert f", in score: {type(raised).__name__}: {message_of(raised)}" in str(part)


def test_exception_in_losslab_is_no_error_of_a_part():
    assert part_error(error_of(mlp)) is None
    assert part_error(error_of(stop)) is None  # losslab did not call it
    assert part_error(LabError("said already")) is None
    assert part_error(KeyboardInterrupt()) is None


def test_lack_of_memory_is_one_line():
    assert "lower data.batch_size" in str(part_error(torch.OutOfMemoryError("CUDA out of memory.")))


def test_exception_of_a_constructor_names_the_users_line():
    with pytest.raises(LabError, match=r"callbacks\.x: .*test_errors\.py:\d+, in stop: KeyError: 'nothing'"):
        make("callbacks.x", {"_target_": f"{__name__}.stop"})

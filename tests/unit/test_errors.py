import pytest

from losslab.errors import message_of


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

import logging

import pytest


@pytest.fixture
def no_check_fails(caplog):
    """A check that raises is skipped; in these tests that is a failure."""
    caplog.set_level(logging.DEBUG, logger="losslab.doctor.examine")
    yield
    assert not [record for record in caplog.get_records("call") if record.name == "losslab.doctor.examine"]

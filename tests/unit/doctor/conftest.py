import logging

import pytest


@pytest.fixture
def no_check_fails(caplog):
    """Fail if a check raises an exception. `examine` only logs it and continues."""
    caplog.set_level(logging.DEBUG, logger="losslab.doctor.examine")
    yield
    assert not [record for record in caplog.get_records("call") if record.name == "losslab.doctor.examine"]

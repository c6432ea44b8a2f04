"""What a run says at its end."""

import logging

import pytest

from losslab.cli import report


@pytest.mark.parametrize(
    ("data", "loss", "shown"),
    [
        ("linear_synthetic", "mse", True),
        ("linear_synthetic", "gaussian_nll", True),
        ("counts", "mse", True),
        ("counts", "poisson_nll", False),
    ],
)
def test_weights_stand_beside_least_squares_only_where_the_outputs_are_the_values(build, caplog, data, loss, shown):
    experiment = build("model=linear", f"data={data}", f"loss={loss}")
    experiment.data.setup()
    with caplog.at_level(logging.INFO):
        report._log_weights(experiment)
    assert ("least squares" in caplog.text) == shown

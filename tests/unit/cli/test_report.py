"""The output at the end of a run."""

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
def test_weights_are_compared_with_least_squares_only_if_outputs_are_the_predicted_values(
    build, caplog, data, loss, shown
):
    experiment = build("model=linear", f"data={data}", f"loss={loss}")
    experiment.data.setup()
    with caplog.at_level(logging.INFO):
        report._log_weights(experiment)
    assert ("least squares" in caplog.text) == shown

"""Checks for hyperparameter searches. Imports no torch."""

import logging
from typing import Any

from losslab.errors import LabError

# Optuna's messages on stderr would only repeat the live table.
logging.getLogger("optuna").setLevel(logging.WARNING)


def one_loss(config: Any, trial: Any) -> None:  # noqa: ARG001 -- the signature that Optuna's sweeper requires
    """Refuse a search over losses. It would give better losses more trials, so the comparison would be unfair.

    Raises:
        LabError: the search is over several losses.
    """
    if "loss" in trial.params:
        raise LabError(
            "experiment=tune_lr tunes one loss at a time, each with the same number of trials: run it once for each"
        )

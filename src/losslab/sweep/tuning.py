"""Checks for hyperparameter searches. Imports no torch."""

import logging
from typing import Any

from losslab.errors import LabError

# Optuna would repeat the information of the live table on stderr.
logging.getLogger("optuna").setLevel(logging.WARNING)


def one_loss(config: Any, trial: Any) -> None:  # noqa: ARG001 -- the signature that Optuna's sweeper requires
    """Refuse to search over losses: better losses would get more trials, which would make the comparison unfair.

    Raises:
        LabError: the search is over several losses.
    """
    if "loss" in trial.params:
        raise LabError(
            "experiment=tune_lr tunes one loss at a time, each with the same number of trials: run it once for each"
        )

"""Checks of a hyperparameter search. Imports no torch."""

import logging
from typing import Any

from losslab.errors import LabError

# Optuna would repeat on stderr what the live table shows.
logging.getLogger("optuna").setLevel(logging.WARNING)


def one_loss(config: Any, trial: Any) -> None:  # noqa: ARG001 -- the signature that Optuna's sweeper requires
    """Refuse to search over losses: the search would give better ones more trials, which is no fair comparison.

    Raises:
        LabError: the search is over several losses.
    """
    if "loss" in trial.params:
        raise LabError(
            "experiment=tune_lr tunes one loss at a time, each with the same number of trials: run it once for each"
        )

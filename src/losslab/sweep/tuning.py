"""What a hyper-parameter search must not do. Imports no torch."""

import logging
from typing import Any

from losslab.errors import LabError

# Optuna repeats on stderr, in its own colours, what the board shows.
logging.getLogger("optuna").setLevel(logging.WARNING)


def one_loss(config: Any, trial: Any) -> None:  # noqa: ARG001 -- Optuna's sweeper calls it so
    """Refuse to search over losses: the search would give the better ones more trials, so none its fair share.

    Raises:
        LabError: several losses were asked for.
    """
    if "loss" in trial.params:
        raise LabError(
            "experiment=tune_lr tunes one loss at a time, each with the same number of trials: call it for each"
        )

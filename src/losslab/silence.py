"""Lightning's chatter, and what of it a user never hears."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Keep from the user what Lightning says and nobody here can act on: its advertising, and known warnings."""
    talkers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [talker.level for talker in talkers]
    with warnings.catch_warnings():
        for message in _NOISE:
            warnings.filterwarnings("ignore", message=message)
        for talker in talkers:
            talker.setLevel(logging.WARNING)
        try:
            yield
        finally:
            for talker, level in zip(talkers, levels, strict=True):
                talker.setLevel(level)


_NOISE = (
    r".*LeafSpec.*",  # torch deprecates what Lightning calls on every loader
    r".*smaller than the logging interval.*",  # a run of three points has one batch an epoch
    r".*does not have many workers.*",  # the data lie in memory; workers would only copy them
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*overfit.*shuffling.*",  # the loader does it itself
    r".*GPU available but not used.*",  # trainer=cpu says so on purpose
    r".*was called before the ``update`` method.*",  # a process whose shares of all batches were empty
    r".*`srun` command is available.*",  # a cluster's login node
    r".*lr_scheduler.step.*before.*optimizer.step.*",  # GradScaler skipped the first step
)

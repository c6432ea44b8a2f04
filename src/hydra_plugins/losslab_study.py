"""The module in which Hydra finds the sweeper of a study: it takes only classes that are defined in hydra_plugins."""

from losslab.study import sweeper


class StudySweeper(sweeper.StudySweeper):
    """The sweeper of `conf/hydra/sweeper/study.yaml`."""

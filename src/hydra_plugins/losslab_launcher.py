"""Where Hydra looks for launchers. It takes only those that are defined here."""

from losslab.launcher import Launcher


class LosslabLauncher(Launcher):
    """The launcher of `conf/hydra/launcher/losslab.yaml`."""

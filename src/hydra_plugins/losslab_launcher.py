"""Where Hydra looks for launchers. It takes only those that are defined here."""

from losslab.sweep import launcher


class LosslabLauncher(launcher.Launcher):
    """The launcher of `conf/hydra/launcher/losslab.yaml`."""

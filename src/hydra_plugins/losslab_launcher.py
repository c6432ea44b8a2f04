"""The module in which Hydra finds the launcher: it takes only classes that are defined in hydra_plugins."""

from losslab.sweep import launcher


class LosslabLauncher(launcher.Launcher):
    """The launcher of `conf/hydra/launcher/losslab.yaml`."""

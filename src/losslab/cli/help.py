"""The text of `python train.py --help`. Imports neither Hydra nor torch."""

from textwrap import fill

from losslab.io.conf_groups import NAMES, choices

_TEXT = """\
losslab: train a model under any loss, and see what the loss changes.

Usage: python train.py GROUP=CHOICE KEY=VALUE ...      (or `losslab train`, where losslab is installed)

Groups and their choices:

{groups}

Examples:
  python train.py                                               three points, 1000 epochs, a loss curve
  python train.py loss=huber data=linear_synthetic noise=outliers
  python train.py model=cifar_cnn loss=focal loss.gamma=3       CIFAR-10, downloaded on first use
  python train.py model=cifar_cnn data=digits trainer.max_epochs=5 optimizer=adamw optimizer.lr=1e-3
  python train.py -m loss=mse,l1,huber seed=0,1,2               a sweep of nine runs
  python train.py trainer=ddp                                   all GPUs of this machine
  python train.py resume=FOLDER                                 resume an interrupted run, or complete a sweep

  losslab show loss=focal                                       the card of a loss, with its value and gradient
  losslab check model=mlp data=digits loss=focal                examine an experiment without training it

  --cfg job        print the whole configuration; every value can be set
  -m               sweep over comma-separated values
  --hydra-help     further options of Hydra
  Tab completion   eval "$(python train.py -sc install=bash)", also zsh and fish
"""


def help_text() -> str:
    """Return the help text, with the groups in conf/ and their choices.

    Hydra's `--help` would compose the configuration, which takes longer.
    """
    lines = [
        fill(", ".join(choices(group)), 100, initial_indent=f"  {group:<11}", subsequent_indent=" " * 13)
        for group in NAMES
    ]
    return _TEXT.format(groups="\n".join(lines))

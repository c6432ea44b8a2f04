"""What `python train.py --help` prints."""

from textwrap import fill

from losslab.io.conf_groups import NAMES, choices

_TEXT = """\
losslab: train a model under any loss, and see what the loss changes.

Usage: python train.py GROUP=CHOICE KEY=VALUE ...      (losslab-train, where it is installed)

Groups and their choices:

{groups}

Examples:
  python train.py                                               three points, 1000 epochs, a loss curve
  python train.py loss=huber data=linear_synthetic noise=outliers
  python train.py model=cifar_cnn loss=focal loss.gamma=3       CIFAR-10, downloaded on first use
  python train.py model=cifar_cnn data=digits trainer.max_epochs=5 optimizer=adamw optimizer.lr=1e-3
  python train.py -m loss=mse,l1,huber seed=0,1,2               a sweep of nine runs
  python train.py trainer=ddp                                   all GPUs of this machine
  python train.py resume=FOLDER                                 go on with a run or a sweep that was interrupted

  python scripts/show.py loss=focal                             what a loss claims and looks like
  python scripts/check.py model=mlp data=digits loss=focal      look at a set-up without training it

  --cfg job        shows the whole configuration, every value of which can be set
  -m               sweeps over values that are separated by commas
  --hydra-help     what else Hydra can do
  Tab completion   eval "$(python train.py -sc install=bash)", also zsh and fish
"""


def help_text() -> str:
    """The groups as they lie in conf/, between words for people.

    Hydra's own `--help` would compose the configuration and list everything twice, which takes longer with each file.
    """
    lines = [
        fill(", ".join(choices(group)), 100, initial_indent=f"  {group:<11}", subsequent_indent=" " * 13)
        for group in NAMES
    ]
    return _TEXT.format(groups="\n".join(lines))

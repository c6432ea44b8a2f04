"""Train: `python train.py`, `python train.py --help`. Works in a checkout whether or not losslab is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from losslab.cli.main import train

if __name__ == "__main__":
    train()

"""A finished run as a torch.export program: `python scripts/export.py RUN_FOLDER`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from losslab.cli import export

if __name__ == "__main__":
    export()

"""Classify image files with a finished run: `python scripts/predict.py RUN_FOLDER IMAGES...`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from losslab.cli import predict

if __name__ == "__main__":
    predict()

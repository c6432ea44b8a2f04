"""Long campaigns that test the promises of docs/reliability.md (`make soak`). The tests run short versions of them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))  # `python -m soak` does not read tests/conftest.py

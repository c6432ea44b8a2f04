import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from losslab.training import experiment
from losslab.training.config import compose
from losslab.training.experiment import Experiment

# The children of tests look here for what they are to run.
sys.path[:0] = [str(Path(__file__).parent / name) for name in ("", "helpers", "integration")]
# Whoever runs the tests may have them ignore what a terminal's programs heed: nohup, or a shell in its background.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# The tensors of tests are tiny: a second thread would only wait for the first.
torch.set_num_threads(1)
# Nothing a test does may end up in the user's data or outputs.
os.environ.setdefault("MPLBACKEND", "agg")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Experiment]:
    """Build what the command line would run, in a folder of its own."""

    def _build(*overrides: str) -> Experiment:
        folder = tmp_path_factory.mktemp("run")
        return experiment.build(compose(["trainer=cpu", "trainer.enable_progress_bar=false", *overrides], str(folder)))

    return _build


@pytest.fixture(scope="module")
def train(build: Callable[..., Experiment]) -> Callable[..., tuple[Experiment, dict[str, float]]]:
    """Build and run it."""

    def _train(*overrides: str) -> tuple[Experiment, dict[str, float]]:
        built = build(*overrides)
        return built, experiment.run(built)

    return _train


@pytest.fixture
def real_cifar() -> Path:
    """The folder of the real CIFAR-10, where LOSSLAB_DATA names one."""
    folder = Path(os.environ.get("LOSSLAB_DATA", "/nowhere"))
    if not (folder / "cifar-10-batches-py").is_dir():
        pytest.skip("LOSSLAB_DATA names no folder with the real CIFAR-10")
    return folder

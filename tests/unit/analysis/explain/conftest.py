import pytest

from losslab.training import experiment
from losslab.training.config import compose


@pytest.fixture(scope="session")
def digits():
    """The overrides of a short run of a network on digits."""
    return (
        "model=mlp", "data=digits", "data.size=8", "logger=none", "test=false", "examine=false", "trainer.max_epochs=2",
    )  # fmt: skip


@pytest.fixture(scope="session")
def folders(tmp_path_factory, digits):
    """The run folders of two seeds of a network on digits."""

    def run(seed):
        options = ("trainer=cpu", "trainer.enable_progress_bar=false", *digits, "loss=cross_entropy", f"seed={seed}")
        built = experiment.build(compose(options, str(tmp_path_factory.mktemp("run"))))
        experiment.run(built)
        return built.folder

    return [run(seed) for seed in (0, 1)]

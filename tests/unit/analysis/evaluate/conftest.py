import csv
import json

import pytest

from losslab.analysis.evaluate import evaluation, report
from losslab.training.reopen import EvaluationRequest

DIGITS = ("model=mlp", "data=digits", "data.size=8", "loss=cross_entropy", "trainer.max_epochs=3", "logger=none")
RUNS = {
    "digits": DIGITS,
    "overconfident": (*DIGITS, "data.size=2", "optimizer.lr=0.01", "trainer.max_epochs=20"),
    "imbalanced": (*DIGITS, "imbalance=long_tail", "imbalance.ratio=20"),
    "exact": (*DIGITS, "trainer.precision=64-true", "loss=sce"),
    "cancer": ("model=mlp", "data=breast_cancer", "loss=bce", "trainer.max_epochs=5", "logger=none"),
    "labels": (
        "model=mlp",
        "data=line",
        "data._target_=labelled.ThreeLabels",
        "loss=bce",
        "logger=none",
        "trust=[labelled]",
    ),
    "noisy": (
        "model=mlp",
        "data=line",
        "data._target_=labelled.NoisyImages",
        "loss=cross_entropy",
        "logger=none",
        "trust=[labelled]",
    ),
    "dice": (*DIGITS[:3], "loss=custom", "loss._target_=batch_losses.Dice", "data.eval_batch_size=100", "logger=none"),
    "warming": (*DIGITS[:3], "loss=custom", "loss._target_=batch_losses.Warming", "logger=none"),
    "values": ("model=mlp", "data=diabetes", "loss=gaussian_nll", "trainer.max_epochs=5", "logger=none"),
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """The folders of small finished runs, each trained on first use."""
    from losslab.training import experiment
    from losslab.training.config import compose

    made = {}

    def run(name):
        if name not in made:
            path = tmp_path_factory.mktemp(name) / "run"
            options = ["trainer=cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=3", *RUNS[name]]
            experiment.run(experiment.build(compose(options, str(path))))
            made[name] = path
        return made[name]

    return run


@pytest.fixture(scope="session")
def evaluated(runs):
    """The folder that evaluate wrote for a run, on its test split by default."""
    made = {}

    def written(name, split="test"):
        if (name, split) not in made:
            request = EvaluationRequest(runs(name), split, trusted=("labelled", "batch_losses"))
            folder = runs(name) / "evaluation" / report.evaluation_name(request, None)
            report.write_evaluation(evaluation.evaluate(request), folder)
            made[name, split] = folder
        return made[name, split]

    return written


@pytest.fixture(scope="session")
def rows():
    """A CSV file as a list of rows by column."""

    def read(path):
        with path.open(newline="") as file:
            return list(csv.DictReader(file))

    return read


@pytest.fixture(scope="session")
def content():
    return lambda path: json.loads(path.read_text())

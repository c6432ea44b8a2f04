"""Whether lower values of a metric are better is told by the words in its name, or must be said."""

import pytest

from losslab.errors import LabError
from losslab.io.metric_names import direction


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("val/loss", "min"), ("train/loss/focal", "min"), ("test/mse", "min"), ("train/mse_given", "min"),
        ("val/ece", "min"), ("val/nll", "min"), ("test/brier", "min"), ("val/accuracy", "max"), ("val/r2", "max"),
        ("val/f1", "max"), ("train/accuracy_given", "max"), ("val_auroc", "max"), ("MulticlassAUROC", "max"),
        ("val/BinaryF1Score", "max"), ("rmse", "min"), ("val/top5_error", "min"), ("test/word-error-rate", "min"),
        ("val/IoU", "max"), ("val/mIoU", "max"),
    ],
)  # fmt: skip
def test_words_in_the_name_tell_which_values_are_better(metric, expected):
    assert direction(metric) == expected


@pytest.mark.parametrize("metric", ["val/mine", "closs", "val/score", ""])
def test_other_names_are_refused_with_the_advice(metric):
    with pytest.raises(LabError, match=r"higher or lower values of .* are better is not known: say it"):
        direction(metric, "say it")

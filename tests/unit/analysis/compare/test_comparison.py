"""Arguments of `compare` in Python, and the errors for wrong arguments."""

import numpy as np
import pytest
from folders import accuracies, run

from losslab.analysis.compare import compare
from losslab.errors import LabError


@pytest.fixture
def runs(tmp_path):
    return accuracies(tmp_path / "runs", a={0: 0.1, 1: 0.2}, b={0: 0.5, 1: 0.6})


def test_one_folder_or_metric_needs_no_list(runs):
    for folders in (runs, str(runs), [runs], (str(one) for one in [runs])):
        assert len(compare(folders).groups) == 2
    assert compare(runs, metrics="test/accuracy").metrics == ("test/accuracy",)


@pytest.mark.parametrize("folders", [None, 5, [], [5], ["runs", None], b"runs"])
def test_folders_must_be_paths(folders):
    with pytest.raises(LabError, match="folders must be one or more paths of runs or of folders above them, got "):
        compare(folders)


@pytest.mark.parametrize("argument", ["metrics", "baseline"])
@pytest.mark.parametrize("value", [5, [5], ["a", None]])
def test_metrics_and_baseline_must_be_strings(runs, argument, value):
    with pytest.raises(LabError, match=f"{argument} must be one or more strings, got "):
        compare(runs, **{argument: value})


@pytest.mark.parametrize("scale", ["nope", None, 5, []])
def test_an_unknown_scale_is_refused(runs, scale):
    with pytest.raises(LabError, match=r"there is no scale .*; there are auto, difference, ratio"):
        compare(runs, scale=scale)


@pytest.mark.parametrize("reach", ["val/accuracy=0.6", ("val/accuracy",), (None, 0.5), 5, ("a", 1, 2), b"ab"])
def test_reach_must_be_a_curve_and_a_value(runs, reach):
    with pytest.raises(LabError, match=r"reach must be a curve and a value, such as \("):
        compare(runs, reach=reach)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400, "0.5", True, [1]])
def test_the_value_to_reach_must_be_a_finite_number(runs, value):
    with pytest.raises(LabError, match="the value to reach in val/accuracy must be a finite number"):
        compare(runs, reach=("val/accuracy", value))


def test_the_value_to_reach_may_be_a_numpy_number(runs):
    assert compare(runs, reach=["val/accuracy", np.float32(0.5)]).time_to_reach.value == 0.5


@pytest.mark.parametrize("metric", ["nope", "", 5, []])
def test_a_table_or_figure_of_a_metric_that_is_not_compared_is_refused(runs, metric):
    comparison = compare(runs)
    for ask in (comparison.table_markdown, comparison.figure):
        with pytest.raises(LabError, match="is not compared: name one of test/accuracy, or pass it to `compare`"):
            ask(metric)


@pytest.mark.parametrize("metrics", [False, {"test/accuracy": None}])
def test_without_a_finite_metric_there_is_no_table_and_no_figure(tmp_path, metrics):
    run(tmp_path / "a", metrics=metrics)
    comparison = compare(tmp_path)
    for ask in (comparison.table_markdown, comparison.figure):
        for metric in (None, "test/accuracy"):
            with pytest.raises(LabError, match="no finished run has a finite metric: there is nothing to compare"):
                ask(metric)


def logged(folder, **values):
    for loss, value in values.items():
        for seed in (0, 1):
            path = run(folder / f"{loss}{seed}", loss, seed, metrics={"test/accuracy": 0.5, "mine": value + seed})
            head, *rows = (path / "history.csv").read_text().splitlines()
            lines = [f'{head},mine,"a, b"', *(f"{row},{value},1" for row in rows)]
            (path / "history.csv").write_text("\n".join(lines))
    return folder


def test_metric_that_a_callback_logged_is_compared_in_the_direction_that_the_user_says(tmp_path):
    folder = logged(tmp_path, a=1.0, b=2.0)
    for word, best in (("min", "a"), ("max", "b")):
        comparison = compare(folder, metrics=f"mine={word}")
        assert comparison.metrics == ("mine",)
        assert comparison.ordered[0].label == f"loss={best}"
        assert ("lower" if word == "min" else "higher") in comparison.figure().axes[0].get_xlabel()
        assert "mine" in comparison.histories.names
        comparison.curves_figure()
    assert compare(folder, metrics="mine=min", reach=("mine", 1.5)).time_to_reach.times[0].runs[0].epoch == 1


def test_metric_whose_name_does_not_tell_needs_a_direction(tmp_path):
    folder = logged(tmp_path, mse=1.0, huber=2.0)
    for arguments in ({"metrics": "mine"}, {"reach": ("mine", 1.5)}):
        with pytest.raises(LabError, match="of mine are better is not known: type --metric mine=min or mine=max"):
            compare(folder, **arguments)


def test_metric_of_a_callback_may_be_in_percent(tmp_path):
    run(tmp_path / "a", metrics={"test/accuracy": 0.5, "my/accuracy": 85.0, "val/top5_accuracy": 99.0})
    comparison = compare(tmp_path, metrics=["my/accuracy", "val/top5_accuracy"])
    assert comparison.metrics == ("my/accuracy", "val/top5_accuracy")

"""Trained models under losses they were not trained with."""

import json

import pytest

from losslab import experiment
from losslab.cli import compose
from losslab.comparison import compare
from losslab.matrix import measure, page

SMALL = ("model=mlp", "data=digits", "data.size=8", "trainer=cpu", "trainer.max_epochs=1", "logger=none")
QUIET = ("~callbacks.progress_bar", "~callbacks.dashboard", "~callbacks.history", "data.batch_size=256")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    for loss in ("cross_entropy", "bce", "focal"):
        folder = place / loss
        experiment.run(experiment.build(compose([*SMALL, *QUIET, f"loss={loss}"], str(folder))))
    return place


@pytest.fixture(scope="module")
def matrix(trained):
    return measure(compare([trained]).ordered)


def metrics(place, loss):
    return json.loads((place / loss / "metrics.json").read_text())


def test_a_model_under_its_own_loss_has_the_loss_of_its_run(trained, matrix):
    for one in matrix.groups:
        name = one.label.removeprefix("loss=")
        cell = matrix.cells[one, name]
        assert cell.how == "own"
        assert cell.value == pytest.approx(metrics(trained, name)["test/loss"], rel=1e-5)


def test_under_cross_entropy_every_model_has_the_nll_of_its_run(trained, matrix):
    how = {}
    for one in matrix.groups:
        name = one.label.removeprefix("loss=")
        cell = matrix.cells[one, "cross_entropy"]
        how[name] = cell.how
        assert cell.value == pytest.approx(metrics(trained, name)["test/nll"], rel=1e-4)
    assert how == {"cross_entropy": "own", "focal": "as they are", "bce": "translated"}


@pytest.mark.slow
def test_all_losses_of_the_catalogue_that_fit_are_asked(trained):
    (one,) = compare([trained / "cross_entropy"]).groups
    found = measure([one], everything=True)
    assert found.cells[one, "brier"].value == pytest.approx(metrics(trained, "cross_entropy")["test/brier"], rel=1e-4)
    assert {"bce", "gce", "ldam", "mse", "logit_adjusted"} <= set(found.losses)
    assert not {"gaussian_nll", "poisson_nll", "distillation"} & set(found.losses)


def test_a_run_without_weights_leaves_a_reason(trained, tmp_path):
    folder = tmp_path / "bare"
    experiment.run(experiment.build(compose([*SMALL, "data.batch_size=256", "callbacks=none"], str(folder))))
    comparison = compare([folder, trained / "focal"])
    found = measure(comparison.groups)
    assert any("no checkpoint" in reason for reason in found.reasons)
    assert "Not measured:" in page.section(found)


def test_the_page_says_what_is_translated_and_whose_loss_it_is(matrix, tmp_path):
    text = page.section(matrix)
    assert text.count("**") == 2 * len(matrix.groups)
    page.write(matrix, tmp_path)
    lines = (tmp_path / "matrix.csv").read_text().splitlines()
    assert lines[0] == "trained_with,measured_by,value,how"
    assert len(lines) == 1 + 3 * 3
    assert (tmp_path / "matrix.png").stat().st_size


def test_colours_compare_models_under_one_loss_only(matrix):
    figure = page.draw(matrix)
    shades = figure.axes[0].images[0].get_array()
    assert (shades.min(axis=0) == 0).all()
    assert (shades.max(axis=0) == 1).all()
    assert "lowest for the model that was trained with it" in figure.get_suptitle()

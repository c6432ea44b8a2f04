"""Trained models measured under every loss."""

import json

import pytest

from losslab.analysis.compare import compare
from losslab.analysis.loss_matrix import Cell, Matrix, measure, report
from losslab.cli import compare as command
from losslab.training import experiment
from losslab.training.config import compose

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
def test_all_losses_of_the_catalog_that_fit_are_measured(trained):
    (one,) = compare([trained / "cross_entropy"]).groups
    found = measure([one], all_losses=True)
    assert found.cells[one, "brier"].value == pytest.approx(metrics(trained, "cross_entropy")["test/brier"], rel=1e-4)
    assert {"bce", "gce", "ldam", "mse", "logit_adjusted"} <= set(found.losses)
    assert not {"gaussian_nll", "poisson_nll", "distillation"} & set(found.losses)


def test_a_run_without_weights_is_listed_with_its_reason(trained, tmp_path):
    folder = tmp_path / "bare"
    experiment.run(experiment.build(compose([*SMALL, "data.batch_size=256", "callbacks=none"], str(folder))))
    comparison = compare([folder, trained / "focal"])
    found = measure(comparison.groups)
    assert any("no checkpoint" in reason for reason in found.reasons)
    assert "Not measured:" in report.section(found)


def test_the_section_marks_own_losses_and_the_csv_has_every_cell(matrix, tmp_path):
    text = report.section(matrix)
    assert text.count("**") == 2 * len(matrix.groups)
    report.write(matrix, tmp_path)
    lines = (tmp_path / "matrix.csv").read_text().splitlines()
    assert lines[0] == "trained_with,measured_by,value,how"
    assert len(lines) == 1 + 3 * 3
    assert (tmp_path / "matrix.png").stat().st_size


def of(groups, losses, how=("own", "as they are")):
    """A matrix of invented numbers."""
    cells = {
        (one, loss): Cell(1.5 + row + column, how[row != column])
        for row, one in enumerate(groups)
        for column, loss in enumerate(losses)
    }
    return Matrix(tuple(groups), tuple(losses), cells)


def test_many_losses_are_rows_of_the_text_table_and_figure(matrix):
    names = [one.label.removeprefix("loss=") for one in matrix.groups]
    losses = [*names, *(f"other{number}" for number in range(9))]
    many = of(matrix.groups, losses)
    assert "Each column is a kind of model, each row the mean loss" in report.section(many)
    assert "Numbers of one row can be compared; those of one column cannot" in report.section(many)
    head, *rows = report.table(many)
    assert head == ("measured by", *names)
    assert [row[0] for row in rows] == losses
    assert rows[0] == (losses[0], "**1.5**", "2.5", "3.5")
    assert "within a row" in report.legend(many, "[{}]")
    axes = report.draw(many).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == losses
    assert [label.get_text() for label in axes.get_xticklabels()] == names


def test_few_losses_are_columns(matrix):
    assert "Each row is a kind of model, each column the mean loss" in report.section(matrix)
    assert report.table(matrix)[0] == ("trained with", *matrix.losses)
    assert "within a column" in report.legend(matrix, "[{}]")


def test_stars_are_explained_only_if_there_is_one(matrix):
    plain = of(matrix.groups, matrix.losses)
    assert "*: the outputs were translated" in report.legend(matrix, "[{}]")
    assert "marked *" in report.section(matrix)
    assert "*: translated" in report.draw(matrix).axes[0].get_xlabel()
    assert "translated" not in report.legend(plain, "[{}]")
    assert "marked *" not in report.section(plain)
    assert report.draw(plain).axes[0].get_xlabel() == "bold: its own loss"


def test_the_terminal_shows_no_markdown_and_the_matrix_before_the_notes(trained, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(command, "leave", lambda _: None)
    caplog.set_level("INFO")
    command.compare([str(trained), "--matrix", "--output", str(tmp_path / "out")])
    assert "**" not in caplog.text
    assert "[x]: the loss it was trained with" in caplog.text
    assert caplog.text.index("measured by") < caplog.text.index("Each group has one seed")


def test_colours_compare_models_under_one_loss_only(matrix):
    figure = report.draw(matrix)
    shades = figure.axes[0].images[0].get_array()
    assert (shades.min(axis=0) == 0).all()
    assert (shades.max(axis=0) == 1).all()
    assert "lowest for the model that was trained with it" in figure.get_suptitle()

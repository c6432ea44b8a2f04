"""The loss matrix: trained models measured by every loss, and outputs translated from one loss to another."""

import json
from functools import cache

import pytest
import torch

from losslab.analysis import loss_matrix
from losslab.analysis.compare import compare
from losslab.analysis.loss_matrix import Cell, Matrix, measure, translate
from losslab.cli import compare as command
from losslab.losses import BCE, MSE, Brier, CrossEntropy, GaussianNLL, PoissonNLL, catalog
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
    assert "Not measured:" in loss_matrix.section(found)


def test_the_section_marks_own_losses_and_the_csv_has_every_cell(matrix, tmp_path):
    text = loss_matrix.section(matrix)
    assert text.count("**") == 2 * len(matrix.groups)
    loss_matrix.write(matrix, tmp_path)
    lines = (tmp_path / "matrix.csv").read_text().splitlines()
    assert lines[0] == "trained_with,measured_by,value,how"
    assert len(lines) == 1 + 3 * 3
    assert (tmp_path / "matrix.png").stat().st_size


def of(groups, losses, how=("own", "as they are")):
    """Make a matrix of invented numbers."""
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
    assert "Each column is a group of models. Each row is one loss" in loss_matrix.section(many)
    assert "Compare values within a row, not within a column" in loss_matrix.section(many)
    head, *rows = loss_matrix.table(many)
    assert head == ("measured by", *names)
    assert [row[0] for row in rows] == losses
    assert rows[0] == (losses[0], "**1.5**", "2.5", "3.5")
    assert "within a row" in loss_matrix.legend(many, "[{}]")
    axes = loss_matrix.draw(many).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == losses
    assert [label.get_text() for label in axes.get_xticklabels()] == names


def test_few_losses_are_columns(matrix):
    assert "Each row is a group of models. Each column is one loss" in loss_matrix.section(matrix)
    assert loss_matrix.table(matrix)[0] == ("trained with", *matrix.losses)
    assert "within a column" in loss_matrix.legend(matrix, "[{}]")


def test_stars_are_explained_only_if_there_is_one(matrix):
    plain = of(matrix.groups, matrix.losses)
    assert "*: the outputs were translated" in loss_matrix.legend(matrix, "[{}]")
    assert "cells with *" in loss_matrix.section(matrix)
    assert "*: translated" in loss_matrix.draw(matrix).axes[0].get_xlabel()
    assert "translated" not in loss_matrix.legend(plain, "[{}]")
    assert "cells with *" not in loss_matrix.section(plain)
    assert loss_matrix.draw(plain).axes[0].get_xlabel() == "bold: the loss that the models were trained with"


def test_the_terminal_shows_no_markdown_and_the_matrix_before_the_notes(trained, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("losslab.cli.process.exit_now", lambda _: None)
    caplog.set_level("INFO")
    command.compare([str(trained), "--matrix", "--output", str(tmp_path / "out")])
    assert "**" not in caplog.text
    assert "[x]: the loss that the models were trained with" in caplog.text
    assert caplog.text.index("measured by") < caplog.text.index("Each group has one seed")


def test_colours_compare_models_under_one_loss_only(matrix):
    figure = loss_matrix.draw(matrix)
    shades = figure.axes[0].images[0].get_array()
    assert (shades.min(axis=0) == 0).all()
    assert (shades.max(axis=0) == 1).all()
    assert "models that were trained with the loss have the lowest value" in figure.get_suptitle()


def test_a_loss_that_trained_several_groups_is_counted_once_in_the_title(matrix):
    first, second, third = matrix.groups
    values = {(first, "mse"): 1.0, (second, "mse"): 2.0, (third, "mse"): 3.0, (third, "l1"): 1.0}
    cells = {key: Cell(value, "own") for key, value in values.items()}
    cells |= {(group, "l1"): Cell(0.5, "as they are") for group in (first, second)}
    title = loss_matrix.draw(Matrix(matrix.groups, ("mse", "l1"), cells)).get_suptitle()
    assert title.startswith("For 1 of 2 losses, ")


named = cache(catalog.make)


def scores(*shape):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def probabilities(outputs, loss):
    found = loss.to_probabilities(outputs)
    return found / found.sum(1, keepdim=True)


def test_outputs_stay_as_they_are_if_both_losses_have_the_same_predictions():
    outputs = scores(20, 4)
    found, how = translate(outputs, CrossEntropy(), Brier(), values=False, exclusive=True)
    assert how == "as they are"
    assert torch.equal(found, outputs.double())


@pytest.mark.parametrize("training", ["cross_entropy", "bce", "mse", "squared_hinge"])
@pytest.mark.parametrize("measuring", ["cross_entropy", "bce", "mse", "squared_hinge", "ldam", "rescaled_mse"])
def test_translated_outputs_have_the_same_probabilities(training, measuring):
    training, measuring = named(training), named(measuring)
    outputs = scores(20, 4)
    found, how = translate(outputs, training, measuring, values=False, exclusive=True)
    assert how
    expected = probabilities(outputs.double(), training)
    torch.testing.assert_close(probabilities(found, measuring), expected, rtol=1e-3, atol=1e-5)


def test_probabilities_of_labels_need_not_sum_to_1():
    outputs = scores(20, 3)
    found, how = translate(outputs, BCE(), MSE(), values=False, exclusive=False)
    assert how == "translated"
    torch.testing.assert_close(found, outputs.double().sigmoid(), rtol=1e-3, atol=1e-5)


def test_there_is_no_translation_if_no_outputs_have_the_same_predictions():
    spread = torch.tensor([[50.0, 0.0, 0.0]])  # surer than unit vectors at this temperature can be
    found = translate(
        spread, CrossEntropy(), catalog.make("logit_norm", "loss.temperature=1.0"), values=False, exclusive=True
    )
    assert found[1] == ""


def test_values_are_translated_between_losses_with_linear_and_exponential_predictions():
    outputs = scores(20, 1)
    _, how = translate(outputs, MSE(), named("huber"), values=True, exclusive=False)
    assert how == "as they are"
    found, how = translate(outputs, PoissonNLL(), MSE(), values=True, exclusive=False)
    assert how == "translated"
    torch.testing.assert_close(found, outputs.double().exp())
    found, how = translate(outputs.exp(), MSE(), PoissonNLL(), values=True, exclusive=False)
    assert how == "translated"
    torch.testing.assert_close(found, outputs.double(), atol=1e-6, rtol=1e-6)


def test_mean_and_variance_are_translated_to_a_mean_but_not_the_reverse():
    assert translate(scores(9, 1), MSE(), GaussianNLL(), values=True, exclusive=False)[1] == ""
    outputs = scores(9, 2)
    found, how = translate(outputs, GaussianNLL(), MSE(), values=True, exclusive=False)
    assert how == "translated"
    torch.testing.assert_close(found, GaussianNLL().to_predictions(outputs.double()))


def test_values_below_0_are_not_translated_to_a_loss_with_exponential_predictions():
    assert translate(scores(9, 1), MSE(), PoissonNLL(), values=True, exclusive=False)[1] == ""


@pytest.fixture(scope="module")
def of_dice(trained):
    folder = trained.parent / f"{trained.name}-dice"
    dice = ("loss=custom", "loss._target_=batch_losses.Dice", "data.eval_batch_size=100")
    experiment.run(experiment.build(compose([*SMALL, *QUIET, *dice], str(folder))))
    return folder


def test_a_loss_of_the_whole_batch_measures_and_is_measured(trained, of_dice):
    found = measure(compare([of_dice, trained / "focal"]).ordered, trusted=("batch_losses",))
    assert len(found.losses) == 2
    hows = sorted(cell.how for cell in found.cells.values())
    assert hows == ["as they are", "as they are", "own", "own"]
    (dice,) = (cell for (group, loss), cell in found.cells.items() if "Dice" in group.label and "focal" not in loss)
    assert dice.value == json.loads((of_dice / "metrics.json").read_text())["test/loss"]


def test_a_loss_that_trained_a_group_stays_in_the_table_and_the_terminal_says_why_it_is_empty(
    trained, of_dice, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("losslab.cli.process.exit_now", lambda _: None)
    caplog.set_level("INFO")
    for checkpoint in (of_dice / "checkpoints").iterdir():
        checkpoint.unlink()
    command.compare(
        [str(of_dice), str(trained / "focal"), "--matrix", "--output", str(tmp_path / "out"), "--trust", "batch_losses"]
    )
    table = caplog.text.partition("trained with ")[2]
    assert "Dice" in table.splitlines()[0]
    assert "- not measured: " in caplog.text
    assert "no checkpoint" in caplog.text

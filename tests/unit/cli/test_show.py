"""Cards in words and figures, and the page that holds them all."""

from pathlib import Path

import pytest
from PIL import Image

from losslab.analysis.loss_cards import card, report
from losslab.analysis.loss_cards.curves import curves
from losslab.cli.show import show as show_command
from losslab.losses import ClassLoss, catalog

DOCS = Path(__file__).resolve().parents[3] / "docs"


def show(capsys, tmp_path, monkeypatch, *arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("losslab.cli.show.leave", lambda _: None)
    monkeypatch.setattr("losslab.cli.process.leave", pytest.fail)
    show_command(arguments)
    return capsys.readouterr().out


def test_show_prints_the_card_at_the_given_hyperparameter_and_draws_its_figure(capsys, tmp_path, monkeypatch):
    said = show(capsys, tmp_path, monkeypatch, "loss=focal", "loss.gamma=3")
    assert "-(1 - p_y)^γ log p_y" in said
    assert "gamma                             3;" in said
    assert f"{0.9**3 * 2.302585:.3f}" in said
    with Image.open(tmp_path / "outputs/figures/focal-gamma=3.png") as image:
        assert image.size[0] > 800


def test_a_loss_without_a_card_is_searched():
    class Mine(ClassLoss):
        def classwise(self, outputs):
            return 1 - outputs.softmax(1)

    told = card.facts(Mine())
    assert told["symmetric"] == "yes (found by search)"
    assert told["convex"] == "no (found by search)"
    assert told["at uniform logits"] == "0.9000 for K = 10 (found by search)"


def test_the_first_curve_is_the_loss_as_configured_and_the_others_are_those_worth_comparing():
    shown = curves("huber", catalog.config("huber", "loss.delta=2"))
    assert [curve.label for curve in shown.curves] == ["delta = 2", "delta = 0.3", "delta = 1", "delta = 3"]
    assert shown.x[0] == -5
    assert shown.curves[0].value[0] == pytest.approx(2 * (5 - 1))
    assert shown.curves[0].gradient[0] == pytest.approx(-2)
    assert shown.reference.gradient[0] == pytest.approx(-10)


@pytest.mark.parametrize("name", catalog.names())
def test_every_loss_has_curves_that_are_numbers(name):
    shown = curves(name, catalog.config(name))
    assert all(abs(number) < 1e6 for curve in shown.curves for number in (*curve.value, *curve.gradient[:29]))


def test_numbers_that_differ_by_more_than_a_thousandth_are_stale():
    table = report.table(curves("mse", catalog.config("mse")))
    start, comma, last = table.strip().rpartition(",")
    assert report._close(table, f"{start}{comma}{float(last) * 1.0005}")
    assert not report._close(table, f"{start}{comma}{float(last) * 1.01}")
    assert not report._close(table, table.replace("mse", "mae"))


@pytest.mark.slow
def test_the_page_of_all_losses_is_not_stale():
    assert report.stale(DOCS) == [], "run losslab show --all"


def test_the_page_has_every_figure():
    assert {path.stem for path in (DOCS / "losses").glob("*.png")} == set(catalog.names())
    assert {path.stem for path in (DOCS / "losses").glob("*.csv")} == set(catalog.names())


def test_a_mistyped_name_is_answered_with_the_one_that_was_meant(capsys, monkeypatch):
    monkeypatch.setattr("losslab.cli.process.leave", lambda _: None)
    monkeypatch.setattr("losslab.cli.show.leave", lambda _: None)
    show_command(["loss=focl"])
    assert capsys.readouterr().err == "there is no loss=focl: did you mean focal\n"


def test_a_loss_that_is_its_own_reference_is_drawn_once():
    for name, labels in (("mse", ["mse"]), ("l1", ["mse", "l1"])):
        legend = report.draw(name, curves(name, catalog.config(name))).axes[0].get_legend()
        assert [text.get_text() for text in legend.get_texts()] == labels

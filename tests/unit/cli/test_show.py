"""The cards of losses as text and figures, and the page with all of them."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from losslab.analysis.loss_cards import card_text, report
from losslab.analysis.loss_cards.curves import curves
from losslab.cli.show import show as show_command
from losslab.losses import ClassLoss, catalog
from losslab.targets import Kind
from losslab.training.instantiate import make_loss_without_data

DOCS = Path(__file__).resolve().parents[3] / "docs"


def show(capsys, tmp_path, monkeypatch, *arguments):
    monkeypatch.chdir(tmp_path)
    codes = []
    monkeypatch.setattr("losslab.cli.process.exit_now", codes.append)
    show_command(arguments)
    assert codes == [0]
    return capsys.readouterr().out


def test_show_prints_the_card_at_the_given_hyperparameter_and_draws_its_figure(capsys, tmp_path, monkeypatch):
    output = show(capsys, tmp_path, monkeypatch, "loss=focal", "loss.gamma=3")
    assert "-(1 - p_y)^γ log p_y" in output
    assert "gamma                             3;" in output
    assert f"{0.9**3 * 2.302585:.3f}" in output
    with Image.open(tmp_path / "outputs/figures/focal-gamma=3.png") as image:
        assert image.size[0] > 800


def test_facts_of_a_loss_without_a_card_are_found_by_search():
    class Mine(ClassLoss):
        def classwise(self, outputs):
            return 1 - outputs.softmax(1)

    facts = card_text.facts(Mine())
    assert facts["symmetric"] == "yes (found by search)"
    assert facts["convex"] == "no (found by search)"
    assert facts["at uniform logits"] == "0.9000 for K = 10 (found by search)"


def test_the_first_curve_is_the_configured_loss_and_the_others_have_typical_hyperparameters():
    shown = curves("huber", catalog.config("huber", "loss.delta=2"))
    assert [curve.label for curve in shown.curves] == ["delta = 2", "delta = 0.3", "delta = 1", "delta = 3"]
    assert shown.x[0] == -5
    assert shown.curves[0].value[0] == pytest.approx(2 * (5 - 1))
    assert shown.curves[0].gradient[0] == pytest.approx(-2)
    assert shown.reference.gradient[0] == pytest.approx(-10)


@pytest.mark.parametrize("name", catalog.names())
def test_the_curves_of_every_loss_are_finite(name):
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


def test_the_error_for_a_mistyped_loss_suggests_the_closest_name(capsys, monkeypatch):
    monkeypatch.setattr("losslab.cli.process.exit_now", sys.exit)
    with pytest.raises(SystemExit, match="1"):
        show_command(["loss=focl"])
    assert capsys.readouterr().err == "there is no loss=focl: did you mean focal\n"


def test_the_reference_loss_is_drawn_once_in_its_own_figure():
    for name, labels in (("mse", ["mse"]), ("l1", ["mse", "l1"])):
        legend = report.draw(name, curves(name, catalog.config(name))).axes[0].get_legend()
        assert [text.get_text() for text in legend.get_texts()] == labels


def test_show_prints_the_card_of_a_loss_of_the_whole_batch_without_a_figure(capsys, tmp_path, monkeypatch):
    output = show(capsys, tmp_path, monkeypatch, "loss=custom", "loss._target_=batch_losses.Dice")
    assert "of the whole batch only" in output
    assert "figure: none" in output


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("torch.nn.HuberLoss", Kind.VALUES),
        ("torch.nn.PoissonNLLLoss", Kind.VALUES),
        ("torch.nn.BCEWithLogitsLoss", Kind.BINARY),
        ("torch.nn.BCELoss", Kind.BINARY),
        ("torch.nn.CrossEntropyLoss", Kind.INDEX),
        ("torch.nn.KLDivLoss", Kind.PROBABILITIES),
        ("batch_losses.Dice", Kind.INDEX),
    ],
)
def test_loss_without_data_gets_the_targets_that_it_takes_as_they_are(target, kind, caplog):
    loss = make_loss_without_data({"_target_": target}, 10)
    assert loss.wants == (kind,)
    assert not caplog.text

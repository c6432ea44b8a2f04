"""Figures of training dynamics: their axes, titles and findings."""

from dataclasses import replace

import numpy as np
import pytest

from losslab.analysis.dynamics.figures import distributions, draw_all, over_epochs
from losslab.analysis.dynamics.record import Record, RecordedExamples, Snapshot
from losslab.analysis.dynamics.recording import LINE
from losslab.errors import LabError

COUNT = 100


def make_record(scale=1.0, *, noise=0.0, task="multiclass", snapshots=3):
    """Make a record whose losses decrease tenfold per snapshot."""
    draws = np.random.default_rng(0)
    numbers = np.arange(COUNT)
    corrupted = draws.random(COUNT) < noise
    rows = []
    for epoch in range(snapshots):
        loss = draws.exponential(size=COUNT) * scale * 10.0**-epoch * np.where(corrupted, 5, 1)
        margin = draws.normal(epoch, 1, COUNT) * np.where(corrupted, -1, 1)
        flow = np.array([1e-3, 1e-2, 1e-1])
        rows.append(
            Snapshot(epoch, epoch, margin[:, None], loss, margin, margin, loss / scale, flow, np.exp(-(LINE**2)))
        )
    return Record.of(
        task, "Mine", ["0 A", "1 B", "2 C"], LINE, RecordedExamples(numbers, numbers, numbers, corrupted), rows
    )


def texts(figure):
    texts = [axes.get_xlabel() for axes in figure.axes] + [axes.get_ylabel() for axes in figure.axes]
    texts += [axes.get_title() + axes.get_title("left") + axes.get_title("right") for axes in figure.axes]
    return [*texts, figure.get_supxlabel(), figure.get_supylabel(), figure.get_suptitle()]


@pytest.mark.parametrize("task", ["multiclass", "binary", "regression"])
def test_one_run_has_every_figure_that_applies(task):
    drawn = draw_all({"a run": make_record(noise=0.3, task=task)})
    middle = "residual" if task == "regression" else "margin"
    assert list(drawn) == [f"dynamics_{name}" for name in ("loss", middle, "gradient", "noise", "layers")]
    for each in drawn.values():
        assert len(each.findings) == 1
        title = " ".join(each.figure.get_suptitle().split())
        assert "a run" in title
        assert each.findings[0][1:] in title


def test_no_noise_figure_without_wrong_labels_and_no_layer_figure_of_one_layer():
    clean = make_record()
    single = replace(clean, layers=clean.layers[:1], flow=clean.flow[:, :1])
    assert set(draw_all({"": single})) == {"dynamics_loss", "dynamics_margin", "dynamics_gradient"}


def test_losses_of_several_runs_are_normalised_and_labelled_as_such():
    small, large = make_record(), make_record(1000)
    assert distributions.normalise_loss(small) == pytest.approx(distributions.normalise_loss(large), rel=1e-5)
    assert distributions.normalise_loss(small)[0].mean() == pytest.approx(1)
    drawn = draw_all({"small": small, "large": large})
    assert any("÷ the run's mean before training" in text for text in texts(drawn["dynamics_loss"].figure))
    assert any("÷ initial mean" in text for text in texts(drawn["dynamics_gradient"].figure))
    assert any("÷ its largest" in text for text in texts(drawn["dynamics_margin"].figure))
    assert not any("÷" in text for text in texts(draw_all({"small": small})["dynamics_loss"].figure))


def test_several_runs_are_drawn_side_by_side_on_the_same_axes():
    records = {
        "first": make_record(noise=0.3),
        "second": make_record(2.0, noise=0.2),
        "third": make_record(3.0, snapshots=2),
    }
    for name, drawn in draw_all(records).items():
        expected = [label for label in records if name != "dynamics_noise" or records[label].has_noise]
        assert [finding.partition(":")[0] for finding in drawn.findings] == expected
        if name in {"dynamics_loss", "dynamics_margin"}:
            assert len({axes.get_xlim() for axes in drawn.figure.axes if axes.axison}) == 1


def test_normalised_loss_is_never_negative_even_if_the_loss_is():
    record = replace(make_record(), loss=make_record().loss - 3)
    assert distributions.normalise_loss(record).min() >= 0
    assert draw_all({"a": record, "b": make_record()})


def test_runs_of_different_tasks_are_rejected():
    with pytest.raises(LabError, match="runs of binary and regression cannot share a figure: explain each separately"):
        draw_all({"a": make_record(task="binary"), "b": make_record(task="regression")})


@pytest.mark.parametrize(
    ("flow", "word"),
    [
        ([1e-3, 1e-2, 1e-1], "the gradient reaches all layers: it is 0.01 to 0.1 times that of the last layer"),
        ([1e-7, 1e-2, 1e-1], "gradients vanish: that of layer 0 A is 1.0e-06 times that of the last layer"),
        ([1e7, 1e-2, 1e-1], "gradients explode: that of layer 0 A is 1.0e+08 times that of the last layer"),
        ([0, 0, 0], "no gradient reaches the last layer"),
        ([np.nan, 1e-2, 1e-1], "the gradient reaches all layers"),
    ],
)
def test_vanishing_and_exploding_gradients_are_named(flow, word):
    record = make_record()
    record = replace(record, flow=np.tile(np.array(flow), (3, 1)))
    assert over_epochs.layer_finding(record).startswith(word)
    assert over_epochs.draw_layers({"": record}).figure is not None


def test_the_gradient_finding_states_the_share_of_the_largest_gradients():
    gradient = np.ones((3, COUNT))
    gradient[-1, :10] = 9
    finding = over_epochs.gradient_finding(replace(make_record(), gradient=gradient))
    expected = "the 10 % largest gradients make up 50 % of the sum at the end, 10 % at the start; 0 % of the examples"
    assert finding.startswith(expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_record_with_invalid_snapshots_can_be_drawn(bad):
    record = make_record(noise=0.3)
    damaged = {name: getattr(record, name).copy() for name in ("loss", "margin", "truth_margin", "gradient", "flow")}
    for values in damaged.values():
        values[1:] = bad
    assert len(draw_all({"": replace(record, **damaged)})) == 5


def test_a_single_snapshot_can_be_drawn():
    assert len(draw_all({"": make_record(noise=0.3, snapshots=1)})) == 5


def test_the_noise_figure_of_several_regressions_names_residuals_and_not_margins():
    records = {name: make_record(noise=0.3, task="regression") for name in "ab"}
    assert "wrong values detected by large residuals so far" in texts(draw_all(records)["dynamics_noise"].figure)

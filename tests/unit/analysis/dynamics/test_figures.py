"""What the figures say on their axes and in their titles."""

from dataclasses import replace

import numpy as np
import pytest

from losslab.analysis.dynamics.figures import gradients, losses, pictures
from losslab.analysis.dynamics.gradients import LINE
from losslab.analysis.dynamics.record import Examples, Look, Record
from losslab.errors import LabError

COUNT = 100


def invented(scale=1.0, *, noise=0.0, task="multiclass", looks=4):
    """A record of losses that fall by a tenth a look, times a scale."""
    draws = np.random.default_rng(0)
    numbers = np.arange(COUNT)
    marred = draws.random(COUNT) < noise
    seen = []
    for epoch in range(looks):
        loss = draws.exponential(size=COUNT) * scale * 10.0**-epoch * np.where(marred, 5, 1)
        margin = draws.normal(epoch, 1, COUNT) * np.where(marred, -1, 1)
        flow = np.array([1e-3, 1e-2, 1e-1])
        seen.append(Look(epoch, epoch, margin[:, None], loss, margin, margin, loss / scale, flow, np.exp(-(LINE**2))))
    return Record.of(task, "Mine", ["0 A", "1 B", "2 C"], LINE, Examples(numbers, numbers, numbers, marred), seen)


def texts(figure):
    found = [axes.get_xlabel() for axes in figure.axes] + [axes.get_ylabel() for axes in figure.axes]
    found += [axes.get_title() + axes.get_title("left") + axes.get_title("right") for axes in figure.axes]
    return [*found, figure.get_supxlabel(), figure.get_supylabel(), figure.get_suptitle()]


@pytest.mark.parametrize("task", ["multiclass", "binary", "regression"])
def test_one_run_has_a_figure_for_everything_it_can_show(task):
    drawn = pictures({"a run": invented(noise=0.3, task=task)})
    middle = "residual" if task == "regression" else "margin"
    assert list(drawn) == [f"dynamics_{name}" for name in ("loss", middle, "gradient", "noise", "layers")]
    for each in drawn.values():
        assert len(each.findings) == 1
        assert "a run" in each.figure.get_suptitle()
        assert each.findings[0][1:] in each.figure.get_suptitle()


def test_without_wrong_labels_there_is_no_figure_of_noise_and_of_one_layer_none_of_the_flow():
    clean = invented()
    single = replace(clean, layers=clean.layers[:1], flow=clean.flow[:, :1])
    assert set(pictures({"": single})) == {"dynamics_loss", "dynamics_margin", "dynamics_gradient"}


def test_losses_share_an_axis_only_after_they_were_normalised_and_the_figure_says_so():
    small, large = invented(), invented(1000)
    assert losses.normalised(small) == pytest.approx(losses.normalised(large), rel=1e-5)
    assert losses.normalised(small)[0].mean() == pytest.approx(1)
    drawn = pictures({"small": small, "large": large})
    assert any("÷ the mean of its run before training" in text for text in texts(drawn["dynamics_loss"].figure))
    assert any("÷ that before training" in text for text in texts(drawn["dynamics_gradient"].figure))
    assert any("÷ its largest" in text for text in texts(drawn["dynamics_margin"].figure))
    assert not any("÷" in text for text in texts(pictures({"small": small})["dynamics_loss"].figure))


def test_several_runs_stand_side_by_side_on_the_same_axes():
    records = {"first": invented(noise=0.3), "second": invented(2.0, noise=0.2), "third": invented(3.0, looks=2)}
    for name, drawn in pictures(records).items():
        shown = [label for label in records if name != "dynamics_noise" or records[label].has_noise]
        assert [finding.partition(":")[0] for finding in drawn.findings] == shown
        if name in {"dynamics_loss", "dynamics_margin"}:
            assert len({axes.get_xlim() for axes in drawn.figure.axes if axes.axison}) == 1


def test_a_loss_below_0_is_normalised_from_its_least_value():
    record = replace(invented(), loss=invented().loss - 3)
    assert losses.normalised(record).min() >= 0
    assert pictures({"a": record, "b": invented()})


def test_runs_of_different_tasks_share_no_figure():
    with pytest.raises(LabError, match="runs of binary and regression share no figure: explain each by itself"):
        pictures({"a": invented(task="binary"), "b": invented(task="regression")})


@pytest.mark.parametrize(
    ("flow", "word"),
    [
        ([1e-3, 1e-2, 1e-1], "the gradient reaches all layers: within 0.01 to 0.1 times the last layer's"),
        ([1e-7, 1e-2, 1e-1], "gradients vanish: layer 0 A has 1.0e-06 times that of the last layer"),
        ([1e7, 1e-2, 1e-1], "gradients explode: layer 0 A has 1.0e+08 times that of the last layer"),
        ([0, 0, 0], "no gradient reaches the last layer"),
        ([np.nan, 1e-2, 1e-1], "the gradient reaches all layers"),
    ],
)
def test_vanishing_and_exploding_gradients_are_named(flow, word):
    record = invented()
    record = replace(record, flow=np.tile(np.array(flow), (4, 1)))
    assert gradients.layer_finding(record).startswith(word)
    assert gradients.draw_layers({"": record}).figure is not None


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_a_record_of_a_run_that_went_wrong_can_be_drawn(bad):
    record = invented(noise=0.3)
    ruined = {name: getattr(record, name).copy() for name in ("loss", "margin", "truth_margin", "gradient", "flow")}
    for values in ruined.values():
        values[1:] = bad
    assert len(pictures({"": replace(record, **ruined)})) == 5


def test_a_single_look_can_be_drawn():
    assert len(pictures({"": invented(noise=0.3, looks=1)})) == 5

"""Learning curves of groups, and the time to reach a value."""

import pytest
from folders import run

from losslab.analysis.compare import compare, report
from losslab.analysis.compare.tables import curves_finding
from losslab.errors import LabError


def history(folder, *rows, head="epoch,train/loss,val/loss,val/accuracy"):
    (folder / "history.csv").write_text("\n".join([head, *rows]) + "\n")


def losses(runs, **rows):
    for loss, seeds in rows.items():
        for seed, lines in enumerate(seeds):
            history(run(runs / f"{loss}{seed}", loss, seed), *lines)
    return compare([runs])


def test_a_curve_is_the_mean_of_the_seeds_from_the_lowest_to_the_highest(tmp_path):
    comparison = losses(tmp_path, mse=[["1,1,1,0.1", "2,1,1,0.5"], ["1,1,1,0.3", "2,1,1,0.9"]])
    curve = comparison.histories.curve(comparison.groups[0], "val/accuracy")
    assert curve.epochs == [1, 2]
    assert curve.mean == pytest.approx([0.2, 0.7])
    assert (curve.low, curve.high, curve.seeds) == ([0.1, 0.5], [0.3, 0.9], 2)


def test_a_curve_has_only_epochs_that_every_seed_has_validated(tmp_path):
    comparison = losses(tmp_path, mse=[["1,1,1,", "2,1,1,0.5", "3,1,1,0.6"], ["1,1,1,0.3", "2,1,1,0.7"]])
    assert comparison.histories.curve(comparison.groups[0], "val/accuracy").epochs == [2]


def test_of_several_rows_with_one_epoch_the_last_counts(tmp_path):
    comparison = losses(tmp_path, mse=[["1,1,1,0.1", "2,1,1,0.5", "1,1,1,0.3"]])
    curve = comparison.histories.curve(comparison.groups[0], "val/accuracy")
    assert (curve.epochs, curve.mean) == ([1, 2], [0.3, 0.5])


def test_losses_are_relative_to_the_first_value_of_each_run(tmp_path):
    comparison = losses(tmp_path, mse=[["1,4,1,0", "2,2,1,0"], ["1,10,1,0", "2,1,1,0"]])
    curve = comparison.histories.curve(comparison.groups[0], "train/loss", relative=True)
    assert curve.mean == pytest.approx([1, 0.3])


def test_a_loss_that_starts_below_0_is_left_out_and_the_title_counts_it(tmp_path):
    comparison = losses(tmp_path, a=[["1,-1,1,0", "2,-2,1,0"]], b=[["1,2,1,0", "2,1,1,0"]])
    assert comparison.histories.curve(comparison.groups[0], "train/loss", relative=True) is None
    titles = [axes.get_title(loc="left") for axes in comparison.curves_figure().axes]
    assert any(
        "train/loss" in title and "without 1 group whose losses start at or below 0" in title for title in titles
    )


def test_a_damaged_history_leaves_the_final_values_and_is_listed(tmp_path):
    comparison = losses(tmp_path, a=[["1,1,1,0.5"], ["1,1,1"]])
    assert comparison.histories.curve(comparison.groups[0], "val/accuracy").seeds == 1
    assert len(comparison.groups[0].values("test/accuracy")) == 2
    ((what, why),) = comparison.not_counted
    assert what.endswith("a1")
    assert why.startswith("damaged, left out of the curves")


def test_runs_without_a_history_have_no_curves(tmp_path):
    (run(tmp_path / "a") / "history.csv").unlink()
    comparison = compare([tmp_path])
    assert comparison.histories.names == []
    assert comparison.time_to_reach is None


def test_time_to_reach_is_the_first_epoch_at_the_value_and_its_wall_time(tmp_path):
    rows = [f"{epoch},1,1,{value}" for epoch, value in ((1, 0.2), (2, 0.6), (3, 0.5))]
    history(run(tmp_path / "a", epochs=3), *rows)
    (found,) = compare([tmp_path], reach=("val/accuracy", 0.6)).time_to_reach.times
    assert found.cells() == ("1 of 1", "2", "1")  # half a second an epoch


def test_a_loss_is_reached_from_above(tmp_path):
    rows = [f"{epoch},1,{value},0" for epoch, value in ((1, 3), (2, 2), (3, 1))]
    history(run(tmp_path / "a", epochs=3), *rows)
    (found,) = compare([tmp_path], reach=("val/loss", 2.0)).time_to_reach.times
    assert found.runs[0].epoch == 2


def test_runs_that_never_reach_the_value_count_as_later_than_all_epochs(tmp_path):
    for seed, end in enumerate((0.9, 0.9, 0.1)):
        history(run(tmp_path / str(seed), seed=seed, epochs=2), "1,1,1,0.2", f"2,1,1,{end}")
    (found,) = compare([tmp_path], reach=("val/accuracy", 0.8)).time_to_reach.times
    assert found.cells() == ("2 of 3", "2 (2 to >2)", "1 (1 to >1)")
    (none,) = compare([tmp_path], reach=("val/accuracy", 0.95)).time_to_reach.times
    assert none.cells() == ("0 of 3", ">2", ">1")


def test_by_default_the_value_is_what_the_worst_group_reaches_on_average(tmp_path):
    comparison = losses(
        tmp_path, a=[["1,1,1,0.9"], ["1,1,1,0.95"]], b=[["1,1,1,0.437", "2,1,1,0.2"], ["1,1,1,0.5", "2,1,1,0.1"]]
    )
    assert (comparison.time_to_reach.metric, comparison.time_to_reach.value) == ("val/accuracy", 0.46)  # of 0.4685


def test_an_unknown_curve_and_the_loss_of_different_losses_are_refused(tmp_path):
    losses(tmp_path, a=[["1,1,1,0.9"]], b=[["1,1,1,0.9"]])
    with pytest.raises(LabError, match=r"there is no curve val/acc; there is val/accuracy$"):
        compare([tmp_path], reach=("val/acc", 0.5))
    with pytest.raises(LabError, match=r"there is no curve val/acc; there are train/loss, val/loss, val/accuracy$"):
        compare([tmp_path / "a0"], reach=("val/acc", 0.5))
    with pytest.raises(LabError, match="val/loss means something different for each loss"):
        compare([tmp_path], reach=("val/loss", 0.5))


def every_tenth(runs):
    """Runs of 30 epochs, of which every tenth was validated."""
    for loss, last in (("a", 0.8), ("b", 0.6)):
        values = {10: 0.1, 20: 0.5, 30: last}
        rows = [f"{at},{1 / at},{1 / at if at in values else ''},{values.get(at, '')}" for at in range(1, 31)]
        history(run(runs / loss, loss, epochs=30), *rows)
    return runs


def test_panels_share_their_x_axis(tmp_path):
    axes = {one.get_title(loc="left"): one for one in compare([every_tenth(tmp_path)]).curves_figure().axes}
    spans = {one.get_xlim() for one in axes.values() if one.get_visible()}
    assert len(spans) == 1
    ((first, last),) = spans
    assert first < 1
    assert last > 30
    assert "val/loss: the loss of each run, divided by its first value" in axes


def reach_label(comparison):
    (axes,) = (one for one in comparison.curves_figure().axes if one.get_title(loc="left") == "val/accuracy")
    lines = [line for line in axes.lines if (line.get_linestyle(), line.get_color()) == (":", "black")]
    (text,) = axes.texts
    assert text.xyann[0] > 0, "beside the panel"
    assert text.get_ha() == "left"
    return len(lines), text.get_text()


def test_the_line_to_reach_is_labelled_and_does_not_squash_the_curves(tmp_path):
    runs = every_tenth(tmp_path)
    assert reach_label(compare([runs])) == (1, "to reach:\n0.6")
    assert reach_label(compare([runs], reach=("val/accuracy", 0.7))) == (1, "to reach:\n0.7")
    assert reach_label(compare([runs], reach=("val/accuracy", 1e300))) == (0, "to reach:\n1e+300\n(above)")
    assert reach_label(compare([runs], reach=("val/accuracy", -50))) == (0, "to reach:\n-50\n(below)")


def test_the_value_to_reach_in_a_logarithmic_panel_may_be_below_0(tmp_path):
    rows = [f"{at},1,1,{10.0**-at}" for at in (1, 2, 3, 4)]
    history(run(tmp_path / "a"), *rows)
    assert reach_label(compare([tmp_path], reach=("val/accuracy", -1))) == (0, "to reach:\n-1\n(below)")
    assert reach_label(compare([tmp_path], reach=("val/accuracy", 0.05)))[0] == 1


@pytest.mark.parametrize(
    ("reach", "said"),
    [
        (0.6, "a is the first to reach val accuracy 0.6 after 20 epochs (median of n = 3 seeds)"),
        (0.5, "2 of 3 losses are the first to reach val accuracy 0.5 after 20 epochs (median of n = 3 seeds)"),
        (0.2, "all 3 losses reach val accuracy 0.2 after 20 epochs (median of n = 3 seeds)"),
        (0.9, "none of 3 losses reaches val accuracy 0.9 with most seeds (n = 3 seeds)"),
    ],
)
def test_the_finding_of_curves_is_who_first_reached_the_value(tmp_path, reach, said):
    for seed in range(3):
        for loss, middle in (("a", 0.6), ("b", 0.5), ("c", 0.3)):
            history(run(tmp_path / f"{loss}{seed}", loss, seed), "10,1,1,0.1", f"20,1,1,{middle}", "30,1,1,0.8")
    comparison = compare([tmp_path], reach=("val/accuracy", reach))
    assert curves_finding(comparison.groups, comparison.time_to_reach) == said
    assert comparison.curves_figure().get_suptitle() == said


def test_the_finding_of_curves_without_a_metric_is_what_they_show(tmp_path):
    for loss in "ab":
        (run(tmp_path / loss, loss) / "history.csv").write_text("epoch,step,train/loss\n1,1,0.5\n")
    comparison = compare([tmp_path])
    assert curves_finding(comparison.groups, comparison.time_to_reach) == "Curves of 2 losses (1 seed)"


def test_the_title_marks_a_default_value_to_reach(tmp_path):
    runs = every_tenth(tmp_path)
    chosen = "Time to reach val/accuracy=0.6, which the worst group reaches on average"
    assert report.reach_title(compare([runs]).time_to_reach) == chosen
    assert report.reach_title(compare([runs], reach=("val/accuracy", None)).time_to_reach) == chosen
    assert (
        report.reach_title(compare([runs], reach=("val/accuracy", 0.6)).time_to_reach)
        == "Time to reach val/accuracy=0.6"
    )

"""Curves of groups, and how long they take to reach a value."""

import pytest
from folders import run

from losslab.comparison import compare
from losslab.comparison.reaching import words
from losslab.errors import LabError


def history(folder, *rows, head="epoch,train/loss,val/loss,val/accuracy"):
    (folder / "history.csv").write_text("\n".join([head, *rows]) + "\n")


def losses(place, **rows):
    for loss, seeds in rows.items():
        for seed, lines in enumerate(seeds):
            history(run(place / f"{loss}{seed}", loss, seed), *lines)
    return compare([place])


def test_a_curve_is_the_mean_of_the_seeds_from_the_lowest_to_the_highest(tmp_path):
    comparison = losses(tmp_path, mse=[["1,1,1,0.1", "2,1,1,0.5"], ["1,1,1,0.3", "2,1,1,0.9"]])
    curve = comparison.histories.curve(comparison.groups[0], "val/accuracy")
    assert curve.epochs == [1, 2]
    assert curve.mean == pytest.approx([0.2, 0.7])
    assert (curve.low, curve.high, curve.seeds) == ([0.1, 0.5], [0.3, 0.9], 2)


def test_a_curve_ends_where_the_first_seed_does_and_skips_epochs_that_were_not_validated(tmp_path):
    comparison = losses(tmp_path, mse=[["1,1,1,", "2,1,1,0.5", "3,1,1,0.6"], ["1,1,1,0.3", "2,1,1,0.7"]])
    assert comparison.histories.curve(comparison.groups[0], "val/accuracy").epochs == [2]


def test_losses_are_relative_to_where_each_run_started(tmp_path):
    comparison = losses(tmp_path, mse=[["1,4,1,0", "2,2,1,0"], ["1,10,1,0", "2,1,1,0"]])
    curve = comparison.histories.curve(comparison.groups[0], "train/loss", relative=True)
    assert curve.mean == pytest.approx([1, 0.3])


def test_a_loss_that_starts_below_0_is_left_out_and_said_to_be(tmp_path):
    comparison = losses(tmp_path, a=[["1,-1,1,0", "2,-2,1,0"]], b=[["1,2,1,0", "2,1,1,0"]])
    assert comparison.histories.curve(comparison.groups[0], "train/loss", relative=True) is None
    titles = [axes.get_title(loc="left") for axes in comparison.curves_figure().axes]
    assert any("train/loss" in title and "1 that start at or below 0 left out" in title for title in titles)


def test_a_damaged_history_leaves_the_final_values_and_is_listed(tmp_path):
    comparison = losses(tmp_path, a=[["1,1,1,0.5"], ["1,1,1"]])
    assert comparison.histories.curve(comparison.groups[0], "val/accuracy").seeds == 1
    assert len(comparison.groups[0].values("test/accuracy")) == 2
    ((what, why),) = comparison.flaws
    assert what.endswith("a1")
    assert why.startswith("damaged, left out of the curves")


def test_runs_without_a_history_have_no_curves(tmp_path):
    (run(tmp_path / "a") / "history.csv").unlink()
    comparison = compare([tmp_path])
    assert comparison.histories.names == []
    assert comparison.reach is None


def test_reaching_is_the_first_epoch_at_the_value_and_its_wall_time(tmp_path):
    rows = [f"{epoch},1,1,{value}" for epoch, value in ((1, 0.2), (2, 0.6), (3, 0.5))]
    history(run(tmp_path / "a", epochs=3), *rows)
    (found,) = compare([tmp_path], reach=("val/accuracy", 0.6)).reach.groups
    assert words(found) == ("1 of 1", "2", "1")  # half a second an epoch


def test_a_loss_is_reached_from_above(tmp_path):
    rows = [f"{epoch},1,{value},0" for epoch, value in ((1, 3), (2, 2), (3, 1))]
    history(run(tmp_path / "a", epochs=3), *rows)
    (found,) = compare([tmp_path], reach=("val/loss", 2.0)).reach.groups
    assert found.arrivals[0].epoch == 2


def test_runs_that_never_come_are_counted_as_later_than_all_their_epochs(tmp_path):
    for seed, end in enumerate((0.9, 0.9, 0.1)):
        history(run(tmp_path / str(seed), seed=seed, epochs=2), "1,1,1,0.2", f"2,1,1,{end}")
    (found,) = compare([tmp_path], reach=("val/accuracy", 0.8)).reach.groups
    assert words(found) == ("2 of 3", "2 (2 to >2)", "1 (1 to >1)")
    (none,) = compare([tmp_path], reach=("val/accuracy", 0.95)).reach.groups
    assert words(none) == ("0 of 3", ">2", ">1")


def test_by_default_the_value_is_what_the_worst_group_reaches_on_average(tmp_path):
    comparison = losses(
        tmp_path, a=[["1,1,1,0.9"], ["1,1,1,0.95"]], b=[["1,1,1,0.437", "2,1,1,0.2"], ["1,1,1,0.5", "2,1,1,0.1"]]
    )
    assert (comparison.reach.metric, comparison.reach.value) == ("val/accuracy", 0.46)  # of 0.4685


def test_a_curve_that_is_not_there_or_means_something_else_to_each_is_refused(tmp_path):
    losses(tmp_path, a=[["1,1,1,0.9"]], b=[["1,1,1,0.9"]])
    with pytest.raises(LabError, match=r"there is no curve val/acc; there is val/accuracy$"):
        compare([tmp_path], reach=("val/acc", 0.5))
    with pytest.raises(LabError, match=r"there is no curve val/acc; there are train/loss, val/loss, val/accuracy$"):
        compare([tmp_path / "a0"], reach=("val/acc", 0.5))
    with pytest.raises(LabError, match="val/loss means something else under every loss"):
        compare([tmp_path], reach=("val/loss", 0.5))

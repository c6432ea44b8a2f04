"""What is said of groups beside the best, or beside a baseline."""

import csv
import math
import re

import numpy as np
import pytest
from folders import accuracies, run

from losslab.analysis.compare import compare, report
from losslab.analysis.compare.statistics import paired_difference
from losslab.errors import LabError

CLEAR = {"low": {0: 0.10, 1: 0.21, 2: 0.30}, "mid": {0: 0.50, 1: 0.62, 2: 0.70}, "high": {0: 0.80, 1: 0.93, 2: 0.99}}


def standing(place, baseline=None, **values):
    return compare([accuracies(place, **values)], baseline=baseline).by_metric["test/accuracy"]


def test_the_best_mean_comes_first_and_the_others_are_held_against_it(tmp_path):
    found = standing(tmp_path, **CLEAR)
    assert [one.label for one in found.groups] == ["loss=high", "loss=mid", "loss=low"]
    assert found.reference is found.groups[0]
    assert [one.verdict for one in found.differences] == ["worse", "worse"]
    assert [round(one.mean, 3) for one in found.differences] == [-0.3, -0.703]


def test_for_an_error_the_lowest_is_the_best(tmp_path):
    for loss, error in (("a", 1.0), ("b", 0.2)):
        for seed in range(3):
            run(tmp_path / f"{loss}{seed}", loss, seed, metrics={"test/mse": error + seed / 100})
    found = compare([tmp_path]).by_metric["test/mse"]
    assert [one.label for one in found.groups] == ["loss=b", "loss=a"]
    assert found.differences[0].verdict == "worse"


def errors(place, **values):
    for loss, own in values.items():
        for seed, error in enumerate(own):
            run(place / f"{loss}{seed}", loss, seed, metrics={"test/mse": error})
    return place


def test_errors_far_apart_are_compared_by_ratios_and_others_by_differences(tmp_path):
    # The larger error varies more than the smaller one is large: no difference from it says anything of the smaller.
    far = errors(tmp_path / "far", small=[0.010, 0.011, 0.012], large=[2.0, 16.0, 5.0])
    near = errors(tmp_path / "near", small=[0.010, 0.011, 0.012], large=[0.08, 0.07, 0.09])
    found = compare([far]).by_metric["test/mse"]
    (apart,) = found.differences
    assert (found.ratios, apart.verdict) == (True, "worse")
    assert apart.mean == pytest.approx((2.0 * 16 * 5 / (0.010 * 0.011 * 0.012)) ** (1 / 3))
    assert 1 < apart.interval.low < apart.mean < apart.interval.high
    assert found.mean(found.groups[1]) == pytest.approx(160 ** (1 / 3))
    assert compare([far], scale="difference").by_metric["test/mse"].differences[0].verdict == "not distinguishable"
    assert not compare([near]).by_metric["test/mse"].ratios
    assert compare([near], scale="ratio").by_metric["test/mse"].ratios


def test_a_ratio_is_not_distinguishable_exactly_where_1_lies_inside(tmp_path):
    place = errors(tmp_path, a=[0.1, 0.2, 0.3], b=[0.3, 0.1, 0.2], c=[9.0, 8.0, 9.0])
    for one in compare([place], baseline="loss=a").by_metric["test/mse"].differences:
        assert (one.interval.low <= 1 <= one.interval.high) == (one.verdict == "not distinguishable")


@pytest.mark.parametrize("without", [0.0, -1.0])
def test_ratios_that_are_asked_for_of_what_has_none_are_refused_and_of_themselves_not_made(tmp_path, without):
    place = errors(tmp_path, a=[0.2, without, 0.3], b=[30, 10, 20])
    assert not compare([place]).by_metric["test/mse"].ratios
    said = f"test/mse of loss=a seed=1 is {without:g}, and only values above 0 have ratios: compare by differences"
    with pytest.raises(LabError, match=re.escape(said)):
        compare([place], scale="ratio")


def test_the_page_says_whether_ratios_were_asked_for(tmp_path):
    place = errors(tmp_path, small=[0.010, 0.011, 0.012], large=[2.0, 16.0, 5.0])
    said = {scale: " ".join(compare([place], scale=scale).notes) for scale in ("auto", "ratio", "difference")}
    assert "by their ratio, because where errors lie far apart" in said["auto"]
    assert "by their ratio, as requested." in said["ratio"]
    assert "far apart" not in said["ratio"] + said["difference"]


def test_an_interval_of_ratios_beyond_all_numbers_is_unbounded(tmp_path):
    losses = {f"l{place}": [0.01 * 2.0**place, 0.02 * 2.0**place + place**3] for place in range(8)}
    comparison = compare([errors(tmp_path / "runs", **losses)])
    standing = comparison.by_metric["test/mse"]
    assert (standing.ratios, standing.family_size) == (True, 28)
    wide = [one for one in standing.differences if one.interval.unbounded]
    assert wide
    assert {one.verdict for one in wide} == {"not distinguishable"}
    assert {(one.interval.low, one.interval.high) for one in wide} == {(0.0, math.inf)}
    assert comparison.table_markdown().count("(unbounded) | not distinguishable |") == len(wide)
    report.write_report(comparison, tmp_path)
    with (tmp_path / "comparison.csv").open(newline="") as lines:
        ends = [(row["difference_low"], row["difference_high"]) for row in csv.DictReader(lines)]
    assert ends.count(("0.0", "inf")) == len(wide)
    figure = comparison.figure()
    arrows = [line for line in figure.axes[1].lines if line.get_marker() in {"<", ">"}]
    assert len(arrows) >= 2 * len(wide)
    assert all(math.isfinite(value) and value > 0 for axes in figure.axes for value in axes.get_xlim())
    assert "an arrow: it goes further" in figure.axes[1].get_xlabel()


def test_with_a_baseline_the_family_are_the_differences_from_it_else_all_pairs(tmp_path):
    accuracies(tmp_path, **CLEAR, more={0: 0.4, 1: 0.45, 2: 0.57})
    assert compare([tmp_path], baseline="loss=mid").by_metric["test/accuracy"].family_size == 3
    assert compare([tmp_path]).by_metric["test/accuracy"].family_size == 6


def test_intervals_have_the_levels_of_the_step_down(tmp_path):
    found = standing(tmp_path, baseline="loss=mid", **CLEAR)
    by_p = sorted(found.differences, key=lambda one: one.p)
    assert [one.level for one in by_p] == [0.05 / 2, 0.05]
    own, base = (list(CLEAR[one.label.removeprefix("loss=")].values()) for one in (by_p[0].group, found.reference))
    assert by_p[0].interval == paired_difference(own, base, step=found.step, level=0.025)


def test_a_verdict_is_not_distinguishable_exactly_where_0_lies_inside(tmp_path):
    generator = np.random.default_rng(0)
    values = {f"l{at}": dict(enumerate((0.5 + generator.normal(size=4) / 30).tolist())) for at in range(12)}
    values |= {f"m{at}": dict(enumerate((0.7 + generator.normal(size=4) / 30).tolist())) for at in range(3)}
    found = standing(tmp_path, baseline="loss=l0", **values)
    words = {one.verdict for one in found.differences}
    assert words == {"not distinguishable", "better"}
    for one in found.differences:
        assert (one.interval.low <= 0 <= one.interval.high) == (one.verdict == "not distinguishable")


def test_only_seeds_of_both_are_compared_and_the_page_says_which_are_not(tmp_path):
    accuracies(tmp_path, a={0: 0.5, 1: 0.6, 2: 0.7, 7: 0.9}, b={0: 0.4, 1: 0.5, 2: 0.6, 3: 0.1})
    comparison = compare([tmp_path], baseline="loss=b")
    (found,) = comparison.by_metric["test/accuracy"].differences
    assert (found.pairs, found.unpaired) == (3, 2)
    assert found.mean == pytest.approx(0.1)
    assert "(3 pairs)" in comparison.table_markdown()
    assert "loss=b has no result for seed 7, so these are not part of its differences." in comparison.notes


def test_seeds_are_paired_by_their_number_and_not_by_their_place(tmp_path):
    found = standing(tmp_path, baseline="loss=b", a={1: 0.5, 2: 0.7, 3: 0.9}, b={0: 0.1, 1: 0.4, 2: 0.6})
    assert found.differences[0].mean == pytest.approx(0.1)
    assert found.differences[0].pairs == 2


def test_without_a_seed_in_common_nothing_is_claimed(tmp_path):
    comparison = compare([accuracies(tmp_path, a={0: 0.5, 1: 0.6}, b={2: 0.1, 3: 0.2})])
    (found,) = comparison.by_metric["test/accuracy"].differences
    assert (found.mean, found.interval, found.verdict) == (None, None, "")
    assert "no seed in common" in comparison.table_markdown()


def test_one_seed_has_a_mean_and_no_interval_and_no_verdict(tmp_path):
    comparison = compare([accuracies(tmp_path, a={0: 0.5}, b={0: 0.4})])
    table = comparison.table_markdown()
    assert "±" not in table
    assert "nan" not in table
    assert "| b | 1 | 0.4 | -0.1 | one seed: no verdict |" in table
    assert any(note.startswith("One seed each: no interval exists") for note in comparison.notes)


def test_accuracies_that_agree_are_known_to_one_example_only(tmp_path):
    found = standing(tmp_path, a={0: 0.50, 1: 0.52, 2: 0.53}, b={0: 0.51, 1: 0.53, 2: 0.54})
    assert found.step == 0.01
    assert found.differences[0].verdict == "not distinguishable"  # one example more with each of three seeds
    assert found.differences[0].interval.half_width == pytest.approx(4.302653 * 0.01 / 3**0.5)


def test_groups_that_agree_in_everything_are_equal(tmp_path):
    found = standing(tmp_path, a={0: 0.5, 1: 0.6}, b={0: 0.5, 1: 0.6})
    assert [one.verdict for one in found.differences] == ["equal"]


def test_values_that_no_seed_changes_are_told(tmp_path):
    for seed in range(3):
        run(tmp_path / f"a{seed}", "a", seed, metrics={"test/mse": 0.5})
        run(tmp_path / f"b{seed}", "b", seed, metrics={"test/mse": 0.7})
    assert any("is the same for all seeds in loss=a, loss=b" in note for note in compare([tmp_path]).notes)


def test_a_group_of_failures_stays_in_the_table(tmp_path):
    accuracies(tmp_path, a={0: 0.5, 1: 0.6})
    run(tmp_path / "b0", "b", 0, metrics=False)
    run(tmp_path / "a2", "a", 2, metrics=False)
    comparison = compare([tmp_path])
    assert "| a | 2 of 3 |" in comparison.table_markdown()
    assert "| b | 0 of 1 | – | – | no value |" in comparison.table_markdown()
    assert [what for what, _ in comparison.not_counted] == ["loss=a seed=2", "loss=b seed=0"]


def test_a_value_that_a_run_lacks_is_counted(tmp_path):
    accuracies(tmp_path, a={0: 0.5, 1: 0.6, 2: 0.5})
    run(tmp_path / "a3", "a", 3, metrics={"test/accuracy": float("nan"), "test/nll": 1.0})
    assert "| a | 3 of 4 |" in compare([tmp_path], metrics=["test/accuracy"]).table_markdown()


def test_the_usual_metrics_are_those_that_all_groups_share(tmp_path):
    run(tmp_path / "a", "a", metrics={"test/accuracy": 0.5, "test/nll": 1, "val/accuracy": 1, "test/f1": 1})
    run(tmp_path / "b", "b", metrics={"test/accuracy": 0.5, "test/ece": 1, "val/accuracy": 1})
    assert compare([tmp_path]).metrics == ("test/accuracy",)


def test_without_a_test_set_validation_is_compared_and_said_to_flatter(tmp_path):
    run(tmp_path / "a", metrics={"val/accuracy": 0.5})
    comparison = compare([tmp_path])
    assert comparison.metrics == ("val/accuracy",)
    assert any("it flatters" in note for note in comparison.notes)


def test_runs_with_nothing_in_common_are_refused_with_what_they_have(tmp_path):
    run(tmp_path / "a", "a", metrics={"test/accuracy": 0.5})
    run(tmp_path / "b", "b", metrics={"test/mse": 0.5})
    said = "no metric in common, compare them apart: test/accuracy of loss=a; test/mse of loss=b"
    with pytest.raises(LabError, match=said):
        compare([tmp_path])


def test_a_metric_that_is_not_there_and_losses_of_different_kinds_are_refused(tmp_path):
    for loss in "ab":
        run(tmp_path / loss, loss, metrics={"test/accuracy": 0.5, "test/loss": 1.0})
    with pytest.raises(LabError, match=r"there is no metric test/acc; there is test/accuracy$"):
        compare([tmp_path], metrics=["test/acc"])
    with pytest.raises(LabError, match=r"there is no metric test/acc; there are test/accuracy, test/loss$"):
        compare([tmp_path / "a"], metrics=["test/acc"])
    with pytest.raises(LabError, match="test/loss means something else under every loss"):
        compare([tmp_path], metrics=["test/loss"])
    assert compare([tmp_path / "a"], metrics=["test/loss"]).metrics == ("test/loss",)


def test_notes_count_differences_in_words_that_fit_their_number(tmp_path):
    accuracies(tmp_path / "two", a=CLEAR["low"], b=CLEAR["mid"])
    accuracies(tmp_path / "three", **CLEAR)
    for place, baseline, said in (
        (
            "two",
            None,
            "seed by seed, and there is one in a metric: a claim is wrong with a probability of at most 5 %.",
        ),
        (
            "two",
            "loss=a",
            "seed by seed, and there is one in a metric: a claim is wrong with a probability of at most 5 %.",
        ),
        ("three", None, "are corrected for all 3 pairs of groups in a metric, because the best"),
        ("three", "loss=low", "are corrected for all 2 differences from the baseline in a metric (Holm)"),
    ):
        notes = " ".join(compare(tmp_path / place, baseline=baseline).notes)
        assert said in notes
        assert "all 1 " not in notes


def test_groups_on_different_data_are_told(tmp_path):
    run(tmp_path / "a", data__batch_size=8)
    run(tmp_path / "b", data__batch_size=16)
    assert not any("the same examples" in note for note in compare([tmp_path]).notes)
    run(tmp_path / "c", data__noise=1)
    assert any("data.noise" in note and "the same examples" in note for note in compare([tmp_path]).notes)

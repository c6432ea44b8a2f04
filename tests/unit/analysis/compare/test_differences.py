"""Differences of groups from the best group or the baseline."""

import csv
import math
import re

import numpy as np
import pytest
from folders import accuracies, run

from losslab.analysis.compare import compare, report
from losslab.analysis.compare.statistics import paired_difference
from losslab.analysis.compare.tables import finding
from losslab.errors import LabError

CLEAR = {"low": {0: 0.10, 1: 0.21, 2: 0.30}, "mid": {0: 0.50, 1: 0.62, 2: 0.70}, "high": {0: 0.80, 1: 0.93, 2: 0.99}}


def compared(runs, baseline=None, **values):
    return compare([accuracies(runs, **values)], baseline=baseline).by_metric["test/accuracy"]


def test_the_best_mean_comes_first_and_the_others_are_compared_with_it(tmp_path):
    found = compared(tmp_path, **CLEAR)
    assert [one.label for one in found.groups] == ["loss=high", "loss=mid", "loss=low"]
    assert found.reference is found.groups[0]
    assert [one.verdict for one in found.differences] == ["worse", "worse"]
    assert [round(one.mean, 3) for one in found.differences] == [-0.3, -0.703]


def test_the_lowest_error_is_the_best(tmp_path):
    for loss, error in (("a", 1.0), ("b", 0.2)):
        for seed in range(3):
            run(tmp_path / f"{loss}{seed}", loss, seed, metrics={"test/mse": error + seed / 100})
    found = compare([tmp_path]).by_metric["test/mse"]
    assert [one.label for one in found.groups] == ["loss=b", "loss=a"]
    assert found.differences[0].verdict == "worse"


def errors(runs, **values):
    for loss, own in values.items():
        for seed, error in enumerate(own):
            run(runs / f"{loss}{seed}", loss, seed, metrics={"test/mse": error})
    return runs


def test_errors_far_apart_are_compared_by_ratios_and_others_by_differences(tmp_path):
    # The large error varies so much between seeds that an interval of the difference contains 0.
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


def test_a_ratio_is_not_distinguishable_if_and_only_if_its_interval_contains_1(tmp_path):
    runs = errors(tmp_path, a=[0.1, 0.2, 0.3], b=[0.3, 0.1, 0.2], c=[9.0, 8.0, 9.0])
    for one in compare([runs], baseline="loss=a").by_metric["test/mse"].differences:
        assert (one.interval.low <= 1 <= one.interval.high) == (one.verdict == "not distinguishable")


@pytest.mark.parametrize("without", [0.0, -1.0])
def test_values_without_a_ratio_are_refused_on_request_and_compared_by_differences_by_default(tmp_path, without):
    runs = errors(tmp_path, a=[0.2, without, 0.3], b=[30, 10, 20])
    assert not compare([runs]).by_metric["test/mse"].ratios
    said = f"test/mse of loss=a seed=1 is {without:g}, and only values above 0 have ratios: compare by differences"
    with pytest.raises(LabError, match=re.escape(said)):
        compare([runs], scale="ratio")


def test_notes_tell_whether_ratios_were_requested(tmp_path):
    runs = errors(tmp_path, small=[0.010, 0.011, 0.012], large=[2.0, 16.0, 5.0])
    said = {scale: " ".join(compare([runs], scale=scale).notes) for scale in ("auto", "ratio", "difference")}
    assert "by their ratio, because the errors of groups differ more than tenfold" in said["auto"]
    assert "by their ratio, as requested." in said["ratio"]
    assert "tenfold" not in said["ratio"] + said["difference"]


def test_an_interval_of_ratios_that_overflows_is_unbounded(tmp_path):
    losses = {f"l{n}": [0.01 * 2.0**n, 0.02 * 2.0**n + n**3] for n in range(8)}
    comparison = compare([errors(tmp_path / "runs", **losses)])
    by_metric = comparison.by_metric["test/mse"]
    assert (by_metric.ratios, by_metric.family_size) == (True, 28)
    wide = [one for one in by_metric.differences if one.interval.unbounded]
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
    assert "arrow: the interval extends further" in figure.axes[1].get_xlabel()


def test_the_family_is_the_differences_from_the_baseline_or_all_pairs(tmp_path):
    accuracies(tmp_path, **CLEAR, more={0: 0.4, 1: 0.45, 2: 0.57})
    assert compare([tmp_path], baseline="loss=mid").by_metric["test/accuracy"].family_size == 3
    assert compare([tmp_path]).by_metric["test/accuracy"].family_size == 6


def test_intervals_have_the_levels_of_holms_correction(tmp_path):
    found = compared(tmp_path, baseline="loss=mid", **CLEAR)
    by_p = sorted(found.differences, key=lambda one: one.p)
    assert [one.level for one in by_p] == [0.05 / 2, 0.05]
    own, base = (list(CLEAR[one.label.removeprefix("loss=")].values()) for one in (by_p[0].group, found.reference))
    assert by_p[0].interval == paired_difference(own, base, step=found.step, level=0.025)


def test_a_difference_is_not_distinguishable_if_and_only_if_its_interval_contains_0(tmp_path):
    generator = np.random.default_rng(0)
    values = {f"l{at}": dict(enumerate((0.5 + generator.normal(size=4) / 30).tolist())) for at in range(12)}
    values |= {f"m{at}": dict(enumerate((0.7 + generator.normal(size=4) / 30).tolist())) for at in range(3)}
    found = compared(tmp_path, baseline="loss=l0", **values)
    words = {one.verdict for one in found.differences}
    assert words == {"not distinguishable", "better"}
    for one in found.differences:
        assert (one.interval.low <= 0 <= one.interval.high) == (one.verdict == "not distinguishable")


def test_only_common_seeds_are_compared_and_a_note_names_the_others(tmp_path):
    accuracies(tmp_path, a={0: 0.5, 1: 0.6, 2: 0.7, 7: 0.9}, b={0: 0.4, 1: 0.5, 2: 0.6, 3: 0.1})
    comparison = compare([tmp_path], baseline="loss=b")
    (found,) = comparison.by_metric["test/accuracy"].differences
    assert (found.pairs, found.unpaired) == (3, 2)
    assert found.mean == pytest.approx(0.1)
    assert "(3 pairs)" in comparison.table_markdown()
    assert "The differences of loss=b leave out seed 7, for which it has no result." in comparison.notes


def test_runs_are_paired_by_seed_and_not_by_position(tmp_path):
    found = compared(tmp_path, baseline="loss=b", a={1: 0.5, 2: 0.7, 3: 0.9}, b={0: 0.1, 1: 0.4, 2: 0.6})
    assert found.differences[0].mean == pytest.approx(0.1)
    assert found.differences[0].pairs == 2


def test_without_a_common_seed_there_is_no_verdict(tmp_path):
    comparison = compare([accuracies(tmp_path, a={0: 0.5, 1: 0.6}, b={2: 0.1, 3: 0.2})])
    (found,) = comparison.by_metric["test/accuracy"].differences
    assert (found.mean, found.interval, found.verdict) == (None, None, "")
    assert "no seed in common" in comparison.table_markdown()


def test_one_seed_has_a_mean_and_no_interval_and_no_verdict(tmp_path):
    comparison = compare([accuracies(tmp_path, a={0: 0.5}, b={0: 0.4})])
    table = comparison.table_markdown()
    assert "±" not in table
    assert "nan" not in table
    assert "| b | 1 | 0.4 | -0.1 | one seed in common: no verdict |" in table
    assert any(note.startswith("Each group has one seed: there are no intervals") for note in comparison.notes)


def test_a_group_with_one_seed_and_a_better_mean_has_no_verdict(tmp_path):
    comparison = compare([accuracies(tmp_path, one={0: 0.9}, two={0: 0.5, 1: 0.6})])
    said = "no difference between 2 losses in test accuracy can be tested (n = 1 to 2 seeds)"
    assert finding(comparison.by_metric["test/accuracy"]) == said
    assert "|  | highest mean of the groups with several seeds |" in comparison.table_markdown()
    assert "(1 pair)" in comparison.table_markdown()


def test_a_long_reference_that_is_not_the_first_group_is_not_called_the_first(tmp_path):
    comparison = compare([accuracies(tmp_path, one={0: 0.9}, two_with_a_long_name={0: 0.5, 1: 0.6})])
    assert "minus the reference" in comparison.table_markdown()


def test_a_baseline_without_the_metric_is_named_as_the_reason(tmp_path):
    run(tmp_path / "a", "a", metrics={"test/accuracy": 0.5, "test/f1": 0.5})
    run(tmp_path / "b", "b", metrics={"test/accuracy": 0.5})
    comparison = compare([tmp_path], metrics="test/f1", baseline="loss=b")
    assert finding(comparison.by_metric["test/f1"]) == "the baseline has no test f1"


def seeds(*values):
    return dict(enumerate(values))


LOW, MID, HIGH = seeds(0.1, 0.2, 0.3), seeds(0.41, 0.5, 0.6), seeds(0.6, 0.7, 0.801)
NOISY = seeds(0.9, 0.2, 0.9)


@pytest.mark.parametrize(
    ("baseline", "values", "said"),
    [
        (None, {"a": HIGH}, "a has test accuracy 0.70 ± 0.25 (n = 3 seeds)"),
        (None, {"a": {0: 0.5}}, "a has test accuracy 0.5 (1 seed)"),
        (None, {"a": {0: 0.5}, "b": {0: 0.6}}, "no difference between 2 losses in test accuracy can be tested (1"),
        (None, {"a": LOW, "b": HIGH}, "b is better than a by 50.03 ± 0.25 points in test accuracy (n = 3 seeds)"),
        ("a", {"a": LOW, "b": HIGH}, "b is better than a by 50.03 ± 0.25 points in test accuracy (n = 3 seeds)"),
        ("b", {"a": LOW, "b": HIGH}, "b is better than a by 50.03 ± 0.25 points in test accuracy (n = 3 seeds)"),
        ("a", {"a": LOW, "b": seeds(0.3, 0.2, 0.1)}, "no difference between b and a in test accuracy can be told from"),
        (None, {"a": LOW, "b": LOW, "c": LOW}, "no difference between 3 losses in test accuracy can be told from ch"),
        ("a", {"a": LOW, "b": LOW, "c": LOW}, "no difference of 2 other losses from a in test accuracy can be told"),
        (None, {"a": LOW, "b": MID, "c": HIGH}, "c is better than both other losses in test accuracy, than b by 19.7"),
        ("c", {"a": LOW, "b": MID, "c": HIGH}, "c is better than both other losses in test accuracy, than b by 19.7"),
        ("a", {"a": LOW, "b": MID, "c": HIGH}, "both other losses are better than a in test accuracy, c by 50.03"),
        ("b", {"a": LOW, "b": MID, "c": HIGH}, "1 of 2 other losses is better than b in test accuracy, c by 19.7"),
        (None, {"a": LOW, "b": MID, "c": NOISY}, "none of 2 other losses can be told from c, the highest mean, in"),
        (None, {"a": LOW, "b": {0: 0.41, 1: 0.5, 2: 0.6, 3: 0.7}}, "b is better than a by 30.3 ± 2.5 points in test"),
    ],
)  # fmt: skip
def test_the_finding_is_one_line_with_the_number_of_seeds(tmp_path, baseline, values, said):
    folder = accuracies(tmp_path, **values)
    comparison = compare([folder], baseline=baseline and f"loss={baseline}")
    (text,) = {finding(comparison.by_metric["test/accuracy"])}
    assert text.startswith(said)
    assert text.endswith(("(n = 3 seeds)", "(1 seed)"))


def test_the_finding_has_the_factor_by_which_an_error_is_smaller(tmp_path):
    folder = errors(tmp_path, small=[0.01, 0.011, 0.012], large=[1.0, 1.1, 1.3])
    for baseline in (None, "loss=large", "loss=small"):
        text = finding(compare([folder], baseline=baseline).by_metric["test/mse"])
        assert text == "small is better than large by a factor of 103 (91.6 to 115) in test mse (n = 3 seeds)"


def test_the_finding_names_groups_by_their_values_if_the_names_are_long(tmp_path):
    for number, value in enumerate((0.1, 0.2, 0.3)):
        for loss, rate in (("a", 1), ("a", 2), ("b", 1)):
            metrics = {"test/accuracy": value + 0.3 * (rate == 2) + 0.1 * (loss == "b") + number / 1000 * rate}
            run(tmp_path / f"{loss}{rate}{number}", loss, number, metrics=metrics, optimizer__learning_rate=rate)
    by_metric = compare([tmp_path]).by_metric["test/accuracy"]
    assert finding(by_metric).startswith("a learning_rate=2 is better than both other groups in test accuracy, than b ")
    assert finding(by_metric, 10).startswith("a 2 is better than both other groups in test accuracy, than b ")


def test_notes_explain_only_the_intervals_that_are_shown(tmp_path):
    far = errors(tmp_path / "far", small=[0.01, 0.01], large=[2.0, 16.0])
    notes = " ".join(compare([far]).notes)
    assert "“(a to b)” is Student's 95 % interval of the geometric mean" in notes
    assert "an interval of width 0" in notes
    assert "±" not in notes
    notes = " ".join(compare([far], scale="difference").notes)
    assert "± is half the width of Student's 95 % interval of the mean" in notes
    assert "geometric" not in notes


def test_equal_accuracy_differences_have_an_interval_of_one_example(tmp_path):
    found = compared(tmp_path, a={0: 0.50, 1: 0.52, 2: 0.53}, b={0: 0.51, 1: 0.53, 2: 0.54})
    assert found.step == 0.01
    assert found.differences[0].verdict == "not distinguishable"  # one example more with each of three seeds
    assert found.differences[0].interval.half_width == pytest.approx(4.302653 * 0.01 / 3**0.5)


def test_groups_with_the_same_values_are_equal(tmp_path):
    found = compared(tmp_path, a={0: 0.5, 1: 0.6}, b={0: 0.5, 1: 0.6})
    assert [one.verdict for one in found.differences] == ["equal"]


def test_a_note_names_groups_whose_values_no_seed_changes(tmp_path):
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


def test_a_missing_value_is_shown_in_the_count(tmp_path):
    accuracies(tmp_path, a={0: 0.5, 1: 0.6, 2: 0.5})
    run(tmp_path / "a3", "a", 3, metrics={"test/accuracy": float("nan"), "test/nll": 1.0})
    assert "| a | 3 of 4 |" in compare([tmp_path], metrics=["test/accuracy"]).table_markdown()


def test_default_metrics_are_those_that_all_groups_share(tmp_path):
    run(tmp_path / "a", "a", metrics={"test/accuracy": 0.5, "test/nll": 1, "val/accuracy": 1, "test/f1": 1})
    run(tmp_path / "b", "b", metrics={"test/accuracy": 0.5, "test/ece": 1, "val/accuracy": 1})
    assert compare([tmp_path]).metrics == ("test/accuracy",)


def test_without_a_test_set_validation_is_compared_with_a_warning(tmp_path):
    run(tmp_path / "a", metrics={"val/accuracy": 0.5})
    comparison = compare([tmp_path])
    assert comparison.metrics == ("val/accuracy",)
    assert any("val/accuracy: optimistic" in note for note in comparison.notes)


def test_runs_without_a_common_metric_are_refused_with_their_metrics(tmp_path):
    run(tmp_path / "a", "a", metrics={"test/accuracy": 0.5})
    run(tmp_path / "b", "b", metrics={"test/mse": 0.5})
    said = "no metric in common, compare them separately: test/accuracy in loss=a; test/mse in loss=b"
    with pytest.raises(LabError, match=said):
        compare([tmp_path])


def test_an_unknown_metric_and_the_loss_of_different_losses_are_refused(tmp_path):
    for loss in "ab":
        run(tmp_path / loss, loss, metrics={"test/accuracy": 0.5, "test/loss": 1.0})
    with pytest.raises(LabError, match=r"there is no metric test/acc; there is test/accuracy$"):
        compare([tmp_path], metrics=["test/acc"])
    with pytest.raises(LabError, match=r"there is no metric test/acc; there are test/accuracy, test/loss$"):
        compare([tmp_path / "a"], metrics=["test/acc"])
    with pytest.raises(LabError, match="test/loss means something different for each loss"):
        compare([tmp_path], metrics=["test/loss"])
    assert compare([tmp_path / "a"], metrics=["test/loss"]).metrics == ("test/loss",)


def test_notes_count_the_corrected_differences(tmp_path):
    accuracies(tmp_path / "two", a=CLEAR["low"], b=CLEAR["mid"])
    accuracies(tmp_path / "three", **CLEAR)
    for runs, baseline, said in (
        ("two", None, "One difference per metric is tested: a verdict “better” or “worse” is wrong with probability"),
        (
            "two",
            "loss=a",
            "One difference per metric is tested: a verdict “better” or “worse” is wrong with probability",
        ),
        ("three", None, "are corrected for all 3 pairs of groups in a metric, because the best"),
        ("three", "loss=low", "are corrected for all 2 differences from the baseline in a metric (Holm)"),
    ):
        notes = " ".join(compare(tmp_path / runs, baseline=baseline).notes)
        assert said in notes
        assert "all 1 " not in notes


def test_a_note_names_settings_of_the_data_that_differ(tmp_path):
    run(tmp_path / "a", data__batch_size=8)
    run(tmp_path / "b", data__batch_size=16)
    assert not any("the same examples" in note for note in compare([tmp_path]).notes)
    run(tmp_path / "c", data__noise=1)
    assert any("data.noise" in note and "the same examples" in note for note in compare([tmp_path]).notes)


def test_a_note_names_an_ignored_class(tmp_path):
    run(tmp_path / "a", loss__ignore_index=-100)
    run(tmp_path / "b")
    assert not any("the same examples" in note for note in compare([tmp_path]).notes)
    run(tmp_path / "c", loss__ignore_index=3)
    assert any("loss.ignore_index" in note and "the same examples" in note for note in compare([tmp_path]).notes)


def test_a_note_names_data_that_differ_only_in_their_class(tmp_path):
    run(tmp_path / "a")
    run(tmp_path / "b", data___target_="mine.Digits")
    assert any(note.startswith("Groups differ in data: ") for note in compare([tmp_path]).notes)

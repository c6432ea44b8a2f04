"""The race: which rows are compared, what is decided about each, and which seeds come next."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from losslab.errors import LabError
from losslab.study.race import Race, Row, Scale
from losslab.study.sequential import look_sizes
from losslab.study.test_items import PLAIN

NOISE = (0.0, 0.004, -0.002, 0.001, -0.003, 0.002, -0.001, 0.003, -0.004, 0.0)


def race(*groups, metric="accuracy", margin=None, reference=0, max_seeds=20, first_seeds=5):
    """Return a race of groups, each given by its values with the seeds 0, 1, 2, ..."""
    rows = [Row(f"g{index}", dict(enumerate(values)), group=index) for index, values in enumerate(groups)]
    return Race(Scale.of(metric, margin), rows, reference, first_seeds, max_seeds)


def around(mean, count=5, noise=NOISE):
    return [mean + noise[(seed * 3) % len(noise)] for seed in range(count)]


def found(race_):
    return {outcome.row.label: outcome for outcome in race_.outcomes()}


def words(race_):
    return {label: outcome.verdict for label, outcome in found(race_).items()}


# Scales


def test_shares_are_compared_by_differences_and_errors_by_ratios():
    assert Scale.of("accuracy", None) == Scale("accuracy", higher_is_better=True, by_ratio=False, margin=0.005)
    assert Scale.of("ece", None) == Scale("ece", higher_is_better=False, by_ratio=False, margin=0.005)
    assert Scale.of("nll", None) == Scale("nll", higher_is_better=False, by_ratio=True, margin=0.05)
    assert Scale.of("mse", 0.2).margin == 0.2


def test_a_ratio_and_its_inverse_are_equally_far_from_the_margin():
    scale = Scale.of("mse", 0.25)
    assert scale.transform(1.25, "") == pytest.approx(scale.tested_margin)
    assert scale.transform(1 / 1.25, "") == pytest.approx(-scale.tested_margin)


def test_the_direction_of_a_metric_must_be_known():
    with pytest.raises(LabError, match=r"whether higher or lower values of zap are better is not known.*study\.metric"):
        Scale.of("zap", None)


@pytest.mark.parametrize("value", [0.0, -0.5])
def test_errors_that_are_not_above_0_have_no_ratio(value):
    with pytest.raises(LabError, match=rf"mse of g1 is {value:g}, and only errors above 0 .*study\.metric") as caught:
        race([1.0] * 5, [value] * 5, metric="mse").verdicts()
    assert "\n" not in str(caught.value)


# Decisions


def test_the_interval_and_the_verdicts_are_those_of_the_paired_differences():
    wave = [0.1 * (seed % 3) for seed in range(5)]  # the effect of the seed, which is the same for all groups
    groups = [[w + x for w, x in zip(wave, around(mean), strict=True)] for mean in (0.5, 0.55, 0.45, 0.501)]
    outcomes = found(race(*groups))
    assert {label: each.verdict for label, each in outcomes.items()} == {
        "g0": "reference", "g1": "better", "g2": "worse", "g3": "equivalent"
    }  # fmt: skip
    better = outcomes["g1"].difference
    assert better.mean == pytest.approx(0.05)
    assert outcomes["g1"].pairs == 5


def test_outcomes_are_ordered_by_the_differences_not_by_means_over_other_seeds():
    """The group that was worse after 5 seeds has no values with the later seeds, which are bad ones for all."""
    reference = [0.90, 0.91, 0.92, 0.91, 0.90, *[0.5] * 5]
    worse = [0.85, 0.86, 0.87, 0.86, 0.85]
    undecided = [value + change for value, change in zip(reference, [0.01, -0.02] * 5, strict=True)]
    outcomes = race(reference, worse, undecided).outcomes()
    assert [(each.row.label, each.verdict) for each in outcomes] == [
        ("g0", "reference"), ("g2", "undecided"), ("g1", "worse")
    ]  # fmt: skip
    assert outcomes[2].estimate.mean > outcomes[0].estimate.mean


def test_lower_errors_are_better_and_their_difference_is_a_ratio():
    base = [1.0, 1.1, 0.9, 1.05, 1.0]
    outcomes = found(race(base, [0.5 * value for value in base], [1.01 * value for value in base], metric="mse"))
    assert outcomes["g1"].verdict == "better"
    assert outcomes["g1"].difference.mean == pytest.approx(0.5)
    assert outcomes["g2"].verdict == "equivalent"


def test_a_huge_ratio_has_an_interval_to_infinity():
    outcome = found(race([1e-300, 1.0], [1.0, 1e-300], metric="mse", first_seeds=2))["g1"]
    assert outcome.verdict == "undecided"
    assert outcome.difference.high == math.inf
    assert outcome.difference.low == 0


def test_equal_values_are_equivalent_and_equal_accuracies_need_more_than_their_step():
    values = [0.5, 0.75, 0.5, 0.75, 0.5]
    assert words(race(values, values, metric="mse"))["g1"] == "equivalent"
    # with 4 test examples, the values may be equal by chance
    assert words(race(values, values))["g1"] == "undecided"
    tenth = [0.5, 0.4999, 0.5, 0.4999, 0.5]
    assert words(race(tenth, tenth))["g1"] == "equivalent"


def test_the_step_of_accuracies_is_that_of_one_test_example():
    values = [[count / 360 for count in each] for each in ((340, 341, 345, 340, 341), (350, 347, 341, 341, 340))]
    assert race(*values).step == pytest.approx(1 / 360)
    assert race(*values, metric="f1").step == 0
    later = race(*values)
    later.rows[0].add(5, 1234 / 3600, {})
    assert later.step == pytest.approx(1 / 1800)


def test_a_value_that_is_not_finite_counts_as_diverged():
    for value in (math.nan, math.inf):
        raced = race(around(0.5), around(0.9), around(0.6))
        raced.rows[1].add(5, value, {})
        assert words(raced) == {"g0": "reference", "g2": "better", "g1": "diverged"}
        assert raced.outcomes()[-1].row.label == "g1"


def test_a_diverged_group_is_not_compared_and_not_corrected_for():
    raced = race(around(0.5), around(0.51), [0.5])
    raced.rows[2].diverged.append(1)
    assert [row.label for row in raced.compared()] == ["g1"]
    assert raced.verdicts()["g1"].levels == (0.05, 0.05)
    assert words(raced)["g2"] == "diverged"


def test_all_groups_may_diverge_but_the_reference():
    raced = race(around(0.5), [])
    raced.rows[1].diverged.append(0)
    assert words(raced) == {"g0": "reference", "g1": "diverged"}
    assert raced.next_seeds() == {}


# Methods after training


def with_method(raced, group, name, values):
    for seed, value in values.items():
        metrics = {name: {raced.scale.metric: value}}
        raced.add_items(group, seed, SimpleNamespace(metrics=metrics, scores={}, checksum=0))
    return raced.rows[-1]


def test_a_method_after_training_is_a_row_of_its_own():
    raced = race(around(0.5), around(0.503, noise=NOISE[::-1]))
    row = with_method(raced, 0, "temperature", dict(enumerate(around(0.6))))
    assert row.label == "g0 + temperature"
    assert words(raced) == {"g0 + temperature": "better", "g0": "reference", "g1": "undecided"}
    assert raced.verdicts()["g1"].levels.difference == 0.05  # Holm: the other of two is decided


def test_a_method_that_changes_nothing_is_not_compared():
    raced = race(around(0.5), around(0.503, noise=NOISE[::-1]))
    with_method(raced, 1, "temperature", raced.rows[1].values)
    assert words(raced)["g1 + temperature"] == "same runs"
    assert raced.verdicts()["g1"].levels == (0.05, 0.05)


def test_a_method_of_a_diverged_group_is_out_too():
    raced = race(around(0.5), around(0.6))
    with_method(raced, 1, "temperature", dict(enumerate(around(0.503, noise=NOISE[::-1]))))
    raced.rows[1].diverged.append(5)
    assert raced.compared() == []
    assert words(raced) == {"g0": "reference", "g1": "diverged", "g1 + temperature": "diverged"}
    assert raced.next_seeds() == {}


def test_a_run_to_which_a_method_is_not_fitted_counts_as_it_is():
    raced = race(around(0.5, 20), around(0.9, 20))
    row = with_method(raced, 0, "temperature", {0: 0.6, 3: 0.603})
    assert row.values == raced.rows[0].values | {0: 0.6, 3: 0.603}
    raced.rows[0].add(20, 0.4, {"accuracy": 0.4, "nll": 2.0})
    raced.add_items(0, 20, SimpleNamespace(metrics={}, scores={PLAIN: np.ones(3)}, checksum=0))
    assert (row.values[20], row.others[20], row.items[20].tolist()) == (0.4, {"accuracy": 0.4, "nll": 2.0}, [1, 1, 1])
    assert found(raced)["g0 + temperature"].pairs == 20


def test_the_decision_about_a_group_stands_while_its_method_goes_on():
    noise = [0.02, -0.02, 0.01, -0.01, 0.0]
    raced = race(around(0.5, 20), around(0.6, 5))
    with_method(raced, 1, "temperature", {seed: 0.5 + noise[seed] for seed in range(5)})
    assert words(raced)["g1"] == "better"
    before = found(raced)["g1"]
    assert raced.next_seeds() == {1: [5, 6, 7, 8, 9]}
    for seed in range(5, 20):
        raced.rows[1].add(seed, 0.3, {})
        with_method(raced, 1, "temperature", {seed: 0.5 + noise[seed % 5]})
    after = found(raced)["g1"]
    assert (after.verdict, after.pairs) == ("better", 5)
    assert after.difference == pytest.approx(before.difference, rel=0.02)


# Rounds


def test_the_reference_and_undecided_groups_get_seeds():
    raced = race(around(0.5), around(0.503, noise=NOISE[::-1]), around(0.9))
    assert words(raced) == {"g2": "better", "g1": "undecided", "g0": "reference"}
    assert raced.next_seeds() == {0: [5, 6, 7, 8, 9], 1: [5, 6, 7, 8, 9]}


def test_the_race_ends_when_all_is_decided_or_after_the_last_look():
    assert race(around(0.5), around(0.9)).next_seeds() == {}
    values = around(0.5, 20), around(0.503, 20, noise=NOISE[::-1])
    assert race(*values).next_seeds() == {}
    assert race(*values, max_seeds=24).next_seeds() == {}
    assert race(*values, max_seeds=25).next_seeds() == {0: [*range(20, 25)], 1: [*range(20, 25)]}


def test_a_new_reference_and_a_late_group_catch_up_first():
    """The reference has changed, or a loss was added, so that the rows have different numbers of seeds."""
    ahead = around(0.503, 15, noise=NOISE[::-1])
    assert race(around(0.5, 5), ahead).next_seeds() == {0: [5, 6, 7, 8, 9]}
    assert race(around(0.5, 10), ahead).next_seeds() == {0: [10, 11, 12, 13, 14]}
    assert race(around(0.5, 15), ahead, around(0.502, 5, noise=NOISE[2:])).next_seeds() == {2: [5, 6, 7, 8, 9]}


def test_a_race_ends_whatever_is_missing():
    rng = np.random.default_rng(0)
    for _ in range(30):
        groups = [rng.normal(0.5, 0.01, int(rng.integers(0, 12))).tolist() for _ in range(4)]
        raced = race(*groups, max_seeds=45)
        with_method(raced, 1, "temperature", {seed: float(rng.normal(0.5, 0.01)) for seed in (0, 2, 3)})
        rounds = 0
        while seeds := raced.next_seeds():
            assert all(seeds.values())
            rounds += 1
            for group, each in seeds.items():
                for seed in each:
                    raced.rows[group].add(seed, float(rng.normal(0.5, 0.01)), {})
        assert rounds <= len(look_sizes(45)) * 4
        raced.outcomes()


def test_an_undecided_row_tells_how_many_more_seeds_are_needed():
    outcome = found(race(around(0.5), around(0.503, noise=NOISE[::-1])))["g1"]
    assert outcome.verdict == "undecided"
    assert outcome.seeds_needed in {size - 5 for size in look_sizes(1000)}


# Simulated races: the same numbers in each run of the test


def decisions(means, studies, margin, deviation, common=1.0):
    """Run races whose values are normal, and return the verdicts of each."""
    rng = np.random.default_rng(1)
    for _ in range(studies):
        shared = common * deviation * rng.standard_normal(20)
        values = np.array(means)[:, None] + shared + deviation * rng.standard_normal((len(means), 20)) / 2**0.5
        raced = race(*([] for _ in means), metric="f1", margin=margin)
        seeds = dict.fromkeys(range(len(means)), range(5))
        while seeds:
            for group, each in seeds.items():
                for seed in each:
                    raced.rows[group].add(seed, float(values[group, seed]), {})
            seeds = raced.next_seeds()
        yield {label: verdict.decision for label, verdict in raced.verdicts().items()}


def test_races_of_equal_groups_rarely_call_one_better_or_worse():
    studies = list(decisions([0.5] * 8, 150, margin=1e-6, deviation=0.01))
    wrong = sum(bool({"better", "worse"} & set(each.values())) for each in studies)
    assert wrong <= 0.05 * len(studies)


def test_races_rarely_call_groups_equivalent_that_differ_by_the_margin():
    studies = list(decisions([0.5, *[0.51, 0.49] * 3], 150, margin=0.01, deviation=0.004))
    wrong = sum("equivalent" in each.values() for each in studies)
    assert wrong <= 0.05 * len(studies)


def test_races_of_equal_groups_that_are_less_noisy_than_the_margin_end_equivalent_with_few_seeds():
    studies = list(decisions([0.5] * 3, 40, margin=0.01, deviation=0.002))
    assert all(set(each.values()) == {"equivalent"} for each in studies)


def test_a_paired_test_of_one_round_is_that_of_scipy():
    own, other = around(0.5), around(0.507, noise=NOISE[::-1])
    p = stats.ttest_rel(own, other).pvalue
    assert (p <= 0.0125) == (words(race(own, other, margin=1e-6))["g1"] != "undecided")

"""The figures of a study, by what they draw: the race, the tuning, and one learning rate for all."""

from dataclasses import replace
from math import exp, inf, isnan

import numpy as np
import pytest

from losslab.io.figures import encode_png, loss_colour
from losslab.study.answer import FIGURES, Answer, write_answer
from losslab.study.figures import draw_race, race_finding
from losslab.study.race import Race, Row, Scale
from losslab.study.sequential import Interval
from losslab.study.settings import Group, Settings
from losslab.study.tuning import TrialResult, Tuning
from losslab.study.tuning_figures import at_one_rate, draw_one_rate, draw_tuning, one_rate_finding, tuning_finding

RATES = (0.001, 0.01, 0.1, 1.0)
NOISE = (0.0, 0.002, -0.002, 0.001, -0.001)
NOISY = (0.0, 0.03, -0.03, 0.01, -0.01)


def grid(*means, key="optimizer.lr"):
    """Trials of three seeds, whose mean is given; None for a trial of which one seed diverged."""
    trials = [{key: rate} for rate in RATES[: len(means)]]
    return [
        TrialResult(trial, (0.5, None, 0.5) if mean is None else (mean - 0.01, mean, mean + 0.01))
        for trial, mean in zip(trials, means, strict=True)
    ]


def make_answer(groups, *, metric="accuracy", trials=None, is_grid=True, items=(), noise=NOISE, reference=0):
    """Make an answer from the mean of each group on the test data, by label. The noise of a pair differs."""
    scale = Scale.of(metric, None)
    rows = [Row(label, group=index) for index, label in enumerate(groups)]
    for row, mean in zip(rows, groups.values(), strict=True):
        for seed in range(len(noise)):
            change = noise[seed] if row.group == reference else noise[(seed - row.group) % len(noise)]
            value = mean * exp(change) if scale.by_ratio else mean + change
            row.add(seed, value, {metric: value})
            if items:
                row.items[seed] = np.array(items[row.group], dtype=float)
    race = Race(scale, rows, reference, 5, 20)
    race.checksums = {1}
    trials = trials or {label: grid(0.5, 0.9, 0.8) for label in groups}
    tunings = [
        Tuning(Group((f"loss={label.split()[0]}",), label), tuple(trials[label]), is_grid, scale.higher_is_better)
        for label in groups
    ]
    return Answer(Settings(), tunings, race, {"data": "digits"}, {}, ["loss=mse"])


def lines(axes, marker=None, style=None):
    """The lines of an axes with this marker or line style, as (x, y)."""
    found = [
        line for line in axes.lines if marker in (None, line.get_marker()) and style in (None, line.get_linestyle())
    ]
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in found]


def row_labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def verdicts(figure):
    """The texts at the right of the second panel, from top to bottom."""
    texts = [text for text in figure.axes[1].texts if text.xy[0] == 1 and text.anncoords == "offset points"]
    return [text.get_text().replace("\n", " ") for text in sorted(texts, key=lambda text: text.xy[1])]


# The race


def test_the_race_shows_means_with_intervals_and_every_seed_the_best_row_first():
    answer = make_answer({"cross_entropy": 0.9, "mse": 0.95, "focal": 0.8})
    left = draw_race(answer).axes[0]
    assert row_labels(left) == ["mse", "cross_entropy", "focal"]
    for y, outcome in enumerate(answer.outcomes):
        assert ([100 * outcome.estimate.mean], [y]) in lines(left, "D")
        ends = [100 * outcome.estimate.low, 100 * outcome.estimate.high]
        assert any(x == pytest.approx(ends) for x, heights in lines(left, "None") if heights == [y, y])
        (seeds,) = [x for x, heights in lines(left, "o") if heights[0] == y + 0.25]
        assert sorted(seeds) == pytest.approx(sorted(100 * value for value in outcome.row.values.values()))


def test_the_race_shows_differences_with_both_intervals_the_zone_of_equivalence_and_verdicts():
    items = [[1] * 80 + [0] * 20, [1] * 90 + [0] * 10, [0] * 20 + [1] * 80]
    answer = make_answer({"cross_entropy": 0.9, "mse": 0.92, "focal": 0.9005}, items=items)
    figure = draw_race(answer)
    right = figure.axes[1]
    by_label = {outcome.row.label: (y, outcome) for y, outcome in enumerate(answer.outcomes)}
    for label in ("mse", "focal"):
        y, outcome = by_label[label]
        assert ([100 * outcome.difference.mean], [y]) in lines(right, "D")
        (over_seeds,) = [x for x, heights in lines(right, "None", "-") if heights == [y, y]]
        assert over_seeds == pytest.approx([100 * outcome.difference.low, 100 * outcome.difference.high])
        (over_items,) = [x for x, heights in lines(right, "None", ":") if heights == [y + 0.25] * 2]
        assert over_items == pytest.approx([100 * outcome.items.low, 100 * outcome.items.high])
    assert not [y for _, (y, *_) in lines(right, "D") if y == by_label["cross_entropy"][0]]
    zone = right.patches[0]
    assert (zone.get_x(), zone.get_x() + zone.get_width()) == pytest.approx((-0.5, 0.5))
    assert verdicts(figure) == [answer.verdict(outcome) for outcome in answer.outcomes]
    assert {"better", "reference"} < set(verdicts(figure))
    assert "95 % interval over test examples" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_an_undecided_row_says_how_many_more_seeds_it_would_need():
    figure = draw_race(make_answer({"cross_entropy": 0.9, "mse": 0.905}, noise=NOISY))
    undecided = next(text for text in verdicts(figure) if text != "reference")
    assert undecided.startswith("undecided: about ")
    assert undecided.endswith(" more seeds")


def test_a_row_far_off_is_an_arrow_with_its_value_and_the_others_stay_readable():
    figure = draw_race(make_answer({"cross_entropy": 0.97, "mse": 0.965, "focal": 0.968, "mae": 0.2}))
    for axes, text in zip(figure.axes, ("20.0 %", "-77.0"), strict=True):
        low, high = axes.get_xlim()
        assert high - low < 5
        assert ([low], [3]) in lines(axes, "<")
        assert text in [each.get_text() for each in axes.texts]
        assert len(lines(axes, ">")) == 0


def test_a_collapsed_seed_is_an_arrow():
    answer = make_answer({"cross_entropy": 0.97, "mse": 0.965, "focal": 0.968})
    answer.race.rows[2].values[3] = 0.1
    left = draw_race(answer).axes[0]
    y = row_labels(left).index("focal")
    assert ([left.get_xlim()[0]], [y + 0.25]) in lines(left, "<")
    assert [len(x) for x, heights in lines(left, "o") if heights[:1] == [y + 0.25]] == [4]


def test_an_interval_of_a_ratio_without_bounds_has_arrows_on_both_sides():
    answer = make_answer({"mse": 0.1, "l1": 0.12, "huber": 0.101}, metric="mse")
    unbounded = replace(answer.outcomes[2], difference=Interval(1.2, 0.0, inf))
    answer.outcomes[2] = unbounded
    right = draw_race(answer).axes[1]
    low, high = right.get_xlim()
    assert ([low], [2]) in lines(right, "<")
    assert ([high], [2]) in lines(right, ">")
    assert ([low, high], [2, 2]) in lines(right, "None")
    assert ([1.2], [2]) in lines(right, "D")


def test_two_rows_are_never_far_off():
    left, right = draw_race(make_answer({"cross_entropy": 0.97, "mae": 0.2})).axes
    assert left.get_xlim()[0] < 20
    assert right.get_xlim()[0] < -77


def test_errors_are_compared_by_ratios_on_logarithmic_axes():
    answer = make_answer({"mse": 0.1, "l1": 0.12, "huber": 0.101}, metric="mse")
    left, right = draw_race(answer).axes
    assert left.get_xscale() == right.get_xscale() == "log"
    zone = right.patches[0]
    assert (zone.get_x(), zone.get_x() + zone.get_width()) == pytest.approx((1 / 1.05, 1.05))
    assert [answer.outcomes[2].difference.mean] in [x for x, _ in lines(right, "D")]
    assert "×1" in [label.get_text() for label in right.get_xticklabels()]
    assert "as a multiple of mse" in right.get_xlabel()


def test_a_group_that_diverged_has_seeds_but_no_mean():
    answer = make_answer({"cross_entropy": 0.97, "mse": 0.965, "mae": 0.96})
    answer.race.rows[1].diverged.append(7)
    answer.race.rows[2].diverged.append(10_000)
    answer.race.rows[2].values.clear()
    figure = draw_race(answer)
    left, right = figure.axes
    assert row_labels(left) == ["cross_entropy", "mse", "mae"]
    assert [y for _, y in lines(left, "D")] == [[0]]
    assert not lines(right, "D")
    assert [len(x) for x, _ in lines(left, "o")] == [5, 5, 0]
    assert verdicts(figure)[1:] == ["diverged", "diverged"]


def test_methods_after_training_are_hollow_and_have_the_colour_of_their_loss():
    answer = make_answer({"cross_entropy": 0.9, "mse": 0.95})
    row = answer.race.posthoc_row(0, "logit_adjustment")
    for seed, value in answer.race.rows[0].values.items():
        row.add(seed, value + 0.001 * seed, {})
    left = draw_race(answer).axes[0]
    diamonds = {line.get_ydata()[0]: line for line in left.lines if line.get_marker() == "D"}
    hollow = diamonds[row_labels(left).index("cross_entropy + logit\nadjustment")]
    assert hollow.get_markerfacecolor() == "white"
    assert hollow.get_color() == loss_colour("cross_entropy")
    assert diamonds[row_labels(left).index("mse")].get_markerfacecolor() == loss_colour("mse")


@pytest.mark.parametrize(
    ("means", "finding"),
    [
        ({"a": 0.9, "b": 0.95}, "b is better than a by 5.00 points"),
        ({"a": 0.9, "b": 0.95, "c": 0.94}, "b and c are better than a"),
        ({"a": 0.9, "b": 0.95, "c": 0.94, "d": 0.8}, "b and c are better than a; 1 worse"),
        ({"a": 0.9, "b": 0.95, "c": 0.94, "d": 0.93, "e": 0.8}, "3 of 4 are better than a; 1 worse"),
        ({"a": 0.9, "b": 0.8, "c": 0.7}, "b and c are worse than a"),
        ({"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6}, "All 3 are worse than a"),
        ({"a": 0.9, "x" * 40: 0.8, "y" * 40: 0.7}, "Both are worse than a"),
        ({"a": 0.9, "b": 0.8, "c": None}, "None of 2 is shown to be better than a: 1 worse, 1 diverged"),
        ({"a": 0.9, "b": None}, "b diverged"),
    ],
)  # fmt: skip
def test_the_title_of_the_race_says_what_was_found(means, finding):
    answer = make_answer({label: mean or 0.5 for label, mean in means.items()})
    for row, mean in zip(answer.race.rows, means.values(), strict=True):
        if mean is None:
            row.diverged.append(0)
    assert race_finding(answer) == finding
    assert draw_race(answer).get_suptitle() == finding


def test_the_title_of_the_race_does_not_call_undecided_groups_equal():
    answer = make_answer({"a": 0.9, "b": 0.905, "c": 0.89}, noise=NOISY)
    assert race_finding(answer) == "b and c are undecided against a"


# The tuning


def test_a_curve_shows_the_metric_over_the_learning_rate_with_the_best_rate_and_the_good_range():
    trials = {"mse": grid(0.88, 0.9, 0.897, 0.7), "focal": grid(0.6, 0.8, 0.91, None)}
    answer = make_answer({"mse": 0.9, "focal": 0.91}, trials=trials)
    top, bottom = draw_tuning(answer).axes
    assert bottom.get_xscale() == "log"
    assert row_labels(bottom) == ["focal", "mse"]
    curves = [y for x, y in lines(top, "None") if x == list(RATES)]
    assert curves[0][:3] == pytest.approx([60, 80, 91])
    assert isnan(curves[0][3])
    assert curves[1] == pytest.approx([88, 90, 89.7, 70])
    assert [x for x, _ in lines(top, "D")] == [[0.1], [0.01]]
    bars = {
        y[0]: x for line in bottom.lines if line.get_linewidth() > 5 for x, y in [(line.get_xdata(), line.get_ydata())]
    }
    assert list(bars[0]) == [0.1, 0.1]
    assert list(bars[1]) == [0.01, 0.1]
    assert [(x, y) for x, y in lines(bottom, "x") if x] == [([1.0], [0])]
    assert [text.get_text() for text in bottom.texts] == ["91.0 %", "90.0 %"]
    seeds = [y for x, y in lines(top, "o") if x == [0.01] * 3]
    assert seeds[0] == pytest.approx([79, 80, 81])


def test_a_loss_has_its_colour_in_all_figures():
    answer = make_answer({"cross_entropy": 0.9, "mse": 0.91})
    for name, draw in FIGURES.items():
        axes = draw(answer).axes[0]
        colours = [line.get_color() for line in axes.lines if line.get_marker() == "D"]
        assert sorted(colours) == sorted(map(loss_colour, ("cross_entropy", "mse"))), name
    several = draw_tuning(make_answer({"focal gamma=1": 0.9, "focal gamma=2": 0.91})).axes[0]
    assert len({line.get_color() for line in several.lines}) == 2


def test_curves_that_are_much_worse_leave_the_figure():
    trials = {name: grid(0.90, 0.97 - index / 100, 0.1) for index, name in enumerate(("mse", "focal", "gce"))}
    trials["mae"] = grid(0.1, 0.2, 0.1)
    figure = draw_tuning(make_answer(dict.fromkeys(trials, 0.9), trials=trials))
    low, high = figure.axes[0].get_ylim()
    assert 80 < low < 90
    assert high < 100
    assert row_labels(figure.axes[1])[-1] == "mae"
    assert figure.axes[1].texts[-1].get_text() == "20.0 %"


def test_a_group_with_much_larger_errors_stays_in_the_figure_if_the_others_differ_as_well():
    trials = {name: grid(0.9, best, 0.9) for name, best in {"a": 0.024, "b": 0.051, "c": 0.076, "d": 0.23}.items()}
    top = draw_tuning(make_answer(dict.fromkeys(trials, 0.9), metric="mse", trials=trials)).axes[0]
    low, high = top.get_ylim()
    assert all(low < y[0] < high for _, y in lines(top, "D"))
    assert top.get_yscale() == "log"


def test_more_than_ten_groups_are_a_heat_map():
    trials = {f"loss{index}": grid(0.5, 0.95 - index / 1000, 0.949 - index / 1000) for index in range(11)}
    trials["loss10"] = grid(0.9, None)
    axes, bar = draw_tuning(make_answer(dict.fromkeys(trials, 0.9), trials=trials)).axes
    rows = [mesh.get_array()[0] for mesh in axes.collections]
    assert len(rows) == 11
    assert rows[3].tolist() == pytest.approx([50, 94.7, 94.6])
    assert rows[10].mask.tolist() == [False, True]
    assert {"0.001", "0.01", "0.1"} <= {label.get_text() for label in axes.get_xticklabels()}
    assert row_labels(axes)[10] == "loss10"
    assert ([0.01], [3]) in lines(axes, "D")
    assert lines(axes, "x")[-1] == ([0.01], [10])
    frames = {round(patch.get_y() + 0.42): (patch.get_x(), patch.get_width()) for patch in axes.patches}
    low, high = 0.01 / 10**0.5, 0.1 * 10**0.5
    assert frames[3] == pytest.approx((low, high - low))
    assert frames[10] == pytest.approx((0.001 / 10**0.5, low - 0.001 / 10**0.5))
    assert "val accuracy, %" in bar.get_xlabel()


def test_groups_with_several_parameters_have_panels_of_the_first_parameter():
    both = [{"optimizer.lr": 10.0**-power, "optimizer.weight_decay": 0.1 * power} for power in (3, 1, 2)]
    trials = {"mse": [TrialResult(trial, (0.8, 0.9)) for trial in both], "mae": [TrialResult({}, (0.7, 0.8))]}
    trials["mse"][1] = TrialResult(both[1], (0.95, None))
    figure = draw_tuning(make_answer(dict.fromkeys(trials, 0.9), trials=trials, is_grid=False))
    mse, mae, unused = figure.axes
    assert (mse.get_title(loc="left"), mse.get_xlabel()) == ("mse", "learning rate")
    assert lines(mse, "_")[0][0] == [0.001, 0.1, 0.01]
    assert lines(mse, "x")[0][0] == [0.1]
    assert lines(mse, "D") == [([0.001], [pytest.approx(85)])]
    assert mae.get_xlabel() == "nothing tuned"
    assert not unused.axison
    assert figure.get_suptitle() == "mse has the best of 3 trials a group, 85.0 % (2 seeds)"


def test_the_title_of_the_tuning_compares_the_best_rates():
    apart = {"mse": grid(0.9, 0.8, 0.7, 0.6), "focal": grid(0.6, 0.7, 0.8, 0.9), "gce": grid(0.6, 0.7, 0.8, 0.7)}
    text = tuning_finding(make_answer(dict.fromkeys(apart, 0.9), trials=apart))
    assert text == "The best learning rates differ by a factor of 1000: mse 0.001, focal 1 (3 seeds)"
    same = {"mse": grid(0.6, 0.7), "focal": grid(0.6, 0.9)}
    text = tuning_finding(make_answer(dict.fromkeys(same, 0.9), trials=same))
    assert text == "All groups have the same best learning rate, 0.01 (3 seeds)"
    same["gce"] = grid(None, None)
    text = tuning_finding(make_answer(dict.fromkeys(same, 0.9), trials=same))
    assert text == "2 of 3 groups have the same best learning rate, 0.01 (3 seeds)"


# One learning rate for all


def test_one_rate_shows_each_group_at_its_own_best_rate_and_at_that_of_the_reference():
    trials = {"cross_entropy": grid(0.5, 0.7, 0.95), "mse": grid(0.7, 0.94, 0.8), "gce": grid(0.9, 0.9, None)}
    figure = draw_one_rate(make_answer(dict.fromkeys(trials, 0.9), trials=trials))
    axes = figure.axes[0]
    assert row_labels(axes) == ["cross_entropy", "mse", "gce"]
    assert [x[0] for x, _ in lines(axes, "D")] == pytest.approx([95, 94, 90])
    circles = [x[0] for x, _ in lines(axes, "o")]
    assert circles[:2] == pytest.approx([95, 80])
    assert isnan(circles[2])
    assert [y for _, y in lines(axes, "x")] == [[2]]
    assert any(x == pytest.approx([80, 94]) for x, y in lines(axes, "None") if y == [1, 1])
    assert "at 0.1 for all" in [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize(
    ("mse", "finding"),
    [
        ((0.7, 0.942, 0.79), "At 0.1 for all, b seems 16.0 points worse than a; at its own, 0.8 points"),
        ((0.7, 0.96, 0.79), "At 0.1 for all, b seems 16.0 points worse than a; at its own, 1.0 points better"),
        ((0.7, 0.95, 0.79), "At 0.1 for all, b seems 16.0 points worse than a; at its own, equal"),
        ((0.7, 0.942, None), "At 0.1 for all, b diverges; at its own, 0.8 points worse than a"),
        ((0.7, 0.944, 0.94), "One rate, 0.1, suits all: none is more than 0.5 points worse there"),
    ],
)
def test_the_title_of_one_rate_says_what_it_would_have_said(mse, finding):
    answer = make_answer({"a": 0.9, "b": 0.9}, trials={"a": grid(0.5, 0.7, 0.95), "b": grid(*mse)})
    assert one_rate_finding(answer) == finding
    assert draw_one_rate(answer).get_suptitle() == finding


def test_the_title_of_one_rate_is_not_about_a_group_that_is_far_off_at_any_rate():
    trials = {"a": grid(0.5, 0.7, 0.95), "b": grid(0.7, 0.94, 0.9), "c": grid(0.3, 0.1, 0.1)}
    answer = make_answer(dict.fromkeys(trials, 0.9), trials=trials)
    assert one_rate_finding(answer) == "At 0.1 for all, b seems 5.0 points worse than a; at its own, 1.0 points"
    axes = draw_one_rate(answer).axes[0]
    assert axes.get_xlim()[0] > 80
    assert "30.0 %" in [text.get_text() for text in axes.texts]


def test_the_rate_for_all_is_below_one_at_which_the_race_diverged():
    trials = {"a": grid(0.5, 0.7, 0.95, 0.9), "b": grid(0.6, 0.7, 0.8, 0.9)}
    answer = make_answer(dict.fromkeys(trials, 0.9), trials=trials)
    changed = replace(answer, tunings=[answer.tunings[0].without_best(), answer.tunings[1]])
    assert (at_one_rate(answer)[0], at_one_rate(changed)[0]) == (0.1, 0.01)


def test_the_differences_of_few_groups_are_inside_the_figure():
    answer = make_answer({"a": 0.9, "a + temperature": 0.9, "b": 0.8}, items=[(0.9, 0.8)] * 3)
    answer.race.rows[1].group, answer.race.rows[1].method = 0, "temperature"
    answer.race.rows[1].values = dict(answer.race.rows[0].values)
    right = draw_race(answer).axes[1]
    assert right.get_xlim()[0] < -9


def test_a_value_at_one_rate_outside_the_figure_is_written_beside_its_arrow():
    trials = {"a": grid(0.5, 0.95), "b": grid(0.945, 0.7), "c": grid(0.75, 0.3), "d": grid(0.2, None)}
    axes = draw_one_rate(make_answer(dict.fromkeys(trials, 0.9), trials=trials)).axes[0]
    assert [text.get_text() for text in axes.texts] == ["30.0 %", "20.0 %, diverged"]
    assert lines(axes, "x") == []


def test_one_rate_is_the_best_of_the_reference_that_all_groups_have():
    def trials(*means):
        rates = (0.01, 0.1, *(rate for rate, _ in means))
        values = (0.8, 0.85, *(mean for _, mean in means))
        results = [TrialResult({"optimizer.lr": rate}, (value,)) for rate, value in zip(rates, values, strict=True)]
        return sorted(results, key=lambda result: result.trial["optimizer.lr"])

    tried = {"a": trials((0.18, 0.9), (0.056, 0.8)), "b": trials((0.018, 0.87), (0.0056, 0.1))}
    answer = make_answer(dict.fromkeys(tried, 0.9), trials=tried)
    assert one_rate_finding(answer) == "At 0.1 for all, b seems equal to a; at its own, 3.0 points worse"
    axes = draw_one_rate(answer).axes[0]
    assert [x[0] for x, _ in lines(axes, "D")] == pytest.approx([90, 87])
    assert [x[0] for x, _ in lines(axes, "o")] == pytest.approx([85, 85])


def test_of_many_groups_one_rate_shows_those_that_change_most():
    trials = {f"loss{index}": grid(0.9, 0.9 - index / 500) for index in range(40)}
    answer = make_answer(dict.fromkeys(trials, 0.9), trials=trials, reference=1)
    answer.tunings[1] = Tuning(answer.tunings[1].group, tuple(grid(0.8, 0.9)), is_grid=True, higher_is_better=True)
    axes = draw_one_rate(answer).axes[0]
    assert row_labels(axes) == ["loss1", *(f"loss{index}" for index in range(29, 40))]
    assert "the 12 of 40 groups that change most" in axes.get_xlabel()


def test_one_rate_does_not_apply_without_a_grid_or_common_rates():
    groups = {"mse": 0.9, "focal": 0.9}
    assert draw_one_rate(make_answer(groups)) is not None
    assert draw_one_rate(make_answer(groups, is_grid=False)) is None
    other = [TrialResult({"optimizer.lr": 0.5}, (0.9, 0.9))]
    assert draw_one_rate(make_answer(groups, trials={"mse": grid(0.5, 0.9), "focal": other})) is None
    assert draw_one_rate(make_answer(groups, trials={"mse": grid(None, None), "focal": grid(0.5, 0.9)})) is None


# All figures


def test_the_answer_names_the_figures_that_apply_by_what_they_show(tmp_path):
    write_answer(make_answer({"mse": 0.9, "focal": 0.95}), tmp_path)
    text = (tmp_path / "answer.md").read_text()
    assert "![focal is better than mse by 5.00 points](race.png)" in text
    assert "![All groups have the same best learning rate, 0.01 (3 seeds)](tuning.png)" in text
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") and f"]({name})" in text for name in FIGURES)


def test_a_figure_that_no_longer_applies_is_removed(tmp_path):
    groups = {"mse": 0.9, "focal": 0.95}
    write_answer(make_answer(groups), tmp_path)
    untuned = {label: [TrialResult({}, (0.9, 0.9))] for label in groups}
    write_answer(make_answer(groups, trials=untuned, is_grid=False), tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {"race.png"}
    text = (tmp_path / "answer.md").read_text()
    assert [name in text for name in FIGURES] == [True, False, False]


@pytest.mark.parametrize("draw", FIGURES.values())
def test_titles_are_one_line_that_fits_and_long_labels_with_dollar_signs_are_drawn(draw):
    label = "focal loss.gamma=${a} trainer.gradient_clip_val=${b} optimizer=adam model.hidden=[64,64] number="
    trials = {f"{label}1": grid(0.8, 0.9), f"{label}2": grid(0.9, 0.8)}
    figure = draw(make_answer(dict.fromkeys(trials, 0.9), trials=trials))
    encode_png(figure)
    title = figure._suptitle
    assert "\n" not in title.get_text()
    assert title.get_window_extent().x1 <= figure.bbox.x1
    shown = [text.get_text() for axes in figure.axes for text in axes.get_yticklabels()]
    assert any(r"gamma=\${a}" in text for text in shown)


@pytest.mark.parametrize("draw", FIGURES.values())
def test_56_groups_are_drawn(draw):
    groups = {f"loss{index}": 0.97 - index**2 / 5000 for index in range(56)}
    figure = draw(make_answer(groups, trials={label: grid(0.5, mean, 0.3) for label, mean in groups.items()}))
    encode_png(figure)
    assert len(row_labels(figure.axes[0])) == (12 if draw is draw_one_rate else 56)


# The text


@pytest.mark.parametrize(
    ("items", "measured"),
    [([[1, 0, 1], [1, 1, 1]], "3 test examples"), ([[1, 0], [1, 1, 1]], "test data"), ((), "test data")],
)
def test_the_protocol_says_how_many_test_examples_there_are(items, measured):
    protocol = make_answer({"cross_entropy": 0.9, "mse": 0.95}, items=items).protocol()
    assert any(f"is measured on the {measured}, with" in line for line in protocol)

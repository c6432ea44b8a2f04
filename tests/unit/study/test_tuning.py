"""The best trial of a group, the edges of its grid, and the range of good learning rates."""

import math
import statistics
from dataclasses import replace

import numpy as np
import pytest

from losslab.study.settings import Group
from losslab.study.tuning import TrialResult, Tuning, sides_to_extend

NAN = math.nan


def tuning(*values, is_grid=True, higher_is_better=True):
    """Return the tuning of a grid of learning rates 1, 2, 3, ..., given the values of each with its seeds."""
    results = tuple(
        TrialResult({"optimizer.lr": float(index + 1)}, each if isinstance(each, tuple) else (each,))
        for index, each in enumerate(values)
    )
    return Tuning(Group(("loss=a",), "a"), results, is_grid, higher_is_better)


def test_the_best_mean_over_seeds_wins():
    found = tuning((0.1, 0.9), (0.6, 0.7), (0.2, 0.2))
    assert found.best == 1
    assert found.best_result.mean == pytest.approx(0.65)
    assert tuning((0.1, 0.9), (0.6, 0.7), (0.2, 0.2), higher_is_better=False).best == 2


@pytest.mark.parametrize("bad", [None, NAN, math.inf, -math.inf])
def test_a_trial_with_a_run_that_diverged_is_the_worst(bad):
    assert tuning((0.9, bad), (0.1, 0.1)).best == 1
    assert tuning((0.9, bad), (0.1, 0.1), higher_is_better=False).best == 1
    assert TrialResult({}, (0.9, bad)).mean is None


def test_of_equal_trials_the_middle_one_is_the_best():
    assert tuning(1.0, 1.0, 1.0, 1.0, 1.0).best == 2
    assert tuning(0.0, 1.0, 1.0, 0.0).best == 1
    assert tuning(1.0, 0.0, 1.0).best == 0


@pytest.mark.parametrize(("values", "edge"), [((3, 2, 1), -1), ((1, 2, 3), 1), ((1, 3, 2), 0), ((1, 3, None), 0)])
def test_the_edge_is_the_end_of_the_grid_with_the_best_rate(values, edge):
    assert tuning(*values).edge == edge


def test_if_all_trials_diverged_the_best_rate_is_below_the_grid():
    found = tuning(None, None, None)
    assert (found.best, found.best_result, found.edge) == (None, None, -1)
    assert found.good_range(0.1, as_ratio=False) is None


def test_without_a_grid_there_is_no_edge():
    assert tuning(3, 2, 1, is_grid=False).edge == 0
    assert tuning(3, is_grid=True).edge == 0
    assert tuning(3, 2, 1, is_grid=False).good_range(0.1, as_ratio=False) is None


def test_after_a_best_rate_diverges_in_the_race_the_best_lower_rate_wins():
    found = tuning(1, 2, 4, 3)
    changed = found.without_best()
    assert (found.best, changed.best) == (2, 1)
    assert [result.diverged_in_race for result in changed.results] == [False, False, True, False]
    assert changed.without_best().without_best().best_result is None


def test_after_a_best_trial_diverges_in_the_race_the_next_best_wins():
    found = replace(tuning(1, 2, 4, 3), is_grid=False)
    assert (found.best, found.without_best().best) == (2, 3)


def test_the_finalists_are_the_best_trials_and_of_equal_ones_those_next_to_the_best():
    assert rates_of(tuning(0.5, 0.9, None, 0.8, 0.7).finalists(3)) == [2.0, 4.0, 5.0]
    assert rates_of(tuning(1, 1, 1, 1, 1).finalists(3)) == [3.0, 2.0, 4.0]
    assert tuning(None, 0.9, None).finalists(3) == []
    assert tuning(None, None).finalists(3) == []


def test_the_best_trial_is_a_finalist_although_a_trial_with_fewer_seeds_has_a_higher_mean():
    found = tuning(0.95, (0.9, 0.9), (0.8, 0.8))
    assert found.best == 1
    assert found.without_best().best == 0  # in a grid, only lower rates are left
    assert replace(found, is_grid=False).without_best().best == 2


def test_good_rates_are_compared_over_common_seeds():
    found = tuning(0.7, (0.7, 0.9), 0.6)
    assert rates_of(found.good_range(0.05, as_ratio=False)) == [1.0, 2.0]


def rates_of(trials):
    return [trial["optimizer.lr"] for trial in trials]


def test_the_grids_of_all_groups_are_extended_where_any_best_rate_is_at_an_edge():
    low, high, inside = tuning(3, 2, 1), tuning(1, 2, 3), tuning(1, 3, 2)
    assert sides_to_extend([inside, inside]) == []
    assert sides_to_extend([inside, high]) == [1]
    assert sides_to_extend([low, high, inside, low]) == [-1, 1]


def test_the_range_of_good_rates_are_the_neighbours_within_the_margin():
    found = tuning(0.895, 0.80, 0.896, 0.90, 0.8951, 0.8949, 0.90 - 0.001)
    low, high = found.good_range(0.005, as_ratio=False)
    assert (low, high) == ({"optimizer.lr": 3.0}, {"optimizer.lr": 5.0})
    assert found.good_range(1e-9, as_ratio=False) == ({"optimizer.lr": 4.0},) * 2
    errors = tuning(1.2, 1.04, 1.0, 1.06, None, higher_is_better=False)
    assert errors.good_range(0.05, as_ratio=True) == ({"optimizer.lr": 2.0}, {"optimizer.lr": 3.0})
    assert tuning(None, 1.0, None).good_range(0.5, as_ratio=False) == ({"optimizer.lr": 2.0},) * 2


def test_more_seeds_find_the_best_rate_more_often():
    """Three rates whose true values differ by half the standard deviation of a run."""
    rng, found = np.random.default_rng(0), []
    for seeds in (1, 3, 30):
        grids = (tuning(*(tuple(mean + rng.standard_normal(seeds)) for mean in (0, 0.5, 0))) for _ in range(300))
        found.append(statistics.fmean(grid.best == 1 for grid in grids))
    assert found[0] + 0.05 < found[1] < found[2] - 0.05
    assert found[2] > 0.9

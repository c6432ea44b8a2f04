"""The settings of a study, its groups, and the trials of each."""

import math
from itertools import pairwise

import pytest

from losslab.errors import LabError
from losslab.study.settings import (
    FIRST_TUNING_SEED,
    Design,
    Group,
    Parameter,
    Settings,
    default_trials,
    expand_groups,
    find_group,
    make_parameter,
    parameter_name,
    parse_groups,
)

RATE = "optimizer.lr"


def labels(*arguments, **settings):
    return [group.label for group in parse_groups(arguments, Settings(**settings))]


def refused(function, *arguments, **keywords):
    """Return the message of a LabError, which has one line."""
    with pytest.raises(LabError) as caught:
        function(*arguments, **keywords)
    message = str(caught.value)
    assert "\n" not in message
    return message


# Settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"margin": 0}, "study.margin must be a number between 0 and 1, got 0"),
        ({"margin": 1}, "study.margin must be a number between 0 and 1, got 1"),
        ({"margin": math.nan}, "study.margin must be a number between 0 and 1, got nan"),
        ({"margin": True}, "study.margin must be a number between 0 and 1, got True"),
        ({"trials": 1}, "study.trials must be an integer from 2 to 1000, got 1"),
        ({"trials": 7.0}, "study.trials must be an integer from 2 to 1000, got 7.0"),
        ({"tune_seeds": 0}, "study.tune_seeds must be an integer from 1 to 1000, got 0"),
        ({"tune_seeds": None}, "study.tune_seeds must be an integer from 1 to 1000, got None"),
        ({"first_seeds": 1}, "study.first_seeds must be an integer from 2 to 1000, got 1"),
        ({"max_seeds": 10_001}, "study.max_seeds must be an integer from 2 to 10000, got 10001"),
        ({"max_seeds": 4}, "study.max_seeds=4 is below study.first_seeds=5: raise it"),
        (
            {"tune": "a.b"},
            "study.tune must be a list of keys, such as [optimizer.lr,optimizer.weight_decay], got 'a.b'",
        ),
        ({"tune": ["a"]}, "study.tune must list config keys, such as optimizer.lr or {loss.gamma: [0.5, 5]}: got 'a'"),
        ({"tune": [RATE, {RATE: [0.1, 1]}]}, "study.tune lists optimizer.lr twice: list each key once"),
        ({"groups": "a=b"}, "study.groups must be a list of texts, such as ['loss=focal loss.gamma=5'], got 'a=b'"),
        (
            {"metric": 3},
            "study.metric must be the name of a metric, not of the loss, and without its split, such as nll, got 3",
        ),
        ({"reference": 0}, "study.reference must be a group, such as loss=cross_entropy, got 0"),
        ({"posthoc": "no"}, "study.posthoc must be true or false, got 'no'"),
        ({"dry_run": 1}, "study.dry_run must be true or false, got 1"),
    ],
)  # fmt: skip
def test_a_setting_that_is_not_valid_is_refused_with_what_is(values, message):
    assert refused(Settings, **values) == message


def test_the_seeds_of_the_race_are_never_those_of_the_tuning():
    assert Settings(max_seeds=FIRST_TUNING_SEED).max_seeds <= FIRST_TUNING_SEED


# Groups


def test_groups_are_all_combinations_of_the_sweeps():
    groups = parse_groups(["model=mlp", "loss=focal,mse", "loss.gamma=1,2"], Settings())
    assert [group.overrides for group in groups] == [
        ("model=mlp", f"loss={loss}", f"loss.gamma={gamma}") for loss in ("focal", "mse") for gamma in (1, 2)
    ]
    assert [group.label for group in groups] == ["focal gamma=1", "focal gamma=2", "mse gamma=1", "mse gamma=2"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["loss=a,b"], ["a", "b"]),
        (["loss=choice(a,b)"], ["a", "b"]),
        (["loss=a", "loss.x=range(1,4)"], ["x=1", "x=2", "x=3"]),
        (["loss=a,b", "loss=c,d"], ["c", "d"]),
        (["loss=a,b", "x=[1,2]", "y={p:1,q:2}", "notes='one, two'"], ["a", "b"]),
        (["loss=a", "x=[1,2],[3]"], ["x=[1,2]", "x=[3]"]),
        (["loss=a,b", f"{RATE}=0.1"], ["a", "b"]),
    ],
)
def test_values_with_commas_are_groups(arguments, expected):
    assert labels(*arguments) == expected


def test_listed_groups_replace_what_is_common():
    groups = parse_groups(
        ["model=mlp", "loss=mse"], Settings(groups=["loss=focal loss.gamma=5", "+notes.x='a b'", "model=linear"])
    )
    assert [group.overrides for group in groups] == [
        ("model=mlp", "loss=focal", "loss.gamma=5"),
        ("model=mlp", "loss=mse", "+notes.x='a b'"),
        ("loss=mse", "model=linear"),
    ]  # fmt: skip
    assert [group.label for group in groups] == [
        "model=mlp focal gamma=5", "model=mlp mse +notes.x='a b'", "mse model=linear"
    ]  # fmt: skip


def test_listed_groups_join_those_of_the_sweeps():
    assert labels("loss=a,b", groups=["loss=focal loss.gamma=5"]) == ["a", "b", "focal gamma=5"]
    assert labels("loss=a", "model=m", groups=["loss=b", "loss=c"]) == ["b", "c"]


@pytest.mark.parametrize(
    ("arguments", "groups", "message"),
    [
        (["loss=a"], (), "a study compares at least two groups: name several losses, as in loss=cross_entropy,focal"),
        ([], (), "a study compares at least two groups: name several losses, as in loss=cross_entropy,focal"),
        (["loss=a,a"], (), "a group occurs twice: name each group once"),
        (["loss=a,b"], ("loss=b",), "a group occurs twice: name each group once"),
        (["loss=a,b", "seed=1"], (), "a study chooses its seeds: leave seed= out, and set study.max_seeds"),
        (["loss=a,b", "++seed=1,2"], (), "a study chooses its seeds: leave seed= out, and set study.max_seeds"),
        (["loss=a"], ("loss=b seed=1",), "a study chooses its seeds: leave seed= out, and set study.max_seeds"),
        (["loss=a", f"{RATE}=1,2"], (), "optimizer.lr is tuned: give one value, or leave it out of study.tune"),
        (["loss=a"], ("loss=b,c",), "loss=b,c in study.groups has several values: write a group for each"),
        (["loss=a"], (3,), "a group in study.groups must be a text of overrides, got 3"),
        (["loss=a"], (" ",), "a group in study.groups must be a text of overrides, got ' '"),
        (["loss=glob(*)"], (), "loss=glob(*) does not list its values: write loss=VALUE,VALUE"),
        (["x=interval(0,1)"], (), "x=interval(0,1) does not list its values: write x=VALUE,VALUE"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(arguments, groups, message):
    assert refused(parse_groups, arguments, Settings(groups=groups)) == message


def test_a_command_without_groups_is_a_single_one():
    assert expand_groups(["loss=a", "model=m"], Settings()) == [("loss=a", "model=m")]


def test_a_reference_is_found_by_its_overrides_or_its_label():
    groups = parse_groups(["model=m", "loss=focal,mse", "loss.gamma=1,2"], Settings())
    assert find_group(groups, "focal gamma=2") == 1
    assert find_group(groups, "loss=mse loss.gamma=1") == 2
    assert find_group([Group(("loss=a",), "a"), Group(("loss=a", "x=1"), "a x=1")], "a") == 0
    names = "name one of focal gamma=1, focal gamma=2, mse gamma=1, mse gamma=2"
    assert refused(find_group, groups, "loss=mse") == f"study.reference=loss=mse matches several groups: {names}"
    assert refused(find_group, groups, "loss=l1") == f"study.reference=loss=l1 matches no group: {names}"


# Parameters


def test_a_learning_rate_is_tuned_around_the_one_of_the_configuration():
    found = make_parameter(RATE, 0.01)
    assert (found.low, found.high, found.center) == (pytest.approx(0.01 / 10**1.5), pytest.approx(0.01 * 10**1.5), 0.01)


def test_other_parameters_are_tuned_in_an_interval():
    assert make_parameter({"loss.gamma": [0.5, 5]}, 2.0) == Parameter("loss.gamma", 0.5, 5.0)
    assert make_parameter({RATE: ["1e-4", 1]}, 2.0) == Parameter(RATE, 1e-4, 1.0)
    assert make_parameter("loss.q", 0.7, (0.9, 0.1, 0.5)) == Parameter("loss.q", 0.1, 0.9)
    assert make_parameter("optimizer.eps", 0.01) == Parameter("optimizer.eps", 0.001, pytest.approx(0.1))
    assert make_parameter("loss.gamma", None) is None


@pytest.mark.parametrize(
    "interval", [[5, 0.5], [1, 1], [0, 1, 2], ["a", "b"], "ab", 3, None, [0, math.inf], [math.nan, 1]]
)
def test_an_interval_that_is_not_valid_is_refused(interval):
    message = refused(make_parameter, {"loss.gamma": interval}, 1.0)
    assert message.startswith("study.tune: the interval of loss.gamma must be [low, high], got ")


@pytest.mark.parametrize(("key", "value"), [("loss.q", 0.7), ("optimizer.eps", 0.0), (RATE, 0.0), (RATE, -1.0)])
def test_a_parameter_whose_interval_is_not_known_is_refused(key, value):
    assert refused(make_parameter, key, value) == (
        f"study.tune: give the interval of {key}, as in 'study.tune=[{{{key}:[LOW,HIGH]}}]'"
    )


@pytest.mark.parametrize("value", ["torch.optim.SGD", True, [64, 64]])
def test_only_numbers_can_be_tuned(value):
    assert "and only numbers can be tuned: give a group for each value" in refused(make_parameter, "optimizer.x", value)


def test_integers_stay_integers_but_not_those_of_a_loss():
    batches = make_parameter("data.batch_size", 8)
    assert [batches.at(position) for position in (0, 0.37, 1)] == [1, 5, 80]
    assert make_parameter({"loss.gamma": [0.5, 5]}, 2).at(0.5) == 1.58


@pytest.mark.parametrize("entry", [3, "lr", {"loss.a": 1, "loss.b": 2}, {}, None, ["optimizer.lr"]])
def test_only_keys_can_be_tuned(entry):
    assert refused(parameter_name, entry).startswith("study.tune must list config keys, such as optimizer.lr or ")


def test_positions_are_on_a_logarithmic_scale_above_0_and_stay_in_the_interval():
    assert [Parameter("x.y", 0.01, 1).at(position) for position in (0, 0.5, 1)] == [0.01, 0.1, 1]
    assert [Parameter("x.y", -1, 3).at(position) for position in (0, 0.5, 1)] == [-1, 1, 3]
    assert [Parameter("x.y", 0.5001, 0.9999).at(position) for position in (0, 1)] == [0.5001, 0.9999]


# Designs


def test_learning_rates_are_a_grid_around_that_of_the_configuration():
    design = Design.create([make_parameter(RATE, 0.01)], 7)
    assert [trial[RATE] for trial in design.trials] == [0.00032, 0.001, 0.0032, 0.01, 0.032, 0.1, 0.32]
    assert design.is_grid
    assert Design.create([make_parameter(RATE, 0.00123)], 3).trials[1] == {RATE: 0.00123}


def test_a_grid_is_extended_by_two_rates_at_most_three_times():
    design = Design.create([make_parameter(RATE, 0.00123)], 3)
    assert [trial[RATE] for trial in design.extend(1)] == [0.012, 0.039]
    assert [trial[RATE] for trial in design.extend(-1)] == [0.00012, 3.9e-05]
    assert design.may_extend
    design.extend(1)
    assert not design.may_extend
    rates = [trial[RATE] for trial in design.trials]
    assert rates == sorted(set(rates))
    assert len(rates) == 9
    ratios = [high / low for low, high in pairwise(rates)]
    assert ratios == pytest.approx([10**0.5] * 8, rel=0.05)


def test_a_grid_is_refined_on_both_sides_of_the_best_rate_at_half_the_distance():
    design = Design.create([make_parameter(RATE, 0.01)], 3)
    assert [trial[RATE] for trial in design.refine(1)] == [0.0056, 0.018]
    assert [trial[RATE] for trial in design.trials] == [0.0032, 0.0056, 0.01, 0.018, 0.032]
    assert [trial[RATE] for trial in design.refine(3)] == [0.013, 0.024]
    assert [trial[RATE] for trial in design.refine(6)] == [0.028, 0.037]
    rates = [trial[RATE] for trial in design.trials]
    assert rates == sorted(set(rates))
    assert len(rates) == 9


def test_all_groups_have_equally_many_rates_whatever_their_own():
    designs = [Design.create([make_parameter(RATE, rate)], default_trials(1)) for rate in (0.1, 3e-4, 7.0)]
    for side in (-1, 1):
        assert len({len(design.extend(side)) for design in designs}) == 1
    assert {len(design.trials) for design in designs} == {11}


def test_one_interval_is_divided_evenly_and_has_no_edges():
    design = Design.create([make_parameter({"loss.q": [0, 1]}, 0.5)], 5)
    assert [trial["loss.q"] for trial in design.trials] == [0, 0.25, 0.5, 0.75, 1]
    assert not design.is_grid
    assert not design.may_extend


def test_several_parameters_are_spread_by_a_sobol_sequence():
    parameters = [make_parameter(RATE, 0.01), make_parameter({"loss.q": [0, 1]}, 0.5)]
    design = Design.create(parameters, 16)
    assert design == Design.create(parameters, 16)
    assert Design.create(parameters, 10).trials == design.trials[:10]
    for quarter in range(4):  # the first 16 points of the sequence have 4 in each quarter of each interval
        assert sum(quarter / 4 <= trial["loss.q"] < (quarter + 1) / 4 for trial in design.trials) == 4
    assert all(0.01 / 10**1.5 <= trial[RATE] <= 0.01 * 10**1.5 for trial in design.trials)


def test_a_group_without_tuned_parameters_has_one_trial():
    assert Design.create([], 7).trials == [{}]


def test_the_number_of_trials_grows_with_that_of_parameters():
    assert [default_trials(count) for count in range(5)] == [1, 7, 16, 32, 32]

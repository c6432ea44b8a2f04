"""Groups of runs and their names."""

import os
from pathlib import Path

import pytest
from folders import config, run

from losslab.analysis.compare import compare
from losslab.analysis.compare.grouping import find_baseline, group_runs, unnamed_differences
from losslab.analysis.compare.read import Run, read_runs
from losslab.errors import LabError
from losslab.runs import RunFolder
from losslab.training.config import compose


def a_run(config, path="run", overrides=None):
    return Run(RunFolder(Path(path)), config, {"test/accuracy": 0.5}, 0.0, job_overrides=overrides)


def groups_of(*configs):
    return group_runs([a_run(each) for each in configs])


def labels_of(*configs):
    return [one.label for one in groups_of(*configs)]


def test_runs_that_differ_only_in_values_made_from_the_seed_are_one_group():
    (only,) = groups_of(*(config("mse", seed, f"outputs/{seed}") for seed in range(3)))
    assert [run.seed for run in only.runs] == [0, 1, 2]


def test_composed_configurations_are_grouped(tmp_path):
    common = ["model=mlp", "data=digits", "data.split_seed=${seed}"]
    runs = [
        compose([*common, f"seed={seed}", f"loss={loss}"], str(tmp_path / f"{loss}{seed}"))
        for seed in (0, 1)
        for loss in ("focal", "mse")
    ]
    runs += [compose([*common, "loss=mse", f"noise={name}"], str(tmp_path / name)) for name in ("none", "symmetric")]
    assert [(one.label, len(one.runs)) for one in groups_of(*runs)] == [
        ("loss=focal", 2),
        ("loss=mse noise=none", 2),  # of which one was run again
        ("loss=mse noise=symmetric", 1),
    ]


def test_a_value_made_from_the_seed_differs_from_the_same_constant():
    following = config("mse", 3, data__split_seed=3)
    following["per_run"] = [*following["per_run"], "data.split_seed"]
    assert labels_of(following, config("mse", 3, data__split_seed=3)) == [
        "data.split_seed={seed}",
        "data.split_seed=3",
    ]


def test_paths_made_from_the_seed_differ_by_their_other_parts():
    starts = [config("mse", seed, ckpt_path=f"{base}/s{seed}.pth") for base in ("a", "b") for seed in (0, 1)]
    for each in starts:
        each["per_run"] = [*each["per_run"], "ckpt_path"]
    assert labels_of(*starts) == ["ckpt_path=a/s{seed}.pth", "ckpt_path=b/s{seed}.pth"]


def test_paths_made_from_the_run_name_are_one_setting():
    named = [config("mse", seed, own__file="") for seed in (0, 1)]
    for each in named:
        each["name"] = f"run {'ab'[each['seed']]}"
        each["own"]["file"] = f"notes/{each['name']}.txt"
        each["per_run"] = [*each["per_run"], "own.file"]
    assert len(groups_of(*named)) == 1


def test_an_older_configuration_without_per_run_is_grouped_with_newer_ones():
    older = [config("mse", seed, f"outputs/{seed}") for seed in range(2)]
    for each in older:
        del each["per_run"]
    (only,) = groups_of(*older, config("mse", 2))
    assert len(only.runs) == 3


@pytest.mark.parametrize(
    "key",
    [
        "tags", "name", "traceback", "optimized_metric", "logger__tensorboard__flush_secs", "data__dir",
        "data__workers", "data__eval_batch_size", "trainer__profiler", "trainer__enable_progress_bar",
        "trainer__accelerator", "callbacks__progress_bar___target_", "callbacks__checkpoints__every_seconds",
        "callbacks__path___target_",
        "made_with__torch",
    ],
)  # fmt: skip
def test_keys_that_change_no_result_do_not_separate_groups(key):
    assert len(groups_of(config("mse", 0), config("mse", 1, **{key: "another"}))) == 1


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("optimizer__lr", "optimizer.lr=7"),
        ("data__batch_size", "data.batch_size=7"),
        ("trainer__precision", "trainer.precision=7"),
        ("callbacks__ema___target_", "callbacks=ema"),
        ("loss__gamma", "loss.gamma=7"),
    ],
)
def test_keys_that_change_a_result_separate_and_name_groups(key, label):
    assert labels_of(config(), config(seed=1, **{key: 7}))[1] == label


def test_the_folder_of_image_files_is_the_data():
    images = [config(data__dir=name) for name in "ab"]
    for each in images:
        each["choices"]["data"] = "image_folder"
    assert labels_of(*images) == ["data.dir=a", "data.dir=b"]


def test_the_folder_of_own_data_is_the_data():
    own = [config(data__dir=name, choices__data="mine") for name in "ab"]
    assert labels_of(*own) == ["data.dir=a", "data.dir=b"]


def test_numbers_are_in_a_name_only_if_they_distinguish_groups_of_one_choice():
    found = labels_of(config("mse"), config("focal", loss__gamma=1), config("focal", loss__gamma=2))
    assert found == ["loss=mse", "loss=focal loss.gamma=1", "loss=focal loss.gamma=2"]


def test_names_have_choices_before_numbers_and_a_fixed_order():
    grid = [config(loss, optimizer__lr=rate) for loss in ("l1", "mse") for rate in (0.1, 1)]
    assert labels_of(*grid)[:2] == ["loss=l1 optimizer.lr=0.1", "loss=l1 optimizer.lr=1"]


def test_a_custom_loss_is_named_by_its_target():
    own = config("custom", loss___target_="my_losses.Mine")
    assert labels_of(config("mse"), own) == ["loss=mse", "loss=my_losses.Mine"]


def test_a_choice_that_is_named_as_its_function_is_named_by_its_choice():
    functions = {"linear": "losslab.models.linear.linear", "cnn": "mine.cnn"}
    own = [config(choices__model=name, model___target_=function) for name, function in functions.items()]
    assert labels_of(*own) == ["model=linear", "model=mine.cnn"]


def test_mixed_batches_are_named_by_their_choice_or_by_their_class():
    mixed = {"mix___target_": "losslab.data.transforms.Mix", "choices__mix": "mixup"}
    own = {"mix___target_": "mine.Mix"}
    assert labels_of(config(), config(**mixed), config(**own)) == ["mix=none", "mix=mixup", "mix=mine.Mix"]


def test_equal_settings_are_one_group_whatever_file_they_are_from():
    renamed = config(seed=1)
    renamed["choices"]["optimizer"] = "mine"
    assert len(groups_of(config(), renamed)) == 1


@pytest.mark.parametrize(
    ("value", "same"), [(1e-3, "0.001"), (1, 1.0), ("32", 32), ([1, 2], [1.0, 2.0]), (True, "true"), (None, None)]
)
def test_values_with_one_meaning_are_one_group(value, same):
    assert len(groups_of(config(loss__value=value), config(seed=1, loss__value=same))) == 1


@pytest.mark.parametrize(
    ("key", "value", "other"),
    [
        ("trainer__limit_train_batches", 1, 1.0),  # one batch, and all batches
        ("loss__weight", [1.0] * 1000 + [2.0], [1.0] * 1000 + [3.0]),
        ("loss__weight", [1.0] * 500 + [2.0] + [1.0] * 500, [1.0] * 1001),
        ("ckpt_path", "null", None),
        ("ckpt_path", "a b.pth", "a c.pth"),
        ("callbacks__ema__inner__decay", 0.9, 0.99),
        ("optimizer___target_", "torch.optim.SGD", "mine.SGD"),
        ("train", True, False),
        ("trainer__gradient_clip_val", None, 1.0),
    ],
)
def test_values_with_another_meaning_are_groups_with_distinct_short_names(key, value, other):
    groups = groups_of(config(**{key: value}), config(seed=1, **{key: other}))
    labels = [one.label for one in groups]
    assert len(set(labels)) == 2
    assert all(len(label) < 100 for label in labels)
    for group in groups:
        assert find_baseline(groups, [group.label]) is group


def test_classes_with_one_name_are_named_with_their_modules():
    groups = groups_of(*(config(choices__loss="Mine", loss___target_=f"{module}.Mine") for module in ("a", "b")))
    assert [one.label for one in groups] == ["loss=a.Mine", "loss=b.Mine"]


def test_a_single_group_is_named_by_its_loss():
    assert labels_of(config("focal")) == ["loss=focal"]


def labels_of_overrides(*groups):
    """Labels of runs with these pairs of overrides and configuration."""
    return [one.label for one in group_runs([a_run(each, overrides=words.split()) for words, each in groups])]


def clipped(value, algorithm):
    return config(trainer__gradient_clip_val=value, trainer__gradient_clip_algorithm=algorithm)


def test_groups_are_named_by_the_setting_that_was_set_in_each_of_them():
    longer = clipped(0.5, "value")
    longer["trainer"]["max_epochs"] = 20
    assert labels_of_overrides(
        ("trainer.gradient_clip_val=null", clipped(None, "norm")),
        ("trainer.max_epochs=20 trainer.gradient_clip_algorithm=value trainer.gradient_clip_val=0.5", longer),
    ) == ["trainer.gradient_clip_val=null", "trainer.gradient_clip_val=0.5"]


def test_defaults_of_a_choice_of_the_trainer_follow_a_value_that_was_set():
    own = [config(callbacks__ema__decay=each, trainer__precision=each) for each in (1, 2)]
    assert labels_of_overrides(
        ("trainer=a callbacks.ema.decay=1", own[0]), ("trainer=b callbacks.ema.decay=2", own[1])
    ) == ["callbacks.ema.decay=1", "callbacks.ema.decay=2"]


def test_without_overrides_the_first_setting_of_the_configuration_names_groups_even_if_it_is_null():
    assert labels_of(clipped(None, "norm"), clipped(0.5, "value"))[0] == "trainer.gradient_clip_val=null"


def test_groups_are_named_by_the_setting_from_which_another_follows():
    assert labels_of_overrides(
        *((f"loss.q=${{noise.rate}} noise.rate={rate}", config(loss__q=rate, noise__rate=rate)) for rate in (0.1, 0.4))
    ) == ["noise.rate=0.1", "noise.rate=0.4"]


@pytest.mark.parametrize("override", ["model", "+model", "model@model"])
def test_groups_are_named_by_the_model_that_was_chosen_rather_than_by_its_default_loss(override):
    assert labels_of_overrides(
        (f"{override}=mlp", config("cross_entropy", choices__model="mlp")),
        (f"{override}=cnn", config("mse", choices__model="cnn")),
    ) == ["model=mlp", "model=cnn"]


def test_groups_are_named_by_their_losses_rather_than_by_their_own_learning_rates():
    assert labels_of_overrides(
        ("loss=focal optimizer.lr=0.3", config("focal", optimizer__lr=0.3)),
        ("loss=mse optimizer.lr=1", config("mse", optimizer__lr=1)),
    ) == ["loss=focal", "loss=mse"]


def test_groups_of_one_loss_are_named_by_its_parameter_rather_than_by_their_own_learning_rates():
    assert labels_of_overrides(
        ("loss=focal optimizer.lr=0.3", config("focal", loss__gamma=2, optimizer__lr=0.3)),
        ("loss=focal loss.gamma=3 optimizer.lr=1", config("focal", loss__gamma=3, optimizer__lr=1)),
    ) == ["loss.gamma=2", "loss.gamma=3"]


def test_a_choice_that_an_experiment_made_precedes_a_value_that_was_set():
    assert labels_of_overrides(
        ("experiment=a optimizer.lr=0.3", config("focal", optimizer__lr=0.3)),
        ("experiment=b optimizer.lr=1", config("mse", optimizer__lr=1)),
    ) == ["loss=focal", "loss=mse"]


def test_a_loss_that_was_set_by_its_class_names_groups_before_the_model():
    own = {name: config(choices__loss=None, loss___target_=f"mine.{name}", choices__model=name) for name in "AB"}
    found = labels_of_overrides(*((f"model={name} loss._target_=mine.{name}", each) for name, each in own.items()))
    assert found == ["loss=mine.A", "loss=mine.B"]


def test_a_value_that_was_set_as_part_of_a_mapping_names_groups():
    assert labels_of_overrides(
        *((f"callbacks.ema={{decay:{each}}}", config(loss__q=each, callbacks__ema__decay=each)) for each in (1, 2))
    ) == ["callbacks.ema.decay=1", "callbacks.ema.decay=2"]


def test_groups_whose_overrides_are_not_recorded_are_named_like_the_others():
    assert labels_of_overrides(
        ("", config(loss__q=0.1, noise__rate=0.1)), ("noise.rate=0.4", config(loss__q=0.4, noise__rate=0.4))
    ) == ["noise.rate=0.1", "noise.rate=0.4"]


def test_a_setting_that_was_set_but_is_no_part_of_the_names_is_an_unnamed_difference():
    found = group_runs(
        [
            a_run(clipped(None, "norm"), overrides=["trainer.gradient_clip_val=null"]),
            a_run(clipped(1, "value"), overrides=["trainer.gradient_clip_val=1"]),
        ]
    )
    assert unnamed_differences(found) == {"trainer.gradient_clip_algorithm": ["norm", "value"]}


def test_unnamed_differences_leave_out_settings_that_follow_from_a_choice():
    found = groups_of(
        config("focal", loss__gamma=2, optimizer__lr=0.1), config("mse", optimizer__lr=1, trainer__max_epochs=9)
    )
    assert [one.label for one in found] == ["loss=focal", "loss=mse"]
    assert unnamed_differences(found) == {
        "optimizer.lr": ["0.1", "1"],
        "trainer.max_epochs": ["3", "9"],
    }


def test_unnamed_differences_have_a_rate_that_some_names_lack():
    found = groups_of(config("a", optimizer__lr=1), config("a", optimizer__lr=2), config("b", optimizer__lr=3))
    assert [one.label for one in found] == ["loss=a optimizer.lr=1", "loss=a optimizer.lr=2", "loss=b"]
    assert unnamed_differences(found) == {"optimizer.lr": ["1", "2", "3"]}


def test_the_newest_finished_run_of_a_seed_counts_with_a_note(tmp_path):
    for written, (name, value) in enumerate([("old", 0.5), ("new", 0.75), ("newest", None)]):
        metrics = False if value is None else {"test/accuracy": value}
        folder = run(tmp_path / name, "mse", 4, metrics=metrics)
        if value is not None:
            os.utime(folder / "metrics.json", (written, written))
    comparison = compare([tmp_path])
    (only,) = comparison.groups
    assert only.values("test/accuracy") == {4: 0.75}
    assert [each.folder.path.name for each in only.repeated] == ["old"]
    assert any("seed 4: the newest counts; THEY DID NOT GIVE THE SAME VALUES" in note for note in comparison.notes)


def test_a_note_tells_that_repeated_runs_gave_the_same_values(tmp_path):
    for name in "ab":
        run(tmp_path / name)
    assert any("all gave the same values" in note for note in compare([tmp_path]).notes)


def test_a_baseline_is_named_by_its_values():
    found = groups_of(config("mse"), config("focal", loss__gamma=2.0), config("focal", loss__gamma=3))
    assert find_baseline(found, ["loss=mse"]) is found[0]
    assert find_baseline(found, ["loss=focal", "loss.gamma=2"]) is found[1]
    assert find_baseline(found, [found[2].label]) is found[2]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("loss=l1", "baseline loss=l1 matches no group; groups are: loss=mse; loss=focal loss.gamma=2"),
        ("loss=focal", "matches several groups, add a setting in which they differ: loss=focal loss.gamma=2; loss=f"),
        ("focal", "a baseline is named by its values"),
        ("loss=mse loss=focal", "names loss more than once: there is one baseline, name loss once"),
    ],
)
def test_a_baseline_that_names_no_group_or_several_is_refused(asked, said):
    found = groups_of(config("mse"), config("focal", loss__gamma=2), config("focal", loss__gamma=3))
    with pytest.raises(LabError, match=said):
        find_baseline(found, [asked])


def test_a_note_tells_that_groups_were_measured_on_other_batches(tmp_path):
    for limit in (3, 1.0):
        run(tmp_path / str(limit), trainer__limit_test_batches=limit)
    (note,) = (note for note in compare([tmp_path]).notes if "may not have been measured" in note)
    assert note.startswith("Groups differ in trainer.limit_test_batches")


def test_a_note_names_versions_that_differ(tmp_path):
    run(tmp_path / "a", seed=0, made_with__torch="2.11")
    run(tmp_path / "b", seed=1, made_with__torch="2.12")
    assert len(group_runs(read_runs([tmp_path]).runs)) == 1
    assert any("made_with.torch" in note and "2.11" in note for note in compare([tmp_path]).notes)

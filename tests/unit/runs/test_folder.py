"""The folder of a run: names, checkpoints, and damaged files."""

import json
import re

import folders
import pytest

from losslab import runs
from losslab.errors import LabError
from losslab.runs import RunFolder


def test_default_run_dirs_are_named_and_unique():
    names = {"model": "linear", "data": "line", "loss": "mse"}
    paths = {runs.default_run_dir(runs.default_name(names, 3)) for _ in range(20)}
    assert len(paths) == 20
    assert all(re.fullmatch(r"outputs/linear-line-mse-s3/\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-[0-9a-f]{4}", p) for p in paths)


@pytest.mark.parametrize(("content", "message"), [(None, "is not a run folder"), ("{", "cannot read")])
def test_missing_or_damaged_configuration_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(LabError, match=message):
        RunFolder(tmp_path).read_config()


@pytest.mark.parametrize(
    ("content", "overrides"),
    [
        ("- loss=mse\n- +own=[1,2]\n- ~noise\n", ["loss=mse", "+own=[1,2]", "~noise"]),
        ("- loss=mse\n- 'tags=[a, ''b'']'\n- a=b:c#d\n- ''\n", ["loss=mse", "tags=[a, 'b']", "a=b:c#d", ""]),
        ("- loss=mse\n- 'tags=[a, ''b'']'\n- name=a\n  b\n", ["loss=mse", "tags=[a, 'b']", "name=a b"]),
        ('- "a=\\t"\n- b=c # d\n', ["a=\t", "b=c"]),
        ("[]\n", []),
        ("- loss=mse\n- {a: b}\n", []),
        ("- [\n", []),
        (None, []),
    ],
)
def test_overrides_are_read_as_hydra_wrote_them_or_not_at_all(tmp_path, content, overrides):
    if content is not None:
        (tmp_path / ".hydra").mkdir()
        (tmp_path / ".hydra" / "overrides.yaml").write_text(content)
    assert RunFolder(tmp_path).read_overrides() == overrides


def without(key):
    return {name: value for name, value in folders.config().items() if name != key}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([], "it is not a mapping"),
        (None, "it is not a mapping"),
        ({}, "it lacks seed, name, model, data, loss"),
        (without("data"), "it lacks data;"),
        (without("scheduler"), "it lacks scheduler;"),
        (folders.config() | {"data": []}, "its data is not a mapping"),
        (folders.config() | {"callbacks": 3}, "its callbacks is not a mapping"),
        (folders.config() | {"per_run": 3}, "its per_run is not a list"),
        (folders.config() | {"model": {}}, "its model has no _target_"),
        (folders.config() | {"data": {"_target_": 3}}, "its data has no _target_"),
        (folders.config() | {"scheduler": {}}, "it lacks scheduler.scheduler"),
        (folders.config() | {"choices": {}}, "it lacks choices.loss"),
    ],
)
def test_incomplete_configuration_is_refused_with_the_problem(tmp_path, content, problem):
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(
        LabError, match=r"^[^\n]*config.json is not the configuration of a run: [^\n]*or train [^\n]*$"
    ) as found:
        RunFolder(tmp_path).read_config()
    assert problem in str(found.value)


def test_best_checkpoint_is_the_last_checkpoint_only_if_nothing_was_validated(tmp_path):
    run = RunFolder(folders.run(tmp_path / "run", metrics={"epochs": 3}))
    assert run.checkpoint("best") == run.last
    runs.write_json(run.metrics, {"best_epoch": 2})
    run.best.parent.mkdir()
    run.last.touch()
    with pytest.raises(
        LabError, match=r"best.ckpt, the checkpoint of the best epoch 2, is missing: restore it, or use --ckpt last$"
    ):
        run.checkpoint("best")
    run.weights.touch()
    with pytest.raises(LabError, match=r"or --ckpt .*weights.pth"):
        run.checkpoint("best")
    run.best.touch()
    assert run.checkpoint("best") == run.best


@pytest.mark.parametrize("content", ["[]", "3", "{"])
def test_damaged_faults_json_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "faults.json").write_text(content)
    with pytest.raises(LabError, match=r"faults.json.*or train the run again$"):
        RunFolder(tmp_path).read_faults()


@pytest.mark.parametrize("name", ["..", "a/../../b", "/abs", ".", "", "a//b", "x" * 300, "é" * 200, "a\nb", "a\0b"])
def test_a_name_that_is_no_folder_below_outputs_is_refused(name):
    with pytest.raises(LabError) as error:
        runs.check_name(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a", "a/b", "a b", "CON", "é", "...", "~", "a#b", " "])
def test_other_names_are_folders_below_outputs(name):
    runs.check_name(name)


def test_default_names_are_one_folder_of_limited_length():
    names = {"model": "mine/mlp", "data": "digits", "loss": "+".join(["WeightedSum"] * 30)}
    name = runs.default_name(names, 3)
    assert name.startswith("mine-mlp-digits-WeightedSum+")
    assert name.endswith("..-s3")
    runs.check_name(name)

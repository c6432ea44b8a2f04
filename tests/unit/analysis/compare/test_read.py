"""Reading runs from folders, and the problems of excluded runs."""

import json

import pytest
from folders import run, summary

from losslab.analysis.compare import compare
from losslab.analysis.compare.read import _parse_cell, _parse_column, read_columns, read_runs
from losslab.errors import LabError


def paths(collection):
    return [str(one.folder.path.name) for one in collection.runs]


def test_runs_are_found_below_a_folder_in_the_order_of_their_jobs(tmp_path):
    for number in (10, 2, 0):
        run(tmp_path / "sweep" / f"{number}-mlp", seed=number)
    run(tmp_path / "deep" / "er" / "alone")
    assert paths(read_runs([tmp_path])) == ["alone", "0-mlp", "2-mlp", "10-mlp"]


def test_a_run_counts_once_even_if_several_paths_lead_to_it(tmp_path):
    run(tmp_path / "sweep" / "0-mlp")
    (tmp_path / "link").symlink_to(tmp_path / "sweep")
    (tmp_path / "sweep" / "loop").symlink_to(tmp_path)
    places = [tmp_path, tmp_path / "sweep", tmp_path / "sweep" / "0-mlp", tmp_path / "link"]
    assert len(read_runs(places).runs) == 1
    assert len(read_runs([tmp_path / "link", tmp_path / "sweep"]).runs) == 1


def test_the_teacher_folder_inside_a_run_is_not_read_as_a_run(tmp_path):
    run(tmp_path / "pupil")
    run(tmp_path / "pupil" / "teacher")
    assert paths(read_runs([tmp_path])) == ["pupil"]


def test_a_run_without_final_values_shows_its_progress(tmp_path):
    run(tmp_path / "a", metrics=False, epochs=2)
    (found,) = read_runs([tmp_path]).runs
    assert found.problem == "unfinished: 2 of 3 epochs (still running, or it was killed)"
    assert found.metrics == {}


def test_a_failed_job_has_its_reason_even_without_a_run_folder(tmp_path):
    run(tmp_path / "0-a", metrics=False)
    summary(
        tmp_path,
        {"folder": "0-a", "state": "failed", "reason": "the loss is NaN in step 7"},
        {"folder": "1-b", "state": "failed", "reason": "killed by signal 9", "overrides": ["loss=l1", "seed=1"]},
        {"state": "interrupted", "reason": "not started", "overrides": ["loss=l1", "seed=2"]},
        {"folder": "3-d", "overrides": ["loss=l1", "seed=3"]},
    )
    collection = read_runs([tmp_path])
    assert [one.problem for one in collection.runs] == ["failed: the loss is NaN in step 7"]
    assert [(what.rpartition(": ")[2], why) for what, why in collection.problems] == [
        ("job 1 (loss=l1 seed=1)", "failed: killed by signal 9"),
        ("job 2 (loss=l1 seed=2)", "interrupted: not started"),
        ("job 3 (loss=l1 seed=3)", "its folder is gone"),
    ]


def test_a_failed_run_named_alone_has_its_reason_without_the_other_jobs(tmp_path):
    run(tmp_path / "0-a", metrics=False)
    summary(tmp_path, {"folder": "0-a", "state": "failed", "reason": "no memory"}, {"state": "failed", "reason": "x"})
    collection = read_runs([tmp_path / "0-a"])
    assert [one.problem for one in collection.runs] == ["failed: no memory"]
    assert collection.problems == []


def test_a_job_that_failed_and_was_finished_later_has_no_problem(tmp_path):
    run(tmp_path / "0-a")
    summary(tmp_path, {"folder": "0-a", "state": "failed", "reason": "no memory"})
    assert [one.problem for one in read_runs([tmp_path]).runs] == [""]


def test_overrides_are_those_of_the_job_or_those_that_hydra_recorded(tmp_path):
    for name in ("sweep/0-a", "alone", "python"):
        run(tmp_path / name)
        if name != "python":
            (tmp_path / name / ".hydra").mkdir()
            (tmp_path / name / ".hydra" / "overrides.yaml").write_text("- loss=l1\n")
    summary(tmp_path / "sweep", {"folder": "0-a", "overrides": ["loss=mse"]})
    for folders in ([tmp_path], [tmp_path / "sweep" / "0-a", tmp_path / "alone", tmp_path / "python"]):
        found = {one.folder.path.name: one.overrides for one in read_runs(folders).runs}
        assert found == {"0-a": ["loss=mse"], "alone": ["loss=l1"], "python": []}


@pytest.mark.parametrize("content", ["{", "[]", '{"seed": "0"}', '{"seed": 1}', "\0\xff"])
def test_a_damaged_configuration_is_listed_and_the_other_runs_are_read(tmp_path, content):
    run(tmp_path / "good")
    run(tmp_path / "bad")
    (tmp_path / "bad" / "config.json").write_text(content)
    collection = read_runs([tmp_path])
    assert paths(collection) == ["good"]
    ((what, why),) = collection.problems
    assert what.endswith("bad")
    assert why.startswith("damaged: ")


@pytest.mark.parametrize(
    "change",
    [
        {"choices": [1]}, {"choices": "abc"}, {"choices": {"loss": ["a"]}}, {"choices": {"loss": {"a": 1}}},
        {"per_run": 3}, {"per_run": [["a"]]}, {"per_run": None}, {"seed": True}, {"seed": 1.5},
        {"trainer": None}, {"trainer": []}, {"loss": None}, {"loss": [1, 2]}, {"data": None}, {"model": "mlp"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("finished", [True, False])
def test_a_configuration_with_wrong_types_is_listed_and_the_other_runs_are_compared(tmp_path, change, finished):
    run(tmp_path / "good")
    bad = run(tmp_path / "bad", "l1", metrics=None if finished else False)
    (bad / "config.json").write_text(json.dumps(json.loads((bad / "config.json").read_text()) | change))
    comparison = compare([tmp_path])
    assert comparison.table_markdown()
    ((what, why),) = comparison.not_counted
    assert what.endswith("bad")
    assert "config.json is not the configuration of a run: its " in why


def test_a_configuration_nested_without_end_is_listed(tmp_path):
    run(tmp_path / "good")
    (run(tmp_path / "bad") / "config.json").write_text("[" * 100_000)
    assert [why.startswith("damaged: ") for _, why in compare([tmp_path]).not_counted] == [True]


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[1]", "{}", "null", "3", '{"test/accuracy": "high"}', '{"test/accuracy": "0.9"}',
        '{"test/accuracy": NaN}', '{"test/accuracy": Infinity}', '{"test/accuracy": 1e400}', '{"test/mse": 1e308}',
        '{"test/accuracy": true}', '{"test/accuracy": [1]}', '{"test/accuracy": 7}', '{"test/accuracy": -0.1}',
        '{"train/accuracy_given": 1.5}', '{"test/mse": 1' + 400 * "0" + "}",
    ],
)  # fmt: skip
def test_damaged_final_values_are_a_problem_of_their_run(tmp_path, content):
    run(tmp_path / "bad")
    (tmp_path / "bad" / "metrics.json").write_text(content)
    (found,) = read_runs([tmp_path]).runs
    assert found.problem.startswith("damaged: metrics.json (")
    run(tmp_path / "good", seed=1)
    comparison = compare([tmp_path])
    assert comparison.groups[0].values("test/accuracy") == {1: 0.5}
    assert comparison.curves_figure()


def test_a_run_without_finite_values_does_not_keep_others_from_comparison(tmp_path):
    run(tmp_path / "good")
    run(tmp_path / "diverged", "l1", metrics={"test/accuracy": float("nan"), "best_epoch": 1})
    assert "| l1 | 0 of 1 | – | – | no value |" in compare([tmp_path]).table_markdown()


def test_a_damaged_summary_is_listed_and_its_runs_are_read(tmp_path):
    run(tmp_path / "a")
    (tmp_path / "summary.json").write_text('{"jobs": [')
    collection = read_runs([tmp_path])
    assert len(collection.runs) == 1
    assert "summary.json" in collection.problems[0][1]


@pytest.mark.parametrize(
    "change",
    [
        {"job": None}, {"overrides": None}, {"overrides": [1, 2]}, {"folder": 7}, {"folder": "\0"}, {"reason": 3},
        {"state": "nonsense"}, {"state": []},
    ],
)  # fmt: skip
def test_a_summary_with_wrong_types_is_listed_and_its_runs_are_read(tmp_path, change):
    run(tmp_path / "a")
    summary(tmp_path, {"folder": "a"}, {"state": "failed"} | change)
    collection = read_runs([tmp_path])
    assert len(collection.runs) == 1
    ((_, why),) = collection.problems
    assert why.startswith("damaged: cannot read ")
    assert "summary.json" in why


@pytest.mark.parametrize("content", ["[]", "{}", '{"jobs": null}', '{"jobs": {"a": 1}}', '{"jobs": [{}]}'])
def test_a_summary_of_another_form_is_listed(tmp_path, content):
    run(tmp_path / "a")
    (tmp_path / "summary.json").write_text(content)
    assert [why.startswith("damaged: cannot read ") for _, why in read_runs([tmp_path]).problems] == [True]


def test_values_that_were_not_finite_are_left_out(tmp_path):
    run(tmp_path / "a", metrics={"test/accuracy": 0.5, "test/nll": float("inf")})
    assert read_runs([tmp_path]).runs[0].metrics == {"test/accuracy": 0.5}


def test_missing_folders_and_folders_without_a_run_are_refused(tmp_path):
    with pytest.raises(LabError, match="there is no folder"):
        read_runs([tmp_path / "nowhere"])
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="is not a folder"):
        read_runs([tmp_path / "file"])
    with pytest.raises(LabError, match="no run was found in"):
        read_runs([tmp_path])


def test_read_columns_returns_the_wanted_columns(tmp_path):
    file = tmp_path / "history.csv"
    file.write_text("epoch,train/loss,val/loss\n1,0.5,\n2,inf,3\n")
    found = read_columns(file, ["val/loss", "epoch", "val/accuracy"])
    assert str({name: column.tolist() for name, column in found.items()}) == (
        "{'val/loss': [nan, 3.0], 'epoch': [1.0, 2.0]}"
    )


@pytest.mark.parametrize("content", ["", "epoch,a\n1,2\n2", "epoch,a\n1,x\n", "epoch,a\n1,1e308\n"])
def test_a_damaged_table_of_epochs_is_refused(tmp_path, content):
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(LabError, match=r"history\.csv"):
        read_columns(tmp_path / "history.csv", ["epoch", "a"])


@pytest.mark.parametrize("epoch", ["", "nan", "inf", "1e300", "1.5", "-1", "x"])
def test_invalid_epochs_leave_a_run_out_of_the_curves_only(tmp_path, epoch):
    run(tmp_path / "good", seed=1)
    file = run(tmp_path / "bad") / "history.csv"
    file.write_text(file.read_text().replace("\n1,", f"\n{epoch},"))
    comparison = compare([tmp_path])
    assert comparison.curves_figure()
    assert len(comparison.groups[0].values("test/accuracy")) == 2
    assert comparison.histories.curve(comparison.groups[0], "val/accuracy").seeds == 1
    assert [why.startswith("damaged, left out of the curves: ") for _, why in comparison.not_counted] == [True]


@pytest.mark.parametrize("seconds", ["", "nan", "-1"])
def test_invalid_times_leave_a_run_out_of_the_curves_only(tmp_path, seconds):
    (run(tmp_path / "a") / "timing.csv").write_text(f"epoch,seconds\n1,{seconds}\n")
    assert [why.startswith("damaged, left out of the curves: ") for _, why in compare([tmp_path]).not_counted] == [True]


@pytest.mark.parametrize("name", ["epoch", "step", "seconds", "val/accuracy", "train/loss"])
@pytest.mark.parametrize(
    "texts",
    [
        (), ("1", "2"), ("0.25", ""), ("", "inf"), ("nan", "-inf", "1"), ("-1",), ("1.5",), ("1e15",), ("1e100",),
        ("-1e100",), ("9.9e99",), ("1.0000009",), ("-0.0000009",), ("-0.1",), ("x",), ("0.5", "1 "),
    ],
)  # fmt: skip
def test_a_column_is_parsed_as_its_cells_are(name, texts):
    def outcome(parse):
        try:
            return [repr(float(value)) for value in parse()]
        except ValueError as error:
            return str(error)

    assert outcome(lambda: _parse_column(name, texts)) == outcome(lambda: [_parse_cell(name, text) for text in texts])

"""Evaluation of finished runs: metrics, tables, figures, and the requests that are rejected."""

import shutil

import numpy as np
import pytest
import torch
from quick import sample
from sklearn import metrics as sk

from losslab.analysis.evaluate import evaluation, report
from losslab.analysis.outputs import collect_outputs
from losslab.cli.evaluate import _difference_notes
from losslab.cli.evaluate import evaluate as evaluate_command
from losslab.errors import LabError
from losslab.io import atomic
from losslab.io.untrusted import read_json
from losslab.runs import RunFolder
from losslab.training.reopen import EvaluationRequest, parse_data_overrides, reopen


@pytest.mark.parametrize("name", sample(["digits", "exact", "cancer", "labels", "noisy", "values"], "exact", "values"))
def test_metrics_equal_those_of_training(name, runs, evaluated, content):
    trained, measured = content(runs(name) / "metrics.json"), content(evaluated(name) / "measures.json")
    shared = {key: value for key, value in trained.items() if key.startswith("test/")}
    assert len(shared) >= 4
    assert shared == {key: measured[key] for key in shared}
    assert all(value is not None for value in measured.values())


def test_metrics_summed_in_order_are_those_of_one_process(runs, content):
    experiment = reopen(EvaluationRequest(runs("digits"), data=("eval_batch_size=100",)))
    split_outputs = collect_outputs(experiment, "test")
    one = {name.removeprefix("test/"): value for name, value in experiment.learner.values.items() if "test/" in name}
    assert evaluation._sum_in_order(experiment, split_outputs) == one
    whole = content(runs("digits") / "metrics.json")["test/loss"]
    assert one["loss"] == pytest.approx(whole, rel=1e-6)


def test_files_of_training_do_not_change(runs, evaluated):
    kept = ("metrics.json", "history.csv", "config.json", "data.json", "checkpoints/best.ckpt", "timing.csv")
    before = {name: (runs("digits") / name).read_bytes() for name in kept}
    evaluated("digits", "val")
    assert {name: (runs("digits") / name).read_bytes() for name in kept} == before


@pytest.mark.parametrize("name", ["digits", "cancer", "labels", "noisy"])
def test_the_report_equals_that_of_scikit_learn(name, evaluated, rows, content):
    table = rows(evaluated(name) / "predictions.csv")
    if name == "labels":
        names = ["low", "middle", "never"]
        columns = [np.array([[int(row[f"{what}_{n}"]) for n in names] for row in table]) for what in _SIDES]
    else:
        columns = [np.array([row[what] for row in table], dtype=int) for what in _SIDES]
        words = {int(row[what]): row[f"{what}_name"] for row in table for what in _SIDES}
        names = [words[number] for number in sorted(words)]
    expected = sk.classification_report(*columns, target_names=names, digits=4, zero_division=0)
    assert (evaluated(name) / "report.txt").read_text() == expected
    measured = content(evaluated(name) / "measures.json")
    averages = sk.classification_report(*columns, output_dict=True, zero_division=0)
    positive = averages["1"] if name == "cancer" else averages["macro avg"]
    for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
        assert measured[f"test/{ours}"] == pytest.approx(positive[theirs], abs=1e-12)
        assert measured["classes"]["weighted avg"][ours] == pytest.approx(averages["weighted avg"][theirs], abs=1e-12)


_SIDES = ("truth", "prediction")


def test_areas_equal_those_of_scikit_learn(evaluated, rows, content):
    where = evaluated("digits")
    probabilities, table = np.load(where / "probabilities.npy"), rows(where / "predictions.csv")
    truth = np.array([int(row["truth"]) for row in table])
    hot, measured = truth[:, None] == np.arange(10), content(where / "measures.json")
    assert measured["test/top5"] == sk.top_k_accuracy_score(truth, probabilities, k=5)
    for average, key in (("macro", ""), ("micro", "/micro")):
        for name, score in (("roc_auc", sk.roc_auc_score), ("average_precision", sk.average_precision_score)):
            assert measured[f"test/{name}{key}"] == pytest.approx(score(hot, probabilities, average=average), abs=1e-6)


def test_each_example_has_its_row(runs, evaluated, rows):
    table = rows(evaluated("digits") / "predictions.csv")
    experiment = reopen(EvaluationRequest(runs("digits")))
    experiment.data.setup()
    test = experiment.data.splits["test"]
    assert [int(row["index"]) for row in table] == sorted(test.index.tolist())
    row, row_in_split = table[17], test.index.tolist().index(int(table[17]["index"]))
    outputs = experiment.learner(experiment.data.transform(test.inputs[row_in_split : row_in_split + 1]))
    assert int(row["truth"]) == int(row["target"]) == test.truth[row_in_split]
    assert int(row["prediction"]) == outputs.argmax()
    assert float(row["confidence"]) == pytest.approx(outputs.softmax(1).max().item(), rel=1e-5)
    loss = experiment.learner.loss(outputs, test.target[row_in_split : row_in_split + 1])
    assert float(row["loss"]) == pytest.approx(loss.item(), rel=1e-4, abs=1e-6)


def test_the_highest_losses_come_first_and_noise_is_marked(evaluated, rows):
    where = evaluated("noisy")
    losses = sorted((float(row["loss"]) for row in rows(where / "predictions.csv")), reverse=True)
    worst = rows(where / "worst.csv")
    assert [float(row["loss"]) for row in worst] == losses[:25]
    assert any(row["truth"] != row["target"] for row in worst)
    assert (where / "worst.png").stat().st_size > 5_000


def test_regression_has_residuals_and_predicted_deviations(evaluated, rows, content):
    where = evaluated("values")
    table, measured = rows(where / "predictions.csv"), content(where / "measures.json")
    truth, prediction = (np.array([float(row[name]) for row in table]) for name in _SIDES)
    deviation = np.array([float(row["deviation"]) for row in table])
    assert [float(row["residual"]) for row in table] == pytest.approx(prediction - truth, abs=1e-5)
    assert measured["test/rmse"] == pytest.approx(np.sqrt(((prediction - truth) ** 2).mean()), rel=1e-5)
    assert measured["test/coverage95"] == pytest.approx((abs(prediction - truth) <= 1.96 * deviation).mean())
    assert {"predictions.png", "residuals.png"} <= {path.name for path in where.iterdir()}


def test_a_missing_class_has_no_curve_but_a_reason(runs):
    result = evaluation.evaluate(EvaluationRequest(runs("noisy"), data=("only=1",), trusted=("labelled",)))
    for curves in result.curves:
        assert curves.missing["dark"] == "no example of this split is positive"
        assert curves.missing["grey"] == "every example of this split is positive"
        assert not curves.each
        assert not curves.averages
    assert report.evaluation_name(result.request, None) == "test+only=1"


def test_labels_that_never_occur_have_no_curve(runs, evaluated):
    result = evaluation.evaluate(EvaluationRequest(runs("labels"), trusted=("labelled",)))
    assert [curve.name for curve in result.curves[0].each] == ["low", "middle"]
    assert list(result.curves[0].missing) == ["never"]
    assert {"roc.png", "pr.png", "reliability.png", "confusion.png"} <= {p.name for p in evaluated("labels").iterdir()}


def test_evaluations_of_other_weights_or_data_have_their_own_folders(tmp_path):
    requests = [
        EvaluationRequest(tmp_path),
        EvaluationRequest(tmp_path, "val"),
        EvaluationRequest(tmp_path, checkpoint="last"),
        EvaluationRequest(tmp_path, checkpoint="a/b.ckpt"),
        EvaluationRequest(tmp_path, data=("dir=/one/place",)),
        EvaluationRequest(tmp_path, data=("dir=/one_place",)),
        EvaluationRequest(tmp_path, data=("dir=" + "x" * 300,)),
    ]
    names = [report.evaluation_name(each, None) for each in requests]
    assert names[:3] == ["test", "val", "test+last"]
    assert len(set(names)) == len(names)
    assert all("/" not in name and len(name) < 100 for name in names)
    assert report.evaluation_name(EvaluationRequest(tmp_path, data=("b=1", "a=2")), None) == report.evaluation_name(
        EvaluationRequest(tmp_path, data=("a=2", "b=1")), None
    )


def test_a_folder_with_other_files_is_not_overwritten(runs, evaluated, tmp_path):
    result = evaluation.evaluate(EvaluationRequest(runs("values")))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(LabError, match=r"contains something other than this evaluation: .* --output"):
        report.write_evaluation(result, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    own = evaluated("values")
    (own / "note.txt").write_text("mine")
    report.write_evaluation(result, own)  # the same evaluation again
    assert (own / "note.txt").read_text() == "mine"


def test_nothing_is_written_unless_every_file_can_be_written(runs, tmp_path):
    result = evaluation.evaluate(EvaluationRequest(runs("values")))
    where = tmp_path / "there"
    report.write_evaluation(result, where)
    for path in where.iterdir():
        if path.name != "settings.json":
            path.unlink()
    (where / "worst.csv").mkdir()
    with pytest.raises(LabError, match=r"worst.csv is a folder: remove it, or name another folder with --output"):
        report.write_evaluation(result, where)
    assert {path.name for path in where.iterdir()} == {"settings.json", "worst.csv"}
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_request_accepts_strings_and_rejects_unknown_splits(runs):
    assert reopen(EvaluationRequest(str(runs("digits")), data="eval_batch_size=7")).data.eval_batch_size == 7
    for split in ("nope", "", None):
        with pytest.raises(LabError, match=r"^split must be test or val or train, got"):
            EvaluationRequest(runs("digits"), split)


def test_other_data_are_normalised_with_the_statistics_of_the_run(runs):
    own = reopen(EvaluationRequest(runs("digits")))
    other = reopen(EvaluationRequest(runs("digits"), data=("split_seed=5",)))
    for experiment in (own, other):
        experiment.data.setup()
    assert own.data.class_counts.tolist() == other.data.class_counts.tolist()
    assert not torch.equal(own.data.splits["train"].index, other.data.splits["train"].index)
    assert torch.equal(own.data.transform.mean, other.data.transform.mean)
    own.data.training_metadata = None
    own.data.splits = {}
    own.data.setup()
    assert torch.equal(own.data.transform.mean, other.data.transform.mean)  # what was kept is what had been measured


def test_an_older_run_without_data_json_is_evaluated(runs, content, tmp_path):
    shutil.copytree(runs("digits"), tmp_path / "old")
    (tmp_path / "old" / "data.json").unlink()
    result = evaluation.evaluate(EvaluationRequest(tmp_path / "old"))
    assert result.values["test/nll"] == content(runs("digits") / "metrics.json")["test/nll"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("siez=16", r"no such option; did you mean size\?"),
        ("size=big", "size must be an integer, got 'big'"),
        ("size=true", "size must be an integer, got True"),
        ("batch_size=1.5", "batch_size must be an integer or null, got 1.5"),
        ("size=1,2", "only a single value is accepted"),
        ("size", "KEY=VALUE"),
        ("size=[1", "--data size="),
        ("size=3#", "size must be an integer, got '3#'"),
        ("a b=3", "no such option|is not the name of an option"),
        ("size=16", "cannot load .* into this network"),
        ("size=0", "data.size must be 1 or more pixels"),
    ],
)
def test_invalid_data_options_are_rejected_in_one_line(runs, data, message):
    with pytest.raises(LabError, match=message) as error:
        reopen(EvaluationRequest(runs("digits"), data=(data,)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["/home/josé/x", "a#b", "epoch=1", "a (b)", "1e3"])
def test_paths_of_data_options_are_taken_as_typed(path):
    folder = {"_target_": "losslab.data.image_folder.ImageFolder", "dir": "x"}
    assert parse_data_overrides([f"dir={path}"], folder) == {"dir": path}


def test_data_options_follow_the_grammar_of_hydra(runs):
    data = reopen(
        EvaluationRequest(runs("digits"), data=("data.batch_size=null", "eval_batch_size=7", "cutout=2"))
    ).data
    assert (data.batch_size, data.eval_batch_size, data.augment.cutout) == (None, 7, 2)


def test_each_defect_of_a_checkpoint_has_its_message(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs("digits"), run)
    best = RunFolder(run).best
    whole, state = best.read_bytes(), torch.load(best, weights_only=True)
    best.write_bytes(whole[: len(whole) // 2])
    _refused(run, "best", "is damaged")
    atomic.checksum_path(best).unlink()
    _refused(run, "best", "damaged or not a checkpoint")
    state["state_dict"]["network.1.bias"][3] = torch.nan
    torch.save(state, best)
    _refused(run, "best", r"contains NaN or infinite values \(network.1.bias\)")
    _refused(run, str(RunFolder(runs("cancer")).best), "the weights belong to a different architecture")
    _refused(run, "nowhere.ckpt", r"no checkpoint at nowhere.ckpt: choose one with --ckpt, such as .*best.ckpt")
    torch.save([1, 2], best)
    _refused(run, "best", "contains a list instead of a dict of weights")
    shutil.rmtree(run / "checkpoints")
    _refused(run, "best", "the run saved no checkpoint")


def _refused(run, checkpoint, message):
    with pytest.raises(LabError, match=message) as error:
        reopen(EvaluationRequest(run, checkpoint=checkpoint))
    assert "\n" not in str(error.value)


def test_non_finite_outputs_are_rejected(runs, monkeypatch):
    from losslab.models.learner import Learner

    request, plain = EvaluationRequest(runs("digits")), Learner.forward  # trained before the patch
    monkeypatch.setattr(Learner, "forward", lambda self, x: plain(self, x).index_fill(0, torch.tensor([0]), torch.nan))
    with pytest.raises(LabError, match=r"the outputs of 1 of 270 examples are NaN or infinite, the first is example 6"):
        evaluation.evaluate(request)


def test_a_folder_of_runs_is_rejected_with_the_name_of_one(runs, tmp_path):
    with pytest.raises(LabError, match=r"contains no config\.json$"):
        reopen(EvaluationRequest(tmp_path))
    (tmp_path / "sweep" / "0-mine").mkdir(parents=True)
    shutil.copyfile(runs("digits") / "config.json", tmp_path / "sweep" / "0-mine" / "config.json")
    for folder_of_runs in (tmp_path / "sweep", tmp_path):
        with pytest.raises(LabError, match=r"contains runs: choose one of them, such as .*sweep/0-mine"):
            reopen(EvaluationRequest(folder_of_runs))


def test_relative_data_folders_are_found_from_elsewhere(tmp_path, monkeypatch):
    from losslab.training import reopen

    monkeypatch.chdir(tmp_path)
    (tmp_path / "there" / "pictures").mkdir(parents=True)
    run = RunFolder(tmp_path / "run")
    (run.path / ".hydra").mkdir(parents=True)
    with pytest.raises(LabError, match=r"data.dir=pictures does not exist in .*\. Set .* --data dir=FOLDER"):
        reopen.locate_data(run, {"dir": "pictures"}, {})
    (run.path / ".hydra" / "hydra.yaml").write_text(f"hydra:\n  runtime:\n    cwd: {tmp_path / 'there'}\n")
    assert reopen.locate_data(run, {"dir": "pictures"}, {}) == {"dir": str(tmp_path / "there" / "pictures")}
    assert reopen.locate_data(run, {"dir": "pictures"}, {"dir": "elsewhere"}) == {"dir": "pictures"}
    (tmp_path / "pictures").mkdir()
    assert reopen.locate_data(run, {"dir": "pictures"}, {}) == {"dir": "pictures"}


def test_figures_name_the_run_the_weights_and_the_examples(runs):
    result = evaluation.evaluate(EvaluationRequest(runs("digits"), checkpoint="last"))
    assert (
        report._note(result, report.evaluation_settings(result))
        == "mlp-digits-cross_entropy-s0 · last.ckpt · 270 test examples"
    )
    for name, stem in (("digits", "class"), ("labels", "label")):
        other = evaluation.evaluate(EvaluationRequest(runs(name), trusted=("labelled",)))
        title = report.figures.draw_curves(other.curves[0], other.predictions).axes[0].get_title()
        assert f"; lowest: {stem} " in title
    for stem, drawn in report._draw_figures(result, result.predictions.highest_loss(5)):
        figure = report.figures.add_note(drawn, "small print")
        texts = [text.get_text() for text in (*figure.texts, figure._supxlabel, figure._suptitle) if text is not None]
        assert "small print" in texts, stem


def test_loss_of_the_whole_batch_has_all_metrics_but_no_losses_of_examples(runs, evaluated, rows, content):
    folder = evaluated("dice")
    names = {path.name for path in folder.iterdir()}
    assert {"confusion.csv", "reliability.png", "roc.png", "report.txt", "predictions.csv"} <= names
    assert not {"worst.csv", "worst.png"} & names
    assert "loss" not in rows(folder / "predictions.csv")[0]
    trained, measured = content(runs("dice") / "metrics.json"), content(folder / "measures.json")
    assert {key: value for key, value in trained.items() if "test/" in key}.items() <= measured.items()


def test_whole_batches_are_summed_in_order_as_in_one_process(runs):
    experiment = reopen(EvaluationRequest(runs("dice"), trusted=("batch_losses",)))
    outputs = collect_outputs(experiment, "test")
    assert outputs.loss.isnan().all()
    assert evaluation._sum_in_order(experiment, outputs)["loss"] == experiment.learner.values["test/loss"]


def test_only_one_note_says_that_a_loss_scores_whole_batches(runs, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("losslab.cli.process.exit_now", lambda _: None)
    caplog.set_level("INFO")
    evaluate_command([str(runs("dice")), "--trust", "batch_losses", "--output", str(tmp_path / "out")])
    assert caplog.text.count("as a whole") == 1
    assert "test/loss is the mean over batches of data.eval_batch_size" in caplog.text


@pytest.mark.parametrize("split", ["test", "val"])
def test_metrics_that_differ_from_those_of_training_are_named_with_the_likely_cause(split, runs):
    result = evaluation.evaluate(EvaluationRequest(runs("warming"), split, trusted=("batch_losses",)))
    assert set(result.not_reproduced()) == {f"{split}/loss"}
    (note,) = _difference_notes(result)
    assert f"{split}/loss differs from metrics.json" in note
    assert "the loss has a state that checkpoints lack" in note


def test_changed_weights_are_noticed_in_all_metrics(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs("digits"), folder)
    metrics = read_json(folder / "metrics.json")
    atomic.write_json(folder / "metrics.json", metrics | {"test/loss": 3.0, "test/accuracy": 0.1})
    result = evaluation.evaluate(EvaluationRequest(folder))
    (note,) = _difference_notes(result)
    assert "(so do 1 other metrics): the data, the code or the precision have changed" in note


@pytest.mark.parametrize("options", [{"split": "train"}, {"checkpoint": "last"}, {"data": ("eval_batch_size=50",)}])
def test_evaluation_of_something_else_is_not_compared_with_metrics(options, runs):
    result = evaluation.evaluate(EvaluationRequest(runs("warming"), trusted=("batch_losses",), **options))
    if options.get("checkpoint") != "last" or (runs("warming") / "checkpoints" / "best.ckpt").is_file():
        assert not result.not_reproduced()


def test_a_run_that_was_tested_on_one_batch_is_not_compared_with_metrics(runs, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs("warming"), folder)
    config = read_json(folder / "config.json")
    config["trainer"]["limit_test_batches"] = 1
    atomic.write_json(folder / "config.json", config)
    assert not evaluation.evaluate(EvaluationRequest(folder, trusted=("batch_losses",))).not_reproduced()


@pytest.mark.parametrize("name", ["digits", "values"])
def test_unchanged_runs_are_reproduced(name, runs):
    for split in ("test", "val"):
        assert not evaluation.evaluate(EvaluationRequest(runs(name), split)).not_reproduced()

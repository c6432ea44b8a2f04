"""Evaluation of runs before and after calibration: what is fitted on which split, and what is written and logged."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from losslab.analysis.evaluate import evaluation, report
from losslab.analysis.evaluate.calibration import Calibration, calibrated_metrics, find_logits
from losslab.analysis.outputs import collect_outputs
from losslab.cli.evaluate import _calibration_notes, _log_calibration
from losslab.cli.evaluate import evaluate as evaluate_command
from losslab.errors import LabError
from losslab.io import atomic
from losslab.io.untrusted import read_json
from losslab.training.reopen import EvaluationRequest, reopen

TRUSTED = ("labelled", "batch_losses")


def calibrate(run, method, split="test", checkpoint="last", data=()):
    return evaluation.evaluate(EvaluationRequest(run, split, checkpoint, data, TRUSTED), calibration_method=method)


@pytest.fixture(scope="module")
def scaled(runs):
    """The evaluation of an overconfident network with a temperature."""
    return calibrate(runs("overconfident"), "temperature")


@pytest.mark.parametrize("name", ["digits", "cancer", "labels"])
def test_metrics_without_a_change_are_those_of_training(name, runs, content):
    experiment = reopen(EvaluationRequest(runs(name), trusted=TRUSTED))
    outputs, spec = collect_outputs(experiment, "test"), experiment.learner.spec
    logits = find_logits(experiment.learner.loss, outputs.outputs, spec.task)
    found = calibrated_metrics(Calibration(), logits, outputs.truth.numpy(), spec)
    trained = {name.removeprefix("test/"): value for name, value in content(runs(name) / "metrics.json").items()}
    assert len(found) >= 6
    assert found == pytest.approx({name: trained[name] for name in found}, rel=1e-5, abs=1e-6)


def test_temperature_calibrates_an_overconfident_network_and_keeps_its_predictions(scaled):
    before, after, fit = scaled.values, scaled.calibrated.values, scaled.calibrated.fit
    assert scaled.calibrated.calibration.temperature > 1.2
    assert fit.examples == 270
    assert fit.metric == "nll"
    assert fit.after < fit.before - 0.01
    assert after["test/nll"] < before["test/nll"] - 0.01
    assert after["test/ece"] < before["test/ece"]
    assert after["test/accuracy"] == before["test/accuracy"]
    assert (scaled.calibrated.predictions.prediction == scaled.predictions.prediction).all()
    assert after.keys() == before.keys() - {"test/loss"}


def test_temperature_is_fitted_on_the_validation_split_alone(scaled, runs):
    on_val = calibrate(runs("overconfident"), "temperature", "val")
    assert on_val.calibrated.calibration == scaled.calibrated.calibration
    assert on_val.calibrated.fit == scaled.calibrated.fit
    assert on_val.calibrated.values["val/nll"] == pytest.approx(scaled.calibrated.fit.after, rel=1e-6)
    assert on_val.values["val/nll"] == pytest.approx(scaled.calibrated.fit.before, rel=1e-5)
    on_train = calibrate(runs("overconfident"), "temperature", "train")
    assert on_train.calibrated.calibration == scaled.calibrated.calibration
    plain = evaluation.evaluate(EvaluationRequest(runs("overconfident"), "train", "last"))
    assert on_train.values == plain.values
    assert len(on_train.predictions) == 1257


def test_the_files_of_an_evaluation_stay_and_new_ones_are_added(scaled, runs, rows, content, tmp_path):
    report.write_evaluation(
        evaluation.evaluate(EvaluationRequest(runs("overconfident"), "test", "last")), tmp_path / "a"
    )
    written = report.write_evaluation(scaled, tmp_path / "b")
    plain, more = ({path.name: path for path in (tmp_path / folder).iterdir()} for folder in "ab")
    assert sorted(written) == sorted(more)
    new = {"calibrated_report.txt", "calibrated_probabilities.npy", "calibrated_reliability.png"}
    assert more.keys() - plain.keys() == new
    extended = {"measures.json", "settings.json", "predictions.csv", "worst.csv"}
    assert [name for name in plain.keys() - extended if plain[name].read_bytes() != more[name].read_bytes()] == []
    old, now = content(plain["measures.json"]), content(more["measures.json"])
    assert {name: now[name] for name in old} == old
    assert now["calibration"] == {
        "method": "temperature",
        "temperature": scaled.calibrated.calibration.temperature,
        "fit": {"split": "val", "examples": 270, "metric": "nll", "before": scaled.calibrated.fit.before,
                "after": scaled.calibrated.fit.after},
    }  # fmt: skip
    assert now["calibrated"]["test/nll"] == scaled.calibrated.values["test/nll"]
    assert "classes" in now["calibrated"]
    table = rows(more["predictions.csv"])
    assert [name for name in table[0] if name not in rows(plain["predictions.csv"])[0]] == [
        "calibrated_prediction",
        "calibrated_confidence",
        "calibrated_prediction_name",
    ]
    probabilities = np.load(more["calibrated_probabilities.npy"])
    confidence = [float(row["calibrated_confidence"]) for row in table]
    assert confidence == pytest.approx(probabilities.max(1), rel=1e-6)
    assert f"ece {now['test/ece']:.4f} {now['calibrated']['test/ece']:.4f}" in " ".join(
        more["calibrated_report.txt"].read_text().split()
    )
    assert report.evaluation_settings(scaled)["calibration"] == "temperature"


def test_calibrated_evaluations_have_folders_of_their_own(tmp_path):
    request = EvaluationRequest(tmp_path, checkpoint="last")
    names = [report.evaluation_name(request, None, method) for method in (None, "temperature", "thresholds")]
    assert names == ["test+last", "test+last+temperature", "test+last+thresholds"]


def test_the_command_writes_beside_the_plain_evaluation(runs, evaluated, monkeypatch, caplog):
    monkeypatch.setattr("losslab.cli.process.exit_now", lambda _: None)
    caplog.set_level("INFO")
    plain = {path.name: path.read_bytes() for path in evaluated("digits").iterdir()}
    evaluate_command([str(runs("digits")), "--calibrate", "temperature"])
    assert {path.name: path.read_bytes() for path in evaluated("digits").iterdir()} == plain
    assert (evaluated("digits").parent / "test+temperature" / "calibrated_reliability.png").stat().st_size > 5_000
    assert "fitted on 270 val examples: nll" in caplog.text
    assert "0 of 270 predictions change" in caplog.text
    assert "metric                      test   calibrated" in caplog.text


def test_both_reliability_diagrams_are_in_one_figure_with_their_errors(scaled):
    drawn = dict(report._draw_figures(scaled, scaled.predictions.highest_loss(5)))
    left, right = drawn["calibrated_reliability"].axes[:2]
    assert left.get_title().startswith(f"before temperature\nECE {scaled.values['test/ece']:.4f}")
    assert right.get_title().startswith(f"after temperature\nECE {scaled.calibrated.values['test/ece']:.4f}")
    assert drawn["reliability"].axes[0].get_title() == left.get_title().partition("\n")[2]


def test_logit_adjustment_divides_by_the_class_frequencies_in_training(runs, content):
    result = calibrate(runs("imbalanced"), "logit_adjustment")
    counts = np.array(content(runs("imbalanced") / "data.json")["class_counts"])
    assert counts.max() > 15 * counts.min()
    expected = result.predictions.probabilities / counts
    expected /= expected.sum(1, keepdims=True)
    assert result.calibrated.predictions.probabilities == pytest.approx(expected, abs=1e-6)
    assert result.calibrated.fit is None
    assert result.calibrated.values["test/recall"] > result.values["test/recall"]
    scores = result.calibrated.predictions.scores
    assert softmax(scores, axis=1) == pytest.approx(expected, abs=1e-6)


def test_logit_adjustment_with_unknown_class_counts_says_that_nothing_changes(runs, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(runs("imbalanced"), folder)
    atomic.write_json(folder / "data.json", read_json(folder / "data.json") | {"class_counts": None})
    result = calibrate(folder, "logit_adjustment")
    assert result.calibrated.values == pytest.approx({name: result.values[name] for name in result.calibrated.values})
    caplog.set_level("INFO")
    _log_calibration(result.calibrated, result.predictions)
    assert "logit_adjustment changes nothing: the class counts are not known" in caplog.text
    assert "0 of 270 predictions change" in caplog.text


def test_logit_adjustment_of_labels_uses_their_frequencies(runs, content, tmp_path):
    known = content(runs("cancer") / "data.json")
    ones, size = known["class_counts"][0], known["contents"]["train"][0]
    fitted = calibrate(runs("cancer"), "logit_adjustment").calibrated.calibration
    assert fitted.offsets == pytest.approx((np.log(ones / (size - ones)),))
    folder = tmp_path / "run"
    shutil.copytree(runs("cancer"), folder)
    atomic.write_json(folder / "data.json", known | {"contents": None})  # as in runs of early versions
    assert calibrate(folder, "logit_adjustment").calibrated.calibration.changes_nothing
    (folder / "data.json").unlink()
    assert calibrate(folder, "logit_adjustment").calibrated.calibration == fitted


@pytest.mark.parametrize("method", ["thresholds", "f1_thresholds"])
def test_thresholds_change_decisions_but_no_probabilities(method, runs, rows, tmp_path):
    result = calibrate(runs("labels"), method, "val")
    after = result.calibrated
    thresholds, probabilities = np.array(after.calibration.thresholds), result.predictions.probabilities
    # For a label that never occurs, F1 is 0 at every threshold, and accuracy is highest where it is never predicted.
    assert (thresholds[2] == 0.5) if method == "f1_thresholds" else not after.predictions.prediction[:, 2].any()
    assert (thresholds[:2] != 0.5).any()
    assert (after.predictions.prediction == (probabilities > thresholds)).all()
    assert after.predictions.probabilities == pytest.approx(probabilities, abs=1e-6)
    assert after.values["val/nll"] == pytest.approx(result.values["val/nll"], rel=1e-6)
    assert after.values[f"val/{after.fit.metric}"] == after.fit.after > after.fit.before
    written = report.write_evaluation(result, tmp_path / "out")
    assert "calibrated_reliability.png" not in written
    row = rows(tmp_path / "out" / "predictions.csv")[0]
    assert int(row["calibrated_prediction_low"]) == (float(row["probability_low"]) > thresholds[0])


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("values", "temperature", "temperature calibrates the probabilities of classes or labels, .* a regression"),
        ("digits", "thresholds", "exclusive classes: use temperature"),
        ("digits", "platt", "there is no calibration method 'platt'"),
        ("squares", "temperature", "the outputs under MSE are something else"),
    ],
)
def test_runs_that_cannot_be_calibrated_are_refused_before_they_are_evaluated(
    name, method, message, runs, tmp_path, monkeypatch
):
    run = with_loss(runs("digits"), tmp_path, {"_target_": "losslab.losses.MSE"}) if name == "squares" else runs(name)
    monkeypatch.setattr(evaluation, "collect_outputs", None)
    with pytest.raises(LabError, match=message) as error:
        calibrate(run, method)
    assert "\n" not in str(error.value)


def with_loss(run, folder, loss):
    """Copy a run, and replace its loss."""
    shutil.copytree(run, folder / "run")
    atomic.write_json(folder / "run" / "config.json", read_json(run / "config.json") | {"loss": loss})
    return folder / "run"


def test_a_validation_split_without_examples_is_refused(runs, monkeypatch):
    collect = evaluation.collect_outputs

    def without_validation(experiment, split):
        outputs = collect(experiment, split)
        return replace(outputs, index=outputs.index[:0]) if split == "val" else outputs

    monkeypatch.setattr(evaluation, "collect_outputs", without_validation)
    with pytest.raises(LabError, match="split val contains no examples: calibration is fitted on it"):
        calibrate(runs("digits"), "temperature")


def test_whole_batch_losses_of_logits_are_calibrated(runs):
    result = calibrate(runs("dice"), "temperature")
    assert result.calibrated.fit.after <= result.calibrated.fit.before
    assert result.calibrated.values["test/accuracy"] == result.values["test/accuracy"]


def test_notes_say_what_the_calibrated_metrics_do_not_tell(scaled, runs):
    assert _calibration_notes(scaled) == []
    (note,) = _calibration_notes(calibrate(runs("overconfident"), "temperature", "val"))
    assert note.startswith("the calibrated metrics are too good for new examples, because temperature was fitted on")
    (note,) = _calibration_notes(calibrate(runs("overconfident"), "temperature", "train"))
    assert note.endswith("it does not calibrate examples on which the network was trained")
    (note,) = _calibration_notes(calibrate(runs("overconfident"), "temperature", data=("split_seed=3",)))
    assert note == "temperature was fitted on the val split of the changed data"
    assert _calibration_notes(replace(scaled, calibrated=None)) == []


def test_a_note_says_why_a_calibration_may_make_its_own_metric_worse(scaled):
    worse = replace(scaled.calibrated, values=scaled.calibrated.values | {"test/nll": scaled.values["test/nll"] + 0.1})
    (note,) = _calibration_notes(replace(scaled, calibrated=worse))
    assert note == "temperature made test/nll worse: there may be too few val examples"
    best = replace(scaled.request, checkpoint="best")
    (note,) = _calibration_notes(replace(scaled, calibrated=worse, request=best))
    assert note.endswith("too easy because they also selected the best epoch (--ckpt last)")
    fit = replace(scaled.calibrated.fit, metric="f1")
    lower = replace(scaled.calibrated, fit=fit, values=scaled.calibrated.values | {"test/f1": 0.0})
    (note,) = _calibration_notes(replace(scaled, calibrated=lower))
    assert note.startswith("temperature made test/f1 worse")


def test_a_note_says_that_a_loss_weighs_classes_already(runs, tmp_path):
    again = with_loss(runs("imbalanced"), tmp_path, {"_target_": "losslab.losses.LogitAdjusted", "tau": 1.0})
    (note,) = _calibration_notes(calibrate(again, "logit_adjustment"))
    assert "weighs classes in training already" in note
    assert _calibration_notes(calibrate(runs("imbalanced"), "logit_adjustment")) == []

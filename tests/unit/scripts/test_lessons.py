"""docs/lessons.md: its claims hold for the recorded results and for smaller runs."""

import re
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pages.experiments import read_records, read_results
from pages.lessons import LESSONS, curves, figure, text
from pages.lessons.lesson import Preset, make_group

from losslab.training.config import compose
from losslab.training.experiment import build, run

DOCS = Path(__file__).resolve().parents[3] / "docs"
NAMES = {
    "huber_beats_mse", "mae_underfits", "robust_losses_under_label_noise", "focal_and_calibration",
    "label_smoothing_and_calibration", "mse_as_a_classifier", "long_tail", "vanishing_gradients", "clipping",
}  # fmt: skip

BARE = {"callbacks": {}, "logger": {}}

each = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)


@pytest.fixture(scope="module")
def recorded():
    return read_results(DOCS / "lessons")


def test_all_lessons_exist():
    assert {lesson.name for lesson in LESSONS} == NAMES


def test_a_changed_result_changes_the_page(recorded):
    records, current = read_records(DOCS / "lessons"), (DOCS / "lessons.md").read_text()
    assert text(LESSONS, recorded, records) == current
    changed = [replace(recorded[0], value=2 * recorded[0].value), *recorded[1:]]
    assert text(LESSONS, changed, records) != current


@each
def test_a_preset_has_its_question_command_cost_and_expected_result(lesson):
    preset = lesson.preset
    assert preset.command == f"python train.py experiment={lesson.name}"
    assert preset.question.endswith("?")
    assert preset.cost.startswith(f"{len(preset.jobs(99))} runs")
    assert preset.expected.endswith(".")
    assert len(preset.sweep["seed"]) >= 5
    assert not any("#" in line for line in preset.body)


@each
def test_every_claim_holds_for_the_recorded_results(lesson, recorded):
    groups = lesson.groups(recorded)
    assert {len(one.runs) for one in groups} == {len(lesson.preset.sweep["seed"])}
    found = [panel.check(claim, groups) for panel in lesson.panels for claim in panel.claims]
    assert found
    assert not any(found), found


def test_a_claim_that_does_not_hold_is_reported(recorded):
    lesson = LESSONS[0]
    panel = lesson.panels[0]
    groups, claim = lesson.groups(recorded), panel.claims[1]
    assert panel.check(claim, groups) == ""
    assert "better in test/mse, not worse" in panel.check(replace(claim, verdict="worse"), groups)
    assert "not from" in panel.check(replace(claim, high=1e-3), groups)
    assert panel.check(replace(claim, high=1e-3), groups, bounds=False) == ""


@each
def test_the_figure_shows_the_recorded_results(lesson, recorded):
    points = curves.read_points(DOCS / "lessons" / f"{lesson.name}.csv")
    drawn = figure.draw(lesson, lesson.groups(recorded), points)
    left, *right = drawn.axes
    shown = {label.get_text() for label in left.get_legend().get_texts()} - {"perfect calibration"}
    assert shown == {figure.short_label(point.series) for point in points}
    assert len(right) == len(lesson.panels)
    assert (DOCS / "lessons" / f"{lesson.name}.png").is_file()


@each
def test_suggested_overrides_can_be_built(lesson, tmp_path):
    quoted = [code.split() for code in re.findall(r"`([^`]*)`", lesson.suggestions)]
    suggested = [parts for parts in quoted if all("=" in part for part in parts)]
    assert suggested
    for parts in suggested:
        one = [re.sub(r"=([^,]*),.*", r"=\1", part) for part in parts]
        build(compose([f"experiment={lesson.name}", *one], run_dir=str(tmp_path)) | BARE)


def panels_to_retest(lesson):
    """Yield panels with the claims that smaller runs must confirm, and the labels of the groups to run for them."""
    for panel in (panel for panel in lesson.panels if panel.within not in lesson.not_retested):
        claims = [claim for claim in panel.claims if claim.retested and claim.verdict in {"better", "worse"}]
        if claims:
            yield panel, claims, [panel.baseline, *dict.fromkeys(claim.group for claim in claims)]


def run_smaller(lesson, names, folder):
    """Run the preset with fewer seeds and epochs, and return the groups with these names."""
    found = {}
    for job in lesson.preset.jobs(lesson.quick_seeds):
        name, seed = tuple(sorted(job[1:-1], key=lambda part: not part.startswith("loss"))), int(job[-1][5:])
        if name in names:
            config = compose([*job, *lesson.quick_overrides, "trainer=cpu"], run_dir=str(folder / "_".join(job[1:])))
            found.setdefault(name, {})[seed] = run(build(config | BARE))
    return [make_group(name, seeds) for name, seeds in found.items()]


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are tiny
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@each
def test_smaller_runs_confirm_the_claims_of_a_lesson(lesson, tmp_path):
    needed = list(panels_to_retest(lesson))
    assert needed
    for panel, claims, labels in needed:
        names = {(*label.split(), *filter(None, [panel.within])) for label in labels}
        groups = run_smaller(lesson, names, tmp_path / panel.baseline)
        assert len(groups) == len(names)
        for claim in claims:
            assert panel.check(claim, groups, bounds=False) == ""


def test_calibrated_predictions_lie_on_the_diagonal(monkeypatch):
    random = np.random.default_rng(0)
    confidence = random.uniform(0.3, 1.0, 20_000)
    right = random.uniform(size=20_000) < confidence
    monkeypatch.setattr(curves, "_predictions", lambda _: (confidence, right.astype(int), np.ones(20_000, dtype=int)))
    rows = curves.reliability_curve(make_group(["loss=mse"], {0: {}}))
    assert len(rows) == 7
    for mean, share, low, high in rows:
        assert low < share < high
        assert share == pytest.approx(mean, abs=0.04)


def test_recall_is_the_share_of_a_class_that_is_predicted_correctly(monkeypatch):
    guess, truth = np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1])
    answers = iter([(None, guess, truth), (None, truth, truth)])
    monkeypatch.setattr(curves, "_predictions", lambda _: next(answers))
    rows = curves.recall_by_class(make_group(["loss=mse"], {0: {}, 1: {}}))
    assert rows == [(0, 0.75, 0.5, 1.0), (1, 0.75, 0.5, 1.0)]


def test_the_gradient_of_the_correct_logit_is_p_minus_1_for_cross_entropy_and_has_the_factor_p_for_brier(monkeypatch):
    outputs = np.array([[[0.0, 12.0, 0.0], [9.0, 0.0, 0.0]]])
    record = SimpleNamespace(epoch=np.array([4]), outputs=outputs, target=np.zeros(2, dtype=int))
    record.mispredicted = lambda: np.array([[True, False]])
    monkeypatch.setattr(curves.Record, "load", lambda _: record)
    gradients = {}
    for name in ("cross_entropy", "brier"):
        one = make_group([f"loss={name}"], {0: {}})
        one.runs[0].config["loss"] = compose([f"loss={name}", "data=digits"], run_dir="nowhere")["loss"]
        ((epoch, gradients[name], _, _),) = curves.gradient_on_wrong(one)
        assert epoch == 4
    p = float(torch.tensor(outputs[0, 0]).softmax(0)[0])
    assert gradients["cross_entropy"] == pytest.approx(1 - p)
    assert gradients["brier"] == pytest.approx(4 * p, rel=1e-3)


def test_a_difference_whose_interval_contains_0_is_not_distinguishable():
    panel = replace(LESSONS[0].panels[0], within="")
    same = {seed: {"test/mse": value} for seed, value in enumerate((1.0, 2.0, 3.0))}
    near = {seed: {"test/mse": value} for seed, value in enumerate((1.1, 1.9, 3.1))}
    (comparison,) = panel.compare([make_group(["loss=mse"], same), make_group(["loss=huber"], near)])
    assert [one.verdict for one in comparison.differences] == ["not distinguishable"]


def test_a_preset_is_read_with_its_sweep():
    preset = Preset.read("clipping")
    values = preset.sweep["trainer.gradient_clip_val"]
    assert values == ["null", "1.0"]
    assert len(preset.jobs(2)) == len(list(product(preset.sweep["loss"], values, range(2))))

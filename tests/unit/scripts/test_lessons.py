"""docs/lessons.md: what its numbers are said to show they show, and smaller runs of the same presets show it again."""

import re
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import lessons as command
import numpy as np
import pytest
import torch
from campaigns import campaign
from curriculum import figure, page, sight
from curriculum.lesson import Lesson
from curriculum.lessons import LESSONS
from curriculum.preset import Preset
from curriculum.standings import failing, group, groups_of, standings

from losslab.training.config import compose
from losslab.training.experiment import build, run

DOCS = Path(__file__).resolve().parents[3] / "docs"
ASKED_FOR = {
    "huber_beats_mse", "mae_underfits", "robust_losses_under_label_noise", "focal_and_calibration",
    "label_smoothing_and_calibration", "mse_as_a_classifier", "long_tail", "vanishing_gradients", "clipping",
}  # fmt: skip

BARE = {"callbacks": {}, "logger": {}}

each = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.name)


@pytest.fixture(scope="module")
def kept():
    return campaign.read(DOCS / "lessons")[0]


def test_all_lessons_are_there():
    assert {lesson.name for lesson in LESSONS} == ASKED_FOR


def test_the_page_fits_its_presets_and_its_numbers():
    assert page.stale(DOCS) == [], "renew it: python scripts/lessons.py NAME, or --page where only words changed"


def test_a_changed_preset_makes_the_page_stale(monkeypatch):
    monkeypatch.setattr(Lesson, "said", {"command": "python train.py"})
    assert set(page.stale(DOCS)) == ASKED_FOR


def test_a_changed_number_makes_the_page_stale(kept):
    facts = campaign.read(DOCS / "lessons")[1]
    assert page.text(kept, facts) == (DOCS / "lessons.md").read_text()
    assert page.text([replace(kept[0], value=2 * kept[0].value), *kept[1:]], facts) != (DOCS / "lessons.md").read_text()


@each
def test_a_preset_says_its_question_command_cost_and_result(lesson):
    preset = lesson.preset
    assert preset.command == f"python train.py experiment={lesson.name}"
    assert preset.question.endswith("?")
    assert preset.cost.startswith(f"{len(preset.jobs(99))} runs")
    assert preset.expected.endswith(".")
    assert len(preset.sweep["seed"]) >= 5
    assert not any("#" in line for line in preset.body)


@each
def test_a_claim_holds_of_the_kept_numbers(lesson, kept):
    groups = groups_of(lesson, kept)
    assert {len(one.runs) for one in groups} == {len(lesson.preset.sweep["seed"])}
    found = [failing(claim, panel, groups) for panel in lesson.panels for claim in panel.claims]
    assert found
    assert not any(found), found


def test_a_claim_that_does_not_hold_is_found(kept):
    lesson = LESSONS[0]
    panel = lesson.panels[0]
    groups, claim = groups_of(lesson, kept), panel.claims[1]
    assert failing(claim, panel, groups) == ""
    assert "better in test/mse, not worse" in failing(replace(claim, verdict="worse"), panel, groups)
    assert "not from" in failing(replace(claim, high=1e-3), panel, groups)
    assert failing(replace(claim, high=1e-3), panel, groups, bounds=False) == ""


@each
def test_the_figure_is_drawn_of_the_kept_numbers(lesson, kept):
    points = sight.read(DOCS / "lessons" / f"{lesson.name}.csv")
    drawn = figure.draw(lesson, groups_of(lesson, kept), points)
    curves, *ends = drawn.axes
    shown = {text.get_text() for text in curves.get_legend().get_texts()} - {"as sure as right"}
    assert shown == {figure.said(point.series) for point in points}
    assert len(ends) == len(lesson.panels)
    assert (DOCS / "lessons" / f"{lesson.name}.png").is_file()


@each
def test_what_one_is_told_to_try_can_be_tried(lesson, tmp_path):
    told = [said.split() for said in re.findall(r"`([^`]*)`", lesson.tries)]
    overrides = [said for said in told if all("=" in part for part in said)]
    assert overrides
    for said in overrides:
        one = [re.sub(r"=([^,]*),.*", r"=\1", part) for part in said]
        build(compose([f"experiment={lesson.name}", *one], run_dir=str(tmp_path)) | BARE)


def wanted(lesson):
    """The circumstances and groups that are needed to see again what is better and what is worse."""
    for panel in (panel for panel in lesson.panels if panel.within not in lesson.left_out):
        claims = [claim for claim in panel.claims if claim.again and claim.verdict in {"better", "worse"}]
        if claims:
            yield panel, claims, [panel.baseline, *dict.fromkeys(claim.group for claim in claims)]


def fresh(lesson, names, folder):
    """The groups of these names, from runs of the preset with fewer seeds and epochs."""
    found = {}
    for job in lesson.preset.jobs(lesson.seeds):
        name, seed = tuple(sorted(job[1:-1], key=lambda part: not part.startswith("loss"))), int(job[-1][5:])
        if name in names:
            config = compose([*job, *lesson.quick, "trainer=cpu"], run_dir=str(folder / "_".join(job[1:])))
            found.setdefault(name, {})[seed] = run(build(config | BARE))
    return [group(name, seeds) for name, seeds in found.items()]


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are tiny
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@each
def test_what_a_lesson_says_comes_out_again(lesson, tmp_path):
    needed = list(wanted(lesson))
    assert needed
    for panel, claims, labels in needed:
        names = {(*label.split(), *filter(None, [panel.within])) for label in labels}
        groups = fresh(lesson, names, tmp_path / panel.baseline)
        assert len(groups) == len(names)
        for claim in claims:
            assert failing(claim, panel, groups, bounds=False) == ""


def test_honest_answers_lie_on_the_diagonal(monkeypatch):
    random = np.random.default_rng(0)
    confidence = random.uniform(0.3, 1.0, 20_000)
    right = random.uniform(size=20_000) < confidence
    monkeypatch.setattr(sight, "_answers", lambda _: (confidence, right.astype(int), np.ones(20_000, dtype=int)))
    rows = sight.reliability(group(["loss=mse"], {0: {}}))
    assert len(rows) == 7
    for place, share, low, high in rows:
        assert low < share < high
        assert share == pytest.approx(place, abs=0.04)


def test_a_recall_is_the_share_of_a_class_that_is_found(monkeypatch):
    guess, truth = np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1])
    answers = iter([(None, guess, truth), (None, truth, truth)])
    monkeypatch.setattr(sight, "_answers", lambda _: next(answers))
    rows = sight.recall_by_class(group(["loss=mse"], {0: {}, 1: {}}))
    assert rows == [(0, 0.75, 0.5, 1.0), (1, 0.75, 0.5, 1.0)]


def test_what_pulls_at_the_right_logit_is_p_minus_1_under_cross_entropy_and_times_p_under_brier(monkeypatch):
    outputs = np.array([[[0.0, 12.0, 0.0], [9.0, 0.0, 0.0]]])
    record = SimpleNamespace(epoch=np.array([4]), outputs=outputs, target=np.zeros(2, dtype=int))
    record.margin = np.array([[-12.0, 9.0]])
    monkeypatch.setattr(sight.Record, "load", lambda _: record)
    pulls = {}
    for name in ("cross_entropy", "brier"):
        one = group([f"loss={name}"], {0: {}})
        one.runs[0].config["loss"] = compose([f"loss={name}", "data=digits"], run_dir="nowhere")["loss"]
        ((epoch, pulls[name], _, _),) = sight.pull_on_the_wrong(one)
        assert epoch == 4
    p = float(torch.tensor(outputs[0, 0]).softmax(0)[0])
    assert pulls["cross_entropy"] == pytest.approx(1 - p)
    assert pulls["brier"] == pytest.approx(4 * p, rel=1e-3)


def test_an_interval_without_a_difference_claims_nothing():
    panel = replace(LESSONS[0].panels[0], within="")
    same = {seed: {"test/mse": value} for seed, value in enumerate((1.0, 2.0, 3.0))}
    near = {seed: {"test/mse": value} for seed, value in enumerate((1.1, 1.9, 3.1))}
    (place,) = standings(panel, [group(["loss=mse"], same), group(["loss=huber"], near)])
    assert [one.verdict for one in place.differences] == ["not distinguishable"]


def test_a_preset_is_read_with_its_sweep():
    preset = Preset.read("clipping")
    values = preset.sweep["trainer.gradient_clip_val"]
    assert values == ["null", "1.0"]
    assert len(preset.jobs(2)) == len(list(product(preset.sweep["loss"], values, range(2))))


def test_an_unknown_lesson_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lessons.py", "all_of_it"])
    with pytest.raises(SystemExit):
        command.main()
    assert "no lesson all_of_it" in capsys.readouterr().err

"""Simulated studies are rarely wrong: a short version of the campaign `study` of `make soak`."""

import logging

import pytest
from soak.__main__ import write_page
from soak.record import Case, CaseResult, Record
from soak.simulated_study import Runs, Scenario, SimulatedStudy, simulate
from soak.study import SCENARIOS, Promise, measure

from losslab.study.answer import Answer


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(logging.getLogger("losslab"), "level", logging.CRITICAL)


def measured(scenario, studies):
    return measure([simulate(scenario, number) for number in range(studies)])


@pytest.mark.parametrize(
    ("name", "studies"),
    [
        ("no difference, 7 pairs", 100),
        ("at the margin, 3 pairs", 100),
        ("half the detectable difference", 60),
        ("extended from 10 to 20 to 45 seeds, no difference", 80),
        ("diverging losses, no difference", 60),
        ("methods after training, at the margin", 60),
        ("360 test examples, at the margin", 40),
    ],
)
def test_studies_keep_their_promises(name, studies):
    promise = SCENARIOS[name]
    found = measured(promise.scenario, studies)
    assert list(Promise(promise.scenario, (0.9, 1.0)).failures(found)) == []


def test_studies_that_do_not_pay_for_their_looks_break_them():
    scenario = Scenario((0,) * 4, unpaid=True)
    found = measured(scenario, 60)
    assert found["false_difference"] > 0.1
    paid = Promise(Scenario((0,) * 4))
    assert "a false difference in " in next(paid.failures(found))


def test_the_same_study_is_simulated_each_time():
    scenario = SCENARIOS["other best learning rates, no difference"].scenario
    assert simulate(scenario, 3) == simulate(scenario, 3) != simulate(scenario, 4)


def test_a_loss_that_diverges_in_the_race_is_run_again_with_its_next_best_rate():
    runs = Runs(Scenario((0, 0), spread=0.2, diverging=(0, 1), reference=False), 0)
    study = SimulatedStudy(runs, 20, 2)
    tunings = study.tune()
    assert [each.best_result.trial["optimizer.lr"] for each in tunings] == [0.01, 0.01]
    race = study.race(tunings)
    assert study.rates == [0.01, 0.0056]
    assert race.rows[1].diverged == []
    assert race.rows[1].values.keys() == race.rows[0].values.keys()
    assert race.rows[1].values[0] == runs.scenario.convert(runs.value(1, 0.0056, 0))
    answer = Answer(study.settings, tunings, race, {}, {}, [])
    assert "1 diverged at optimizer.lr=0.01; the next best trial" in " ".join(answer.protocol())


def test_a_loss_that_diverges_at_all_rates_is_out_after_four_of_them(monkeypatch):
    runs = Runs(Scenario((0, 0), spread=0.2, reference=False), 0)
    original = runs._run

    def diverge(job):
        is_out = "loss=1" in job and any(f"seed={seed}" in job for seed in range(20))
        return original(job)._replace(metrics={}) if is_out else original(job)

    monkeypatch.setattr(runs, "_run", diverge)
    study = SimulatedStudy(runs, 20, 2)
    race = study.race(study.tune())
    assert {outcome.row.label: outcome.verdict for outcome in race.outcomes()} == {"0": "reference", "1": "diverged"}
    assert sum(result.diverged_in_race for result in study.tunings[1].results) == 3


def test_the_page_gets_the_numbers_of_the_studies_and_keeps_those_of_other_parts(tmp_path):
    name = "half the detectable difference"
    record = Record(tmp_path / "record.jsonl")
    record.add(Case("study", f"{name} / 4"), CaseResult(4, ["broken"], measured(SCENARIOS[name].scenario, 4)))
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- soak -->\nkept\n<!-- /soak -->\nb\n<!-- study -->\nold\n<!-- /study -->\nc\n")
    write_page(record, page)
    text = page.read_text()
    assert text.startswith("a\n<!-- soak -->\nkept\n<!-- /soak -->\nb\n<!-- study -->\n")
    assert f"\n| {name} | 4 | " in text
    assert text.endswith(f"\n\n- study {name} / 4: broken\n\n<!-- /study -->\nc\n")

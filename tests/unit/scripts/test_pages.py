"""Pages are written from recorded results; stale results are found, and a repetition with equal numbers confirms them.

Of this page's tests, `test_the_results_of_a_page_are_current` fails if the configuration or the code behind a published
row has changed. `python scripts/pages --verify` repeats as few rows as are needed, and makes them current again.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pages import __main__ as command
from pages import experiments, freshness, study
from pages.choosing_guide import PAGE as CHOOSING
from pages.experiments import Result, expand
from pages.freshness import Fingerprint, Staleness
from pages.page import Page

from losslab import CONF
from losslab.errors import LabError
from losslab.training import config as composing

DOCS = Path(__file__).resolve().parents[3] / "docs"
PUBLISHED = [page for page in command.PAGES.values() if (DOCS / f"{page.name}.md").is_file()]
each_page = pytest.mark.parametrize("page", PUBLISHED, ids=lambda page: page.name)


@pytest.mark.slow  # composes the configurations of all published runs
@each_page
def test_the_results_of_a_page_are_current(page):
    reasons = {name: each.reasons for name, each in page.staleness(DOCS).items() if each.reasons}
    assert reasons == {}, "python scripts/pages --verify"


@each_page
def test_the_text_of_a_page_matches_its_results(page):
    assert page.text_is_current(DOCS), f"python scripts/pages {page.name} --text"


class Counted:
    """Experiment that counts how often it is run."""

    resumable = False

    def __init__(self, name, *targets):
        self.name, self.definition, self.count, self.value = name, {"commands": [name]}, 0, 1 / 3
        self.config = {"loss": {str(index): {"_target_": target} for index, target in enumerate(targets)}}

    def configurations(self):
        return [self.config]

    def run(self, *_):
        self.count += 1
        return [Result(self.name, "loss=mse", 0, "test/mse", self.value)]


@pytest.fixture
def page(tmp_path, monkeypatch):
    some = [Counted("a", "losslab.losses.mse.MSE"), Counted("b", "losslab.losses.mse.MSE", "losslab.losses.mse.L1")]
    page = Page("own", some, lambda results, *_: f"{len(results)} results\n", lambda *_: None)
    monkeypatch.setattr(command, "PAGES", {"own": page})
    monkeypatch.setattr(command, "ROOT", tmp_path)
    monkeypatch.setattr(experiments, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    return page


def reasons(page, tmp_path):
    return {name: each.reasons for name, each in page.staleness(tmp_path / "docs").items() if each.reasons}


def counts(page):
    return [each.count for each in page.experiments]


def change_module(monkeypatch, changed):
    monkeypatch.setattr(freshness, "hash_module", lambda name: "00000000" if name == changed else "11111111")


def test_each_experiment_replaces_its_own_results(page, tmp_path):
    command.main(["own"])
    page.experiments[1].value = 2 / 3
    command.main(["own", "b"])
    assert counts(page) == [1, 2]
    assert [each.value for each in experiments.read_results(tmp_path / "docs" / "own")] == pytest.approx([1 / 3, 2 / 3])
    assert (tmp_path / "docs" / "own.md").read_text() == "2 results\n"
    assert reasons(page, tmp_path) == {}


def test_resume_runs_only_experiments_without_current_results(page, tmp_path):
    command.main(["own", "a"])
    command.main(["own", "--resume"])
    assert counts(page) == [1, 1]
    page.experiments[0].definition = {"commands": ["another"]}
    assert reasons(page, tmp_path) == {"a": ["definition changed: commands"]}
    command.main(["own", "--resume"])
    assert counts(page) == [2, 1]
    record = json.loads((tmp_path / "docs" / "own" / "campaign.json").read_text())["a"]
    assert record["commands"] == ["another"]
    assert "torch " in record["conditions"]


def test_results_without_hashes_are_stale(page, tmp_path):
    command.main(["own"])
    records = experiments.read_records(tmp_path / "docs" / "own")
    del records["a"]["code"]
    experiments.write_records(tmp_path / "docs" / "own", records)
    assert reasons(page, tmp_path) == {"a": ["recorded without hashes"]}
    command.main(["own", "--resume"])
    assert counts(page) == [2, 1]


def test_the_option_text_runs_no_experiment(page, capsys):
    command.main(["own", "--text"])
    assert counts(page) == [0, 0]
    with pytest.raises(SystemExit):
        command.main(["own", "a", "--text"])
    assert "--text runs nothing: leave out names" in capsys.readouterr().err


def test_an_unknown_experiment_is_an_error_that_names_it(capsys):
    with pytest.raises(SystemExit):
        command.main(["choosing", "everything"])
    assert "there is no experiment everything on this page; there are gaussian, outliers" in capsys.readouterr().err


def test_a_changed_configuration_makes_only_its_experiment_stale(page, tmp_path):
    command.main(["own"])
    page.experiments[0].config = {**page.experiments[0].config, "optimizer": {"lr": 0.1}, "logger": {"any": 1}}
    assert reasons(page, tmp_path) == {"a": ["composed configuration changed: optimizer"]}


def test_a_changed_module_makes_the_experiments_that_use_it_stale(page, tmp_path, monkeypatch):
    page.experiments[1].config = {"loss": {"_target_": "losslab.losses.robust.Huber"}}
    change_module(monkeypatch, "")
    command.main(["own"])
    change_module(monkeypatch, "losslab.losses.robust")
    assert reasons(page, tmp_path) == {"b": ["code changed: losslab.losses.robust"]}
    change_module(monkeypatch, "losslab.models.learner")
    assert set(reasons(page, tmp_path)) == {"a", "b"}


def test_an_equal_repetition_of_the_fastest_experiment_confirms_a_module_for_all(page, tmp_path, monkeypatch, capsys):
    change_module(monkeypatch, "")
    command.main(["own"])
    records = experiments.read_records(tmp_path / "docs" / "own")
    records["b"]["seconds"] = 5
    experiments.write_records(tmp_path / "docs" / "own", records)
    change_module(monkeypatch, "losslab.models.learner")
    command.main(["--verify"])
    assert "own a: code changed: losslab.models.learner\nown b: code changed" in capsys.readouterr().out
    assert counts(page) == [2, 1]
    assert reasons(page, tmp_path) == {}


def test_a_repetition_writes_nothing_about_a_page_that_was_never_made(page, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "PAGES", {"own": page, "new": replace(page, name="new")})
    command.main(["own"])
    with pytest.raises(SystemExit, match="must be run: python scripts/pages new a, python scripts/pages new b"):
        command.main(["--verify"])
    assert sum(counts(page)) == 3
    assert [each.name for each in (tmp_path / "docs").iterdir() if each.is_dir()] == ["own"]


def test_a_repetition_confirms_no_experiment_with_other_targets_in_the_changed_module(page, tmp_path, monkeypatch):
    page.experiments[0].config = {"loss": {"_target_": "losslab.losses.mse.MSE"}}
    change_module(monkeypatch, "")
    command.main(["own"])
    change_module(monkeypatch, "losslab.losses.mse")
    command.main(["own", "a", "--verify"])
    assert set(reasons(page, tmp_path)) == {"b"}
    command.main(["--verify"])
    assert counts(page) == [2, 2]
    assert reasons(page, tmp_path) == {}


def test_a_repetition_confirms_no_experiment_that_was_recorded_with_another_version(page, tmp_path, monkeypatch):
    change_module(monkeypatch, "")
    command.main(["own", "a"])
    change_module(monkeypatch, "losslab.models.learner")
    command.main(["own", "b"])
    monkeypatch.setattr(freshness, "hash_module", lambda _: "22222222")
    command.main(["own", "b", "--verify"])
    assert "losslab.models.learner" in str(reasons(page, tmp_path)["a"])


def test_a_repetition_with_other_numbers_confirms_nothing(page, tmp_path, monkeypatch, capsys):
    change_module(monkeypatch, "")
    command.main(["own"])
    change_module(monkeypatch, "losslab.models.learner")
    page.experiments[0].value = page.experiments[1].value = 0.5
    with pytest.raises(SystemExit, match="numbers differ"):
        command.main(["own", "--verify"])
    assert "loss=mse, seed 0, test/mse: recorded 0.333333333333333, now 0.5" in capsys.readouterr().out
    assert set(reasons(page, tmp_path)) == {"a", "b"}


def test_the_list_of_stale_results_runs_nothing(page, capsys):
    command.main(["own", "a"])
    with pytest.raises(SystemExit, match="must be run: python scripts/pages own b"):
        command.main(["--stale"])
    assert "own b: it was never run" in capsys.readouterr().out
    assert counts(page) == [1, 0]


def test_comments_docstrings_and_formatting_do_not_change_the_hash_of_a_module():
    source = '"""Text."""\ndef f(x):\n    """Text."""\n    return x + 1  # why\n'
    same = '"""Other."""\n\n\ndef f(\n    x,\n):\n    return (x + 1)\n'
    assert freshness.hash_source(source) == freshness.hash_source(same)
    assert freshness.hash_source(source) != freshness.hash_source(source.replace("1", "2"))
    assert freshness.hash_source("x = 'a'") != freshness.hash_source("x = b'a'")


def test_a_run_uses_its_loss_and_the_training_loop_and_no_module_that_only_shows_or_writes():
    modules = set(freshness.used_modules(["losslab.losses.robust"]))
    assert modules >= {"losslab.losses.robust", "losslab.losses.base", "losslab.training.experiment"}
    assert modules >= {"losslab.models.learner", "losslab.data.loader", "losslab.training.teacher"}
    assert not modules & {"losslab.losses.noisy_labels", "losslab.io.figures", "losslab.training.callbacks.tensorboard"}
    assert "losslab.training.fused.learner" in freshness.used_modules(["losslab.training.fused.group"])
    assert "losslab.study.sequential" in freshness.used_modules(["losslab.study.sweeper"])


def test_all_modules_that_are_left_out_exist():
    for name in freshness._LEFT_OUT:
        assert freshness._module_of(name) == name


TEACHER = "python train.py model=mlp data=digits data.size=8 run_dir=outputs/teacher"
STUDENT = "python train.py -m model=mlp data=digits loss=distillation teacher=outputs/teacher seed=0,1"


def test_a_changed_default_and_a_changed_module_behind_a_command_make_it_stale(tmp_path, monkeypatch):
    def fingerprint():
        freshness._compose.cache_clear()
        return Fingerprint.of(freshness.compose([*expand(TEACHER), *expand(STUDENT)]))

    before = fingerprint()
    assert fingerprint() == before
    shutil.copytree(CONF, tmp_path / "conf")
    file = tmp_path / "conf" / "model" / "mlp.yaml"
    file.write_text(file.read_text().replace("override /loss: mse", "override /loss: cross_entropy"))
    monkeypatch.setattr(composing, "CONF", tmp_path / "conf")
    change_module(monkeypatch, "losslab.training.teacher")
    before = replace(before, code=dict.fromkeys(before.code, "11111111"))
    found = Staleness.of({}, before.record(), fingerprint())
    freshness._compose.cache_clear()
    assert found.reasons[0] == "composed configuration changed: loss"
    assert found.reasons[1].startswith("code changed: ")
    assert found.reasons[1].endswith("losslab.training.teacher")


def test_only_distillation_confirms_a_change_of_the_teacher():
    teacher = "losslab.training.teacher"
    using = [
        each.name
        for each in CHOOSING.experiments
        if any("distillation" in word for word in str(each.definition).split())
        and teacher in Fingerprint.of(each.configurations()).targets
    ]
    assert using == ["distillation"]


def test_a_command_is_expanded_into_its_runs_with_one_seed():
    runs = expand("python train.py -m loss=mse,l1 'model.hidden=[8,8]' optimizer.lr=0.1,1.0 seed=0,1,2")
    assert runs[0] == ["loss=mse", "model.hidden=[8,8]", "optimizer.lr=0.1", "trainer=cpu"]
    assert len(runs) == 4


class Interrupted(Counted):
    """Experiment that is interrupted while it runs for the first time."""

    resumable = True

    def run(self, work_dir, _):
        done = work_dir / "half"
        if not done.is_file():
            done.touch()
            raise LabError("interrupted")
        return super().run()


@pytest.mark.parametrize("changes", [False, True])
def test_a_resumable_experiment_continues_unless_it_has_changed(page, tmp_path, changes):
    object.__setattr__(page, "experiments", [experiment := Interrupted("a")])
    with pytest.raises(LabError):
        command.main(["own"])
    if changes:
        experiment.config = {"optimizer": {"lr": 0.1}}
        with pytest.raises(LabError):
            command.main(["own"])
    command.main(["own"])
    assert counts(page) == [1]
    assert not (tmp_path / "outputs" / "pages" / "own" / "a").exists()


def test_an_interrupted_study_continues_after_a_change_of_the_code_that_decides_which_runs_it_trains():
    experiment = study.Study("small", SMALL)
    before = Fingerprint.of(experiment.configurations())
    for module, continues in (("losslab.study.race", True), ("losslab.study.test_items", False)):
        changed = replace(before, code={**before.code, module: "00000000"})
        assert module in before.code
        assert (changed.of_runs().record() == before.of_runs().record()) == continues


SMALL = (
    "model=linear", "data=linear_synthetic", "optimizer.lr=0.1", "trainer.max_epochs=3", "loss=mse,l1",
    "study.reference=loss=mse", "study.trials=3", "study.tune_seeds=1", "study.finalist_seeds=1",
    "study.first_seeds=2", "study.max_seeds=2",
)  # fmt: skip


@pytest.mark.slow  # trains some small networks in other processes
def test_a_study_gives_rows_and_the_results_of_each_seed(tmp_path):
    work, results = tmp_path / "work", tmp_path / "results"
    work.mkdir(), results.mkdir()
    experiment = study.Study("small", SMALL, figures=("tuning.png",))
    found = experiment.run(work, results)
    assert {(each.label, each.seed) for each in found} == {("mse", 0), ("mse", 1), ("l1", 0), ("l1", 1)}
    rows = {row.group: row for row in experiment.rows(results)}
    assert rows["mse"].verdict == "reference"
    assert rows["mse"].relative_rate == 1
    assert rows["l1"].difference > 1
    assert rows["l1"].range_low <= rows["l1"].rate <= rows["l1"].range_high
    assert rows["mse"].mean == pytest.approx(float((found[0].value * found[1].value) ** 0.5), rel=1e-4)
    assert (results / "small-tuning.png").is_file()
    assert f"| `l1` | {study.format_mean(rows['l1'])} | 2 |" in study.study_table(list(rows.values()))


def test_a_study_is_composed_with_its_settings():
    one = study.Study("small", SMALL)
    other = study.Study("small", (*SMALL[:-1], "study.max_seeds=3"))
    prints = [Fingerprint.of(each.configurations()) for each in (one, other)]
    assert len(one.groups) == 2
    found = freshness.changes(prints[0].configuration, prints[1].configuration)
    assert [name for name, *_ in found] == ["study"]
    assert {"losslab.study.sequential", "losslab.training.fused.learner"} <= prints[0].code.keys()

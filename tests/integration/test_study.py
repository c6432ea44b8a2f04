"""Studies from the command line, with real runs: the answer, kills, later additions, and wrong input."""

import json
import os
import signal
import subprocess
import sys

import pytest
from processes import ROOT, TRAIN, VERB, python, wait_for

SHORT = (
    "model=linear", "data=linear_synthetic", "noise=outliers", "trainer=cpu", "trainer.max_epochs=3", "logger=none",
    "study.tune_seeds=1", "study.finalist_seeds=2", "study.first_seeds=2", "study.max_seeds=4",
)  # fmt: skip
LOSSES = "loss=mse,l1,huber"
DIVERGING = "study.groups=['loss=mse optimizer.lr=1e8']"


def study(*arguments, cwd):
    done = python(*VERB, "study", *arguments, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def results(folder):
    return json.loads((folder / "study.json").read_text())


def values(folder):
    return {row["group"]: row["values"] for row in results(folder)["race"]}


def finished_runs(folder):
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/*/metrics.json")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    code, out, errors = study(*SHORT, LOSSES, DIVERGING, "run_dir=done", cwd=folder)
    assert code == 0, errors
    return folder / "done", out


def test_a_study_answers_in_a_sentence_with_a_table_and_files(undisturbed):
    folder, out = undisturbed
    page = (folder / "answer.md").read_text()
    found = results(folder)
    assert page.startswith(f"# {found['answer']}\n")
    assert found["answer"].startswith("On linear_synthetic with linear, ")
    assert " ".join(found["answer"].split()) in " ".join(out.split())
    verdicts = {row["group"]: row["verdict"] for row in found["race"]}
    assert verdicts.keys() == {"mse", "l1", "huber", "mse optimizer.lr=1e8"}
    assert verdicts["mse optimizer.lr=1e8"] == "diverged"
    assert "mse optimizer.lr=1e8 diverged" in found["answer"]
    assert [*verdicts.values()].count("reference") == 1
    table = (folder / "answer.csv").read_text().splitlines()
    assert len(table) == 5
    assert table[0].startswith("group,tuned,n,mean,low,high,pairs,difference")


def test_each_loss_gets_the_same_rates_and_is_raced_at_its_best_on_other_seeds(undisturbed):
    folder, _ = undisturbed
    found = results(folder)
    tuning = [group for group in found["tuning"] if group["group"] != "mse optimizer.lr=1e8"]
    rates = [{trial["values"]["optimizer.lr"] for trial in group["trials"]} for group in tuning]
    common = sorted(set.intersection(*rates))
    assert len(common) >= 7
    assert {len(each) for each in rates} == {len(common) + 2}
    assert common[1] / common[0] == pytest.approx(10**0.5, rel=0.05)
    best = {group["group"]: group["best"]["optimizer.lr"] for group in tuning}
    seeds = set()
    for path in (folder / "race").glob("*/config.json"):
        config = json.loads(path.read_text())
        seeds.add(config["seed"])
        assert config["optimizer"]["lr"] == best[config["choices"]["loss"]]
    counts = [sorted(len(trial["results"]) for trial in group["trials"]) for group in tuning]
    assert all(each == [1] * (len(each) - 3) + [2] * 3 for each in counts)
    tuned = {json.loads(path.read_text())["seed"] for path in (folder / "tune").glob("*/config.json")}
    assert tuned == {10_000, 10_001}
    assert max(seeds) < 10_000


@pytest.mark.parametrize(
    ("arguments", "methods"),
    [
        (("data=digits", "data.size=8", "loss=bce,brier"), set()),  # one-vs-all: no logits of a softmax
        (
            ("data=multilabel_synthetic", "loss=bce,sigmoid_focal", "study.metric=f1"),
            {"bce + temperature", "bce + f1 thresholds"},
        ),
        (
            ("data=digits", "data.size=8", "data.split_seed=3", "loss=cross_entropy,brier"),
            {"cross_entropy + temperature"},
        ),
        (
            ("data=digits", "data.size=8", "imbalance=long_tail", "imbalance.ratio=20", "loss=cross_entropy,brier"),
            {"cross_entropy + temperature", "cross_entropy + logit adjustment"},
        ),
    ],
    ids=["one-vs-all", "several labels", "classes that only chance makes unequal", "unequal classes"],
)
def test_the_methods_after_training_that_fit_the_data_are_raced(tmp_path, arguments, methods):
    short = ("trainer=cpu", "trainer.max_epochs=1", "logger=none", "study.tune=[]", "study.tune_seeds=1",
             "study.first_seeds=2", "study.max_seeds=2", "run_dir=done")  # fmt: skip
    code, _, errors = study("model=mlp", *arguments, *short, cwd=tmp_path)
    assert code == 0, errors
    assert {row for row in values(tmp_path / "done") if "+" in row} == methods


def test_groups_with_different_numbers_of_tuned_keys_get_equally_many_trials(tmp_path):
    tuned = ("study.tune=[optimizer.lr,{loss.delta:[0.1,10]}]", "study.trials=4", "study.max_seeds=2")
    code, _, errors = study(*SHORT, *tuned, "loss=huber,mse", "run_dir=done", cwd=tmp_path)
    assert code == 0, errors
    found = results(tmp_path / "done")["tuning"]
    assert [len(group["trials"]) for group in found] == [4, 4]
    assert [len(group["trials"][0]["values"]) for group in found] == [2, 1]


def test_compare_reads_the_race_as_any_sweep(undisturbed):
    folder, _ = undisturbed
    done = python(*VERB, "compare", "race", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "in 3 groups" in done.stdout
    assert "The runs are the race of a study" in (folder / "race" / "comparison" / "comparison.md").read_text()


def test_a_killed_study_continues_with_more_losses_and_seeds_and_repeats_no_run(undisturbed, tmp_path):
    command = [sys.executable, *VERB, "study", *SHORT, "loss=mse,l1", "study.max_seeds=2", "run_dir=killed"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
        assert wait_for(lambda: len(finished_runs(tmp_path / "killed")) >= 2, 120)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    before = finished_runs(tmp_path / "killed")
    code, _, errors = study("resume=killed", LOSSES, "study.max_seeds=4", DIVERGING, cwd=tmp_path)
    assert code == 0, errors
    assert before.items() <= finished_runs(tmp_path / "killed").items()
    found, expected = values(tmp_path / "killed"), values(undisturbed[0])
    assert found.keys() == expected.keys()
    for group, by_seed in expected.items():
        assert found[group] == pytest.approx(by_seed, rel=1e-3)


def test_a_finished_study_repeats_nothing_not_even_runs_that_diverged(undisturbed):
    folder, first = undisturbed
    before, answer = finished_runs(folder), results(folder)
    code, out, errors = study("resume=done", DIVERGING, cwd=folder.parent)
    assert code == 0, errors
    assert "diverged in every trial" in first
    assert [word for word in ("started", "resumed", "failed after") if word in out + errors] == []
    assert "0 to resume, 0 to start" in out
    assert finished_runs(folder) == before
    assert results(folder)["race"] == answer["race"]


def test_a_dry_run_trains_one_run_per_loss_and_says_how_many_follow(tmp_path):
    code, out, errors = study(*SHORT, LOSSES, "--dry-run", "run_dir=plan", cwd=tmp_path)
    assert code == 0, errors
    assert len(finished_runs(tmp_path / "plan")) == 3
    assert "3 groups, 27 trials in all, 1 seed = 27 runs, about " in out
    assert "race: 6 to 12 runs, about " in out
    assert not (tmp_path / "plan" / "answer.md").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["loss=mse"], "at least two groups"),
        (["loss=mse,l1", "seed=1"], "a study chooses its seeds"),
        (["loss=mse,l1", "optimizer.lr=0.1,0.2"], "optimizer.lr is tuned"),
        (["loss=mse,l1", "study.max_sead=3"], "there is no setting study.max_sead"),
        (["loss=mse,l1", "study.max_seeds=none"], "study.max_seeds must be an integer"),
        (["loss=mse,l1", "study.refinements=-1"], "study.refinements must be an integer from 0"),
        (["loss=mse,l1", "study.first_seeds=9"], "study.max_seeds=4 is below study.first_seeds=9"),
        (["loss=mse,l1", "study.reference=loss=huber"], "study.reference=loss=huber matches no group"),
        (["loss=mse,l1", "study.metric=foo"], "foo are better is not known"),
        (["loss=mse,l1", "study.metric=loss"], "study.metric must be the name of a metric, not of the loss"),
        (["loss=mse,l1", "study.tune=[lr]"], "study.tune must list config keys"),
        (["loss=mse,l1", "study.tune=[optimizer.nothing]"], "study.tune: no group has the key optimizer.nothing"),
        (["loss=mse,nope"], "there is no loss=nope"),
        (["resume=missing"], "there is no study in this folder"),
    ],
)
def test_wrong_input_is_refused_in_one_line_before_anything_is_trained(tmp_path, arguments, said):
    code, _, errors = study(*SHORT, *arguments, "run_dir=wrong", cwd=tmp_path)
    assert code == 1
    assert said in errors
    assert len(errors.strip().splitlines()) <= 2
    assert "Traceback" not in errors
    assert not [*tmp_path.rglob("config.json")]


def test_a_metric_that_the_runs_lack_ends_the_study_after_the_first_runs_and_changes_no_answer(undisturbed):
    folder, _ = undisturbed
    before, runs = results(folder), finished_runs(folder)
    code, _, errors = study("resume=done", DIVERGING, "study.metric=auroc", cwd=folder.parent)
    assert code == 1
    assert "these runs have no metric val/auroc" in errors
    assert (results(folder), finished_runs(folder)) == (before, runs)


_OWN_LOSS = """
import torch

class Own(torch.nn.MSELoss):
    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def forward(self, outputs, target):
        return super().forward(outputs, target) * (float("nan") if self.seed == 10_001 else 1.0)
"""


def test_a_loss_that_is_nan_from_the_start_with_one_seed_diverges_and_groups_may_depend_on_the_seed(tmp_path):
    (tmp_path / "my_losses.py").write_text(_OWN_LOSS)
    group = 'study.groups=["loss=custom loss._target_=my_losses.Own +loss.seed=${seed}","loss=mse"]'
    few = ("study.trials=3", "study.refinements=0", "study.max_seeds=2", "run_dir=own")
    code, _, errors = study(*SHORT, *few, group, cwd=tmp_path)
    assert code == 0, errors
    own = results(tmp_path / "own")["tuning"][0]
    assert own["group"] == "custom _target_=my_losses.Own +loss.seed=${seed}"
    assert sorted(trial["results"][1:] for trial in own["trials"])[-3:] == [[None]] * 3
    code, _, errors = study("resume=own", "study.max_seeds=4", "--trust", "my_losses", cwd=tmp_path)
    assert code == 0, errors
    assert len(values(tmp_path / "own")["mse"]) == 4


def test_a_loss_that_does_not_fit_the_data_is_named(tmp_path):
    code, _, errors = study(*SHORT, "loss=mse,cross_entropy", "run_dir=wrong", cwd=tmp_path)
    assert code == 1
    assert "loss CrossEntropy takes index or probabilities targets" in errors


@pytest.mark.parametrize("part", [".", "race"])
def test_a_study_is_not_continued_as_a_sweep(undisturbed, part):
    done = python(*TRAIN, f"resume={undisturbed[0] / part}", cwd=undisturbed[0])
    assert done.returncode == 1
    assert "belongs to a study: continue it with losslab study resume=" in done.stderr


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("loss._target_=os.system", "os.system"),
        ("hydra.callbacks.evil._target_=os.system", "hydra.callbacks.evil._target_"),
        ("data.verify=false", "add data.verify=... to the command"),
    ],
)
def test_the_folder_of_a_study_cannot_name_code_to_run(tmp_path, override, said):
    folder = tmp_path / "foreign"
    folder.mkdir()
    command = [*SHORT, "loss=mse,l1", override]
    (folder / "study.json").write_text(json.dumps({"command": command}))
    code, _, errors = study("resume=foreign", cwd=tmp_path)
    assert code == 1
    assert said in errors
    assert not [*folder.rglob("config.json")]


def test_help_names_every_setting():
    from losslab.study.settings import Settings

    code, out, _ = study("--help", cwd=ROOT)
    assert code == 0
    assert all(f"study.{name}:" in out for name in Settings.__dataclass_fields__)

"""Which runs of a sweep's folder are taken over by which jobs."""

import json

import folders
import pytest

from losslab import runs
from losslab.errors import LabError
from losslab.runs import trust
from losslab.runs.config import identity
from losslab.runs.sweep_summary import State, read_jobs
from losslab.sweep.resume import Earlier, completed, unfinished
from losslab.sweep.state import Sweep
from losslab.training.config import compose


def asked(loss="mse", seed=0, **values):
    """What a job would train in a folder that its number names, which may be another one than before."""
    return folders.config(loss, seed, "/elsewhere/9-run", **values)


@pytest.fixture
def sweep(tmp_path):
    for number, (loss, seed) in enumerate([("mse", 0), ("mse", 1), ("l1", 0)]):
        folders.run(tmp_path / f"{number}-mlp-digits-{loss}-s{seed}", loss, seed, metrics={"val/accuracy": number / 10})
    return tmp_path


def test_runs_are_known_by_what_they_are_whatever_their_order_and_number(sweep):
    earlier = Earlier(sweep)
    found = [earlier.take(asked(loss, seed)) for loss, seed in [("l1", 1), ("l1", 0), ("mse", 1), ("mse", 0)]]
    assert [left and left.number for left in found] == [None, 2, 1, 0]
    assert earlier.take(asked("mse", 0)) is None  # one job each


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ({"data__dir": "/other"}, True),
        ({"data__workers": 4}, True),
        ({"trainer__enable_progress_bar": False}, True),
        ({"optimized_metric": "val/nll"}, True),
        ({"made_with": {"torch": "1.0"}}, True),
        ({"optimizer__lr": 0.002}, False),
        ({"trainer__devices": 2}, False),
        ({"trainer__max_epochs": 3.0}, False),  # 1 is one batch where 1.0 is all of them
        ({"ckpt_path": "/elsewhere/9-run-of-another"}, False),
    ],
)
def test_only_what_changes_no_result_may_differ(sweep, values, same):
    left = Earlier(sweep).take(asked(**values))
    assert (left is not None) is same


def test_of_a_folder_of_images_the_place_says_which_they_are(tmp_path):
    images = {"choices": folders.config()["choices"] | {"data": "image_folder"}}
    folders.run(tmp_path / "0-run", data__dir="/a", **images)
    assert Earlier(tmp_path).take(asked(data__dir="/b", **images)) is None
    assert Earlier(tmp_path).take(asked(data__dir="/a", **images)) is not None


def test_what_is_composed_again_elsewhere_is_the_same_run():
    first, second = (compose(["loss=huber", "loss.delta=2"], place) for place in ("/a/0-run", "/b/7-run"))
    assert first != second
    assert identity(first) == identity(json.loads(runs.to_json(second)) | {"made_with": {}})
    assert identity(first) != identity(compose(["loss=huber", "loss.delta=3"], "/a/0-run"))


def test_of_runs_that_differ_in_what_changes_no_result_each_job_takes_its_own(tmp_path):
    for number in range(2):
        folders.run(tmp_path / f"{number}-run", data__workers=number)
    earlier = Earlier(tmp_path)
    assert [earlier.take(asked(data__workers=workers)).number for workers in (1, 0)] == [1, 0]


def test_new_jobs_keep_their_number_unless_a_folder_has_it(sweep):
    (sweep / "4-mlp-digits-mse-s3").mkdir()  # killed before there was a run
    earlier = Earlier(sweep)
    assert earlier.number(0, None) == 3
    assert earlier.number(4, sweep / "4-mlp-digits-mse-s3") == 4
    assert earlier.number(5, sweep / "5-mlp-digits-mse-s4") == 5
    assert earlier.number(3, sweep / "3-mlp-digits-mse-s5") == 6


def written(folder, *jobs):
    of = Sweep(folder, ["-m", "seed=0,1,2,3", "hydra.sweep.dir=old", "data.dir=here"])
    for job, (state, name) in zip(of.add([["seed=0"]] * len(jobs), 0), jobs, strict=True):
        job.state, job.folder = state, folder / name if name else None
    of.write()
    return of


def test_a_sweep_that_was_killed_is_not_taken_for_one_that_runs(sweep):
    folders.run(sweep / "3-run", metrics=False)
    names = ["0-mlp-digits-mse-s0", "3-run", None]
    of = written(sweep, *zip([State.RUNNING, State.RUNNING, State.WAITING], names, strict=True))
    ended = [State.DONE, State.INTERRUPTED, State.INTERRUPTED]
    assert [job["state"] for job in read_jobs(sweep)] == ended
    of.hold()
    assert [job["state"] for job in read_jobs(sweep)] == [State.RUNNING, State.RUNNING, State.WAITING]
    with pytest.raises(LabError, match="another process is training"):
        Sweep(sweep).hold()


def test_what_is_not_asked_for_again_stays_in_the_summary(sweep):
    written(sweep, (State.DONE, "0-mlp-digits-mse-s0"), (State.FAILED, "1-mlp-digits-mse-s1"), (State.FAILED, None))
    earlier = Earlier(sweep)
    assert earlier.take(asked("mse", 0)) is not None
    assert [row["folder"] for row in earlier.rest] == ["1-mlp-digits-mse-s1"]


def test_a_damaged_run_is_not_taken_over_and_its_number_not_given_away(sweep, caplog):
    (sweep / "1-mlp-digits-mse-s1" / "config.json").write_text("{")
    earlier = Earlier(sweep)
    assert "not taken over: cannot read" in caplog.text
    assert earlier.take(asked("mse", 1)) is None
    assert earlier.number(1, None) == 3


def test_the_command_that_completes_a_sweep_is_its_own_in_its_folder(tmp_path):
    folder = tmp_path / "it's, moved"
    folder.mkdir()
    written(folder)
    command = completed([f"resume={folder}", "data.dir=there", "hydra.launcher.n_jobs=2"])
    escaped = str(folder).replace("'", "\\'")
    there = ["data.dir=there", "hydra.launcher.n_jobs=2", f"hydra.sweep.dir='{escaped}'"]
    assert command == ["-m", "seed=0,1,2,3", *there]
    assert completed([f"resume={folder / '0-run'}"]) is None  # no sweep
    with pytest.raises(LabError, match=r"seed cannot be said anew.*hydra.sweep.dir="):
        completed([f"resume={folder}", "seed=4"])


def test_a_sweep_of_the_same_command_that_ended_early_is_found_beside_a_new_one(tmp_path):
    new, old = tmp_path / "sweep-2", tmp_path / "sweep-1"
    (tmp_path / "sweep-0").mkdir()
    of = written(old, (State.INTERRUPTED, None), (State.DONE, None))
    assert unfinished(new, of.command) == old
    assert unfinished(new, ["-m", "seed=0"]) is None
    written(old, (State.DONE, None))
    assert unfinished(new, of.command) is None


@pytest.mark.parametrize(("content", "said"), [("", "delete it and start"), ('{"jobs": []}', "say its command again")])
def test_a_sweep_that_cannot_be_completed_says_what_to_do(tmp_path, content, said):
    (tmp_path / "summary.json").write_text(content)
    with pytest.raises(LabError, match=said):
        completed([f"resume={tmp_path}"])


@pytest.mark.parametrize(
    "part",
    [
        "loss._target_=os.system", "+x={_target_:os.system}", "hydra.launcher._target_=os.system", "--config-dir=/evil",
        "-cd", "hydra.searchpath=[file:///evil]", "hydra/launcher=evil", "hydra.callbacks.x=1", "name=${oc.env:HOME}",
        "hydra.job_logging.root.handlers=[x]", "hydra.sweeper.storage=sqlite:////evil", "hydra/sweeper/sampler@x=1",
        "loss=../../../../tmp/sweep/mine", "loss='../mine'", "loss=mse,../mine", "loss=/tmp/mine",
        "loss=choice(mse,../x)", "loss={_target_:os.system}", "loss={}", "loss=nothing_of_the_kind",
        "experiment=../../sweep/e", "+experiment=../e", "hydra/sweeper=../../../sweep/e", "hydra/launcher=../e",
        "hydra/launcher=submitit_slurm", "trainer=slurm", "hydra/sweeper/sampler=../e", "loss@data=mse",
        "+loss@x.y:z=mse", "/loss=mse", "loss/../x=mse", "loss/x=mse", "callbacks.history.run_dir=..",
        "callbacks.history.run_dir='..'", "data.url=http://example.org/x", "data.verify=false",
        "hydra.sweeper.params.loss=choice(../x,mse)", "hydra.sweeper.params.hydra.sweep.dir=/evil", "hydra={}",
        "hydra.mode=RUN", "hydra.sweeper.params.trust=[numpy]", "hydra.run.dir=/evil", "hydra.output_subdir=/evil",
        "hydra.job.name=../evil", "hydra.sweep.subdir=../evil", "~hydra", "unheard_of=3", "+unheard_of={a:1}",
        "loss.x=1\n", "name=${seed}${oc.env:HOME}", "loss.terms={'_target_':os.system}",
        "++callbacks.history.run_dir=/evil", "logger.tensorboard.run_dir=../evil", "hydra.sweeper._target_=os.system",
    ],
)  # fmt: skip
def test_a_command_in_a_folder_of_somebody_else_does_no_more_than_choose(part, tmp_path):
    (tmp_path / runs.SUMMARY).write_text(json.dumps({"command": ["-m", "seed=0,1", part]}))
    with pytest.raises(LabError, match="say the whole command again") as refused:
        completed([f"resume={tmp_path}"])
    assert "\n" not in str(refused.value)


def test_whom_to_trust_and_where_to_write_is_not_what_a_folder_says(tmp_path):
    command = [
        "experiment=tune_lr",
        "trust=[numpy]",
        "++trust=[os]",
        "run_dir=/evil",
        "+run_dir=/evil",
        "hydra.sweep.dir=/evil",
    ]
    (tmp_path / runs.SUMMARY).write_text(json.dumps({"command": command}))
    assert completed([f"resume={tmp_path}"]) == ["-m", "experiment=tune_lr", f"hydra.sweep.dir='{tmp_path}'"]


def test_of_a_link_in_a_sweep_it_is_said_where_it_is(tmp_path):
    (tmp_path / runs.SUMMARY).write_text(json.dumps({"command": ["-m", "seed=0,1"]}))
    (tmp_path / "multirun.yaml").symlink_to(tmp_path.parent / "profile")
    with pytest.raises(LabError, match=r"multirun\.yaml is a link"):
        completed([f"resume={tmp_path}"])


def test_runs_elsewhere_are_not_taken_over(tmp_path, caplog):
    victim = folders.run(tmp_path / "victim", metrics=False)
    other = folders.run(tmp_path / "other", seed=1, metrics=False)
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "0-run").symlink_to(other)
    folders.summary(sweep, {"folder": "../victim"}, {"folder": str(victim)}, {"folder": "."})
    earlier = Earlier(sweep)
    assert earlier.take(asked()) is None
    assert earlier.take(asked(seed=1)) is None
    assert "0-run leads out of the folder of the sweep" in caplog.text


def test_of_an_own_loss_it_is_said_again_where_that_is_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(trust, "_own", set())
    command = ["-m", "seed=0,1", "loss=custom", "loss._target_=mine.Loss"]
    (tmp_path / runs.SUMMARY).write_text(json.dumps({"command": command}))
    for wrong in ("", "other", "min", "mine.Loss.x"):
        with pytest.raises(LabError, match=r"mine\.Loss' could run code"):
            completed([f"resume={tmp_path}", f"trust=[{wrong}]"])
    monkeypatch.setattr(trust, "_own", set())
    assert completed([f"resume={tmp_path}", "trust=[mine]"])[:5] == [*command, "trust=[mine]"]


def test_what_chooses_and_sets_is_said_again(tmp_path):
    command = [
        "-m", "seed=0,1", "loss=mse,l1", "~callbacks.ema", "+trainer.max_steps=3", "hydra.launcher.n_jobs=2",
        "hydra/sweeper=optuna", "data.data_seed=${seed}", "model.hidden=[8]", "hydra/launcher=losslab", "tags=[a,b]",
        "experiment=huber_beats_mse", "callbacks=[ema,early_stopping]", "noise=symmetric,null",
        "hydra/sweeper/sampler=tpe", "+callbacks.anneal.end=0", "hydra.sweeper.params.loss=choice(mse,l1)",
        "seed=range(0,3)", "+notes.why=because", "teacher=outputs/teacher", "ckpt_path=outputs/teacher/weights.pth",
        "data.dir=/data", "debug=one_batch", "name='what it is'", "trainer=ddp_cpu", "optimizer.lr=0.1,1e-3",
        "hydra.sweeper.direction=minimize", "hydra.sweeper.n_trials=3",
        "hydra.sweeper.params.optimizer.lr=interval(0.1,1)",
    ]  # fmt: skip
    (tmp_path / runs.SUMMARY).write_text(json.dumps({"command": command}))
    assert completed([f"resume={tmp_path}"])[:-1] == command

"""Which jobs of a sweep train as one."""

from pathlib import Path

import folders
import pytest

from losslab.errors import LabError
from losslab.io.untrusted import read_json
from losslab.runs import RunFolder
from losslab.sweep.fusing import (
    form_groups,
    group_jobs,
    parse_fuse,
    recorded_groups,
    run_group,
    similarity,
    why_alone,
)
from losslab.sweep.resume import ExistingRuns, take_over
from losslab.sweep.state import JobCall, JobGroup, Sweep
from losslab.training.config import compose


@pytest.mark.parametrize("fuse", [None, "auto", 2, 1024])
def test_a_valid_value_of_fuse_is_returned(fuse):
    assert parse_fuse(fuse) == fuse


@pytest.mark.parametrize("fuse", [0, 1, -1, 2.5, True, "all", "2", [2]])
def test_an_invalid_value_of_fuse_is_refused_in_one_line(fuse):
    with pytest.raises(
        LabError, match=r"hydra\.launcher\.fuse must be an integer of at least 2, auto, or null: got "
    ) as refused:
        parse_fuse(fuse)
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def digits():
    """The resolved configuration of an MLP on digits, with all callbacks that a group may have."""
    return compose(
        ["model=mlp", "data=digits", "loss=cross_entropy", "noise=symmetric", "scheduler=cosine", "+callbacks=[anneal]",
         "callbacks.anneal.parameter=gamma", "callbacks.anneal.end=0"],
        "/somewhere/0-run",
    )  # fmt: skip


def changed(config, **values):
    """A copy of a configuration with other values: `loss__gamma=2` sets loss.gamma."""
    result = {**config}
    for key, value in values.items():
        *sections, last = key.split("__")
        inner = result
        for name in sections:
            inner[name] = {**(inner.get(name) or {})}
            inner = inner[name]
        inner[last] = value
    return result


CALLBACK = "losslab.training.callbacks."


def test_the_default_configuration_can_train_in_a_group(digits):
    assert why_alone(digits) is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"model__dropout": 0.5}, "dropout (model.dropout=0.5)"),
        ({"model__drop_rate": 0.1}, "dropout (model.drop_rate=0.1)"),
        ({"model__block": {"_target_": "torch.nn.Dropout2d"}}, "dropout (model.block._target_=torch.nn.Dropout2d)"),
        ({"mix": {"_target_": "losslab.data.transforms.Mix"}, "choices__mix": "cutmix"}, "mix=cutmix"),
        ({"compile": True}, "compile=true"),
        ({"train": False}, "train=false"),
        ({"ckpt_path": "outputs/run"}, "ckpt_path is set"),
        ({"teacher": "outputs/run"}, "a teacher"),
        ({"loss__terms": {"_target_": "losslab.losses.cross_entropy.Distillation"}}, "distillation"),
        ({"loss__view": {"_target_": "losslab.data.transforms.RandomShift"}}, "random views of the inputs (loss.view)"),
        ({"trainer__devices": 2}, "trainer.devices=2"),
        ({"trainer__devices": "auto"}, "trainer.devices=auto"),
        ({"trainer__accelerator": "mps"}, "trainer.accelerator=mps"),
        ({"trainer__precision": "16-mixed"}, "trainer.precision=16-mixed"),
        ({"trainer__accumulate_grad_batches": 2}, "trainer.accumulate_grad_batches=2"),
        ({"trainer__limit_train_batches": 1}, "trainer.limit_train_batches=1"),
        ({"trainer__deterministic": True}, "trainer.deterministic=True"),
        ({"trainer__profiler": "simple"}, "trainer.profiler=simple"),
        ({"trainer__max_time": "00:01:00:00"}, "trainer.max_time=00:01:00:00"),
        ({"trainer__max_epochs": -1}, "no number of epochs (trainer.max_epochs=-1)"),
        ({"data__in_memory": False}, "its data are not in memory (data.in_memory=false)"),
        ({"data___target_": "losslab.data.image_folder.ImageFolder"},
         "its images may not be in memory (data.in_memory=null)"),
        ({"optimizer___target_": "torch.optim.LBFGS"}, "the optimizer LBFGS"),
        ({"scheduler__scheduler": {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"}},
         "the schedule ReduceLROnPlateau"),
        ({"scheduler__scheduler": {"_target_": "mine.Schedule"}}, "the schedule Schedule"),
        ({"trainer__max_epochs": 0}, "no number of epochs (trainer.max_epochs=0)"),
        ({"trainer__max_steps": 10}, "trainer.max_steps=10"),
        ({"trainer__val_check_interval": 5}, "trainer.val_check_interval=5"),
        ({"trainer__limit_val_batches": 0}, "trainer.limit_val_batches=0"),
        ({"callbacks__drw": {"_target_": f"{CALLBACK}loss_schedules.DeferredReweighting"}}, "callbacks.drw"),
        ({"callbacks__checkpoints": None}, "it lacks a callback that a group has (BestAndLastCheckpoint)"),
        ({"callbacks__history": None}, "it lacks a callback that a group has (History)"),
        ({"callbacks__finite_guard": None}, "it lacks a callback that a group has (FiniteGuard)"),
        ({"callbacks__ema": {"_target_": "lightning.pytorch.callbacks.EMAWeightAveraging"}}, "callbacks.ema"),
        ({"callbacks__lookahead": {"_target_": f"{CALLBACK}lookahead.Lookahead"}}, "callbacks.lookahead"),
        ({"callbacks__whitening": {"_target_": f"{CALLBACK}whitening.Whitening"}}, "callbacks.whitening"),
        ({"logger__csv": {"_target_": "lightning.pytorch.loggers.CSVLogger"}}, "logger.csv"),
    ],
)  # fmt: skip
def test_a_job_that_does_not_fit_in_a_group_has_a_reason(digits, values, reason):
    assert why_alone(changed(digits, **values)) == reason


@pytest.mark.parametrize(
    "values",
    [
        {"model__dropout": 0.0},
        {"trainer__accelerator": "gpu"},
        {"trainer__precision": "bf16-mixed"},
        {"trainer__gradient_clip_val": 1.0},
        {"scheduler__scheduler": None},
        {"callbacks__path": None},
        {"callbacks__early_stopping": {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "patience": 3}},
        {"logger": {}},
        {"optimizer___target_": "torch.optim.RMSprop"},
    ],
)
def test_a_job_that_fits_in_a_group_has_no_reason(digits, values):
    assert why_alone(changed(digits, **values)) is None


@pytest.mark.parametrize(
    ("values", "similar"),
    [
        ({"loss": {"_target_": "losslab.losses.focal.Focal", "gamma": 2.0}}, True),
        ({"optimizer__lr": 0.5, "optimizer__betas": [0.8, 0.9], "optimizer__weight_decay": 0.1}, True),
        ({"scheduler": {"interval": "epoch", "scheduler": None}}, True),
        ({"trainer__gradient_clip_val": 1.0, "trainer__gradient_clip_algorithm": "value"}, True),
        ({"seed": 7, "data__seed": 7, "noise__seed": 7, "name": "x", "run_dir": "/y"}, True),
        ({"callbacks__history__run_dir": "/y", "callbacks__history__title": "x", "logger__tensorboard__run_dir": "/y"},
         True),
        ({"callbacks__anneal__end": 3.0, "callbacks__anneal__epochs": 10}, True),
        ({"tags": ["a"], "notes": {"b": 1}, "optimized_metric": "val/nll"}, True),
        ({"callbacks__anneal__parameter": "alpha"}, False),
        ({"optimizer___target_": "torch.optim.SGD"}, False),
        ({"optimizer__amsgrad": True}, False),
        ({"optimizer__maximize": True}, False),
        ({"noise__rate": 0.1}, False),
        ({"data__split_seed": 1}, False),
        ({"data__batch_size": 64}, False),
        ({"model__hidden": [32]}, False),
        ({"trainer__max_epochs": 7}, False),
        ({"trainer__precision": "64-true"}, False),
        ({"loss": {"_target_": "losslab.losses.scaled_logits.CosineSoftmax"}}, False),
    ],
)  # fmt: skip
def test_similar_jobs_differ_only_in_what_the_members_of_a_group_may_differ_in(digits, values, similar):
    assert (similarity(changed(digits, **values)) == similarity(digits)) is similar


def test_a_seed_that_was_set_by_itself_must_be_equal():
    fixed = [compose(["model=mlp", "data=digits", f"seed={seed}", f"data.seed={draw}"], "/run")
             for seed, draw in ((0, 0), (1, 0), (0, 1))]  # fmt: skip
    first, other_seed, other_draw = map(similarity, fixed)
    assert first == other_seed != other_draw


def sweep_of(folder, configs, fuse=None):
    """A sweep whose jobs have these configurations, in folders named after their numbers."""
    sweep = Sweep(folder, fuse=fuse)
    for job, config in zip(sweep.add([[f"seed={index}"] for index in range(len(configs))], 0), configs, strict=True):
        run = folder / f"{job.number}-run"
        job.config = changed(config, run_dir=str(run), seed=job.number)
        job.task = JobCall(print, tuple, config["trainer"], run / "train.log")
    return sweep


def numbers(groups):
    return [[job.number for job in (group.jobs if isinstance(group, JobGroup) else group)] for group in groups]


def test_jobs_form_groups_of_similar_size(digits, tmp_path):
    sweep = sweep_of(tmp_path, [digits] * 7)
    groups, reasons = group_jobs(sweep.jobs, 3)
    assert numbers(groups) == [[0, 1], [2, 3], [4, 5, 6]]
    assert not reasons


def test_jobs_that_run_alone_are_counted_by_reason(digits, tmp_path):
    dropout, other = changed(digits, model__dropout=0.5), changed(digits, trainer__max_epochs=7)
    sweep = sweep_of(tmp_path, [digits, dropout, digits, other, dropout])
    groups, reasons = group_jobs(sweep.jobs, 8)
    assert numbers(groups) == [[0, 2]]
    assert reasons == {"dropout (model.dropout=0.5)": 2, "no other job of its kind": 1}
    assert group_jobs(sweep.jobs, 8, "hydra.callbacks") == ([], {"hydra.callbacks": 5})


def test_auto_fuses_only_linear_models_and_mlps(digits, tmp_path):
    cnn = changed(digits, model={"_target_": "losslab.models.cnn.cifar_cnn"}, choices__model="cifar_cnn")
    sweep = sweep_of(tmp_path, [digits, digits, cnn, cnn])
    groups, reasons = group_jobs(sweep.jobs, "auto")
    assert numbers(groups) == [[0, 1]]
    assert reasons == {"model=cifar_cnn, since fuse=auto fuses only linear and mlp": 2}
    assert numbers(group_jobs(sweep.jobs, 8)[0]) == [[0, 1], [2, 3]]


def test_a_sweep_without_fuse_has_no_groups(digits, tmp_path):
    sweep = sweep_of(tmp_path, [digits] * 2)
    form_groups(sweep, sweep.jobs, {})
    assert sweep.groups == []


@pytest.fixture
def interrupted(digits, tmp_path):
    """The folder of a sweep of two groups and a single job, of which nothing has been saved."""
    sweep = sweep_of(tmp_path, [digits] * 4 + [changed(digits, model__dropout=0.5)], fuse=2)
    form_groups(sweep, sweep.jobs, {})
    assert numbers(sweep.groups) == [[0, 1], [2, 3]]
    assert [job.group for job in sweep.jobs] == [0, 0, 1, 1, None]
    sweep.write_jobs()
    for job in sweep.jobs:
        write_run(job)
    return tmp_path


def write_run(job, **files):
    folder = Path(job.config["run_dir"])
    RunFolder(folder).config.parent.mkdir(exist_ok=True)
    folders.runs.write_json(RunFolder(folder).config, job.config)
    for name, content in files.items():
        path = getattr(RunFolder(folder), name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


def again(digits, folder, count=5, fuse=None):
    """Type the command of the sweep again, and return the sweep."""
    configs = [digits] * 4 + [changed(digits, model__dropout=0.5)]
    sweep, existing = sweep_of(folder, configs[:count], fuse), ExistingRuns(folder)
    take_over(existing, sweep.jobs, sweep, lambda *_: None)
    form_groups(sweep, sweep.jobs, existing.groups)
    return sweep


def test_groups_that_were_killed_before_they_saved_anything_start_again(digits, interrupted):
    assert numbers(again(digits, interrupted).groups) == [[0, 1], [2, 3]]


def test_a_group_with_a_checkpoint_continues_with_all_its_members(digits, interrupted):
    sweep = Sweep(interrupted)
    for name in ("checkpoints/last.ckpt", "checkpoints/previous.ckpt", "part1/checkpoints/last.ckpt"):
        file = sweep.fused_folder(0) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        (sweep.fused_folder(0) / "results.json").touch()
        write_run(again(digits, interrupted).jobs[1], metrics='{"val/accuracy": 0.5}')
        group, _ = again(digits, interrupted).groups
        assert [(each.number, each.finished, each.resumes) for each in group.members()] == [
            (0, False, True), (1, True, False)
        ]  # fmt: skip
        file.unlink()


def test_a_group_that_was_killed_between_two_of_its_parts_starts_again(digits, interrupted):
    write_run(again(digits, interrupted).jobs[3], metrics='{"val/accuracy": 0.5}')
    assert numbers(again(digits, interrupted).groups) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("ended", [True, False])
def test_the_other_members_of_a_group_that_has_ended_run_alone(digits, interrupted, ended):
    write_run(again(digits, interrupted).jobs[3], metrics='{"val/accuracy": 0.5}')
    if ended:
        folders.runs.write_json(interrupted / "fused" / "1" / "results.json", {})
    else:
        write_run(again(digits, interrupted).jobs[2], last="")
    sweep = again(digits, interrupted, fuse=2)
    assert numbers(sweep.groups) == [[0, 1]]
    assert [job.group for job in sweep.jobs] == [0, 0, 1, 1, None]


def test_a_group_whose_members_are_all_done_does_not_run_again_and_keeps_no_checkpoint(digits, interrupted):
    for job in again(digits, interrupted).jobs[2:4]:
        write_run(job, metrics='{"val/accuracy": 0.5}')
    for number in (0, 1):
        folders.runs.write_json(interrupted / "fused" / str(number) / "parts.json", {})
        for name in ("last.ckpt", "last.ckpt.sha256", "previous.ckpt"):
            file = interrupted / "fused" / str(number) / "checkpoints" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        (interrupted / "fused" / str(number) / ".results.json.1.tmp").touch()  # of a process that was killed
    assert numbers(again(digits, interrupted).groups) == [[0, 1]]
    assert not [*interrupted.glob("fused/*/.*.tmp")]
    assert len([*interrupted.glob("fused/0/checkpoints/*")]) == 3
    assert [*interrupted.glob("fused/1/checkpoints/*")] == []


def test_a_group_of_which_this_command_has_only_some_members_is_not_restored(digits, interrupted):
    sweep = again(digits, interrupted, count=3)
    assert numbers(sweep.groups) == [[0, 1]]


def test_new_groups_get_new_numbers(digits, tmp_path):
    (tmp_path / "fused" / "4").mkdir(parents=True)
    sweep = sweep_of(tmp_path, [digits] * 2, fuse=2)
    form_groups(sweep, sweep.jobs, {})
    assert [group.number for group in sweep.groups] == [5]
    assert sweep.groups[0].log == tmp_path / "fused" / "5" / "train.log"


@pytest.mark.parametrize("content", ["", "[]", '{"jobs": 1}', '{"jobs": [{"group": 1}]}', '{"jobs": [{"group": "a"}]}'])
def test_a_damaged_file_records_no_groups(tmp_path, content):
    (tmp_path / "jobs.json").write_text(content)
    assert recorded_groups(tmp_path) == {}


def _interrupt_an_import(*_):
    raise ImportError("initialization failed") from KeyboardInterrupt()


def test_a_group_that_is_interrupted_while_it_imports_has_not_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("losslab.training.fused.group.train_group", _interrupt_an_import)
    with pytest.raises(KeyboardInterrupt):
        run_group([], tmp_path)
    assert not (tmp_path / "results.json").exists()


def test_a_group_that_fails_has_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("losslab.training.fused.group.train_group", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_group([], tmp_path)
    assert read_json(tmp_path / "results.json") == {"reason": "division by zero"}

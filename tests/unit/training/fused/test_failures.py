"""A member that fails does so like the run alone, and the others train as if it had not been there."""

from pathlib import Path

import pytest
from fused_runs import DOUBLE, configuration, differences, train_alone, train_fused

from losslab import runs
from losslab.errors import LabError
from losslab.runs import RunFolder
from losslab.training.fused import FusedMember
from losslab.training.fused.group import train_group
from losslab.training.fused.members import build_group

LINE = ["model=linear", "data=line", "loss=mse", "optimizer=sgd", "trainer.max_epochs=20", DOUBLE]
DIGITS = ["model=mlp", "model.hidden=[8]", "data=digits", "data.size=8", "data.batch_size=400", "loss=cross_entropy",
          "optimizer=sgd", "trainer.max_epochs=3", DOUBLE]  # fmt: skip


@pytest.mark.parametrize(
    ("common", "bad"),
    [
        (LINE, ["seed=1", "optimizer.lr=1e308"]),  # weights
        (LINE, ["seed=1", "optimizer.lr=1e30"]),  # the loss itself, in epoch 6
        (DIGITS, ["loss=sce", "optimizer.lr=1e300"]),  # a term of the loss
        (DIGITS, ["loss=mse", "optimizer.lr=1e20"]),
        (LINE, ["optimizer.lr=1e160"]),  # the validation
    ],
)
def test_a_member_fails_with_the_line_of_the_run_alone(tmp_path, common, bad):
    members = [["seed=0"], bad, ["seed=2"]]
    assert differences(tmp_path, members, *common, alone=[1]) == []
    folder = RunFolder(tmp_path / "fused" / "1")
    assert folder.config.exists()
    assert folder.history.exists()
    assert not folder.metrics.exists()


def test_a_member_whose_optimizer_state_overflows_ends_like_the_run_alone(tmp_path):
    common = [*DIGITS, "optimizer=adam", "optimizer.lr=1e-3", "loss=sce", "trainer.precision=32-true"]
    members = [["seed=0"], ["loss.terms.rce.weight=1e25"]]
    assert differences(tmp_path, members, *common, alone=[1], tolerance=1e-4) == []
    assert not RunFolder(tmp_path / "fused" / "1").best.exists()
    assert RunFolder(tmp_path / "fused" / "0").metrics.exists()


@pytest.mark.parametrize(
    "bad", [["optimizer.lr=1e30"], ["callbacks.early_stopping.patience=1"]], ids=["nan", "stopped"]
)
def test_the_others_train_bit_for_bit_as_with_a_harmless_member(tmp_path, bad):
    common = [*DIGITS, "callbacks=early_stopping", "callbacks.early_stopping.patience=50", "optimizer.lr=0.3"]
    others = [["seed=0"], ["seed=2", "loss=focal"]]
    for name, middle in (("with", bad), ("without", ["optimizer.lr=0.1"])):
        results = train_fused(tmp_path / name, [others[0], ["seed=1", *middle], others[1]], *common)
        assert [results[index].reason for index in (0, 2)] == [None, None]
    for index in (0, 2):
        one, two = (RunFolder(tmp_path / name / str(index)) for name in ("with", "without"))
        for file in ("metrics", "history", "weights", "best"):
            assert getattr(one, file).read_bytes() == getattr(two, file).read_bytes(), file


INVALID = [
    (["optimizer.lr=-1"], []),
    (["loss.gamma=-1"], ["loss=focal"]),
    (["scheduler.scheduler.pct_start=3"], ["scheduler=one_cycle"]),
    (["+scheduler.scheduler.total_steps=3"], ["scheduler=one_cycle"]),
    (["callbacks.early_stopping.patience=abc"], ["callbacks=early_stopping"]),
    (["trainer.gradient_clip_val=-1"], []),
]


@pytest.mark.parametrize(("bad", "common"), INVALID)
def test_members_with_an_invalid_number_fail_alone(tmp_path, bad, common):
    reasons = _failures(tmp_path, [["seed=1", *bad], ["seed=0"], ["seed=2", *bad]], *DIGITS, *common)
    alone = train_alone(configuration(tmp_path / "alone", *DIGITS, *common, *bad))
    assert alone is not None
    assert reasons == {0: alone, 2: alone}
    assert "\n" not in reasons[0]


def test_the_log_of_a_member_that_cannot_be_built_contains_the_reason(tmp_path):
    results = train_fused(tmp_path, [["seed=0"], ["seed=1", "optimizer.lr=-1"]], *LINE)
    assert results[0].reason is None
    assert RunFolder(tmp_path / "1").log.read_text() == f"job 1 failed: {results[1].reason}\n"


def _failures(folder: Path, members: list[list[str]], *common: str) -> dict[int, str]:
    configs = [configuration(folder / str(index), *common, *own) for index, own in enumerate(members)]
    group = [FusedMember(index, config, finished=False, resumes=False) for index, config in enumerate(configs)]
    return build_group(group).failures


def test_a_member_does_not_overwrite_a_run(tmp_path):
    folders = [tmp_path / name for name in ("taken", "new", "new")]
    folders[0].mkdir()
    (folders[0] / "config.json").write_text("{}")
    group = [
        FusedMember(index, configuration(folder, *LINE), finished=False, resumes=False)
        for index, folder in enumerate(folders)
    ]
    results = train_group(group, tmp_path / "group")
    line = "already contains a run: choose another run_dir"
    reasons = {0: f"{folders[0]} {line}", 1: None, 2: f"{folders[2]} {line}"}
    assert {number: result.reason for number, result in results.items()} == reasons
    assert (folders[0] / "config.json").read_text() == "{}"


def test_a_folder_in_which_another_process_trains_is_left_alone(tmp_path):
    (tmp_path / "1").mkdir()
    with (
        runs.lock(tmp_path / "1"),
        pytest.raises(LabError, match=f"another process is training in {tmp_path}/1: wait until it ends, or end it"),
    ):
        train_fused(tmp_path, [["seed=0"], ["seed=1"]], *LINE)
    assert [*(tmp_path / "1").iterdir()] == []


def test_vanishing_gradients_are_reported_as_in_the_run_alone(tmp_path, caplog):
    common = [*DIGITS, "model.hidden=[8,8,8,8,8,8,8,8]", "trainer.max_epochs=1"]
    train_fused(tmp_path, [["seed=0", "loss=focal"], ["seed=1"]], *common, "model.activation=sigmoid")
    logs = [RunFolder(tmp_path / name).log.read_text() for name in "01"]
    caplog.clear()
    assert train_alone(configuration(tmp_path / "alone", *common, "model.activation=sigmoid", "seed=1")) is None
    alone = [record.getMessage() for record in caplog.records if "gradients vanish" in record.getMessage()]
    assert alone
    assert [line for line in logs[1].splitlines() if line.startswith("gradients")] == alone

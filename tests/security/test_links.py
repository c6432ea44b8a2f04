"""No file is written through a symbolic link in an untrusted folder."""

import os
import sys
from pathlib import Path

import folders
import pytest

from losslab.cli import train
from losslab.errors import LabError
from losslab.io import atomic, untrusted
from losslab.runs import RunFolder
from losslab.training.config import register

sys.path.insert(0, str(Path(__file__).parent))

from test_configurations import not_started, run, sound


@pytest.fixture
def victim(tmp_path):
    """A folder of the user, which must not change."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "profile").write_text("# mine\n")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["profile"]
    assert (folder / "profile").read_text() == "# mine\n"


PLACES = (
    "figures", "figures/x.png", "figures/deep", "checkpoints", "checkpoints/deep", "checkpoints/last.ckpt", ".hydra",
    "train.log", "history.csv", "teacher", "teacher/config.json", "evaluation", "evaluation/test", "a/b/c/d",
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("leads", ["folder", "file", "nowhere", "up"])
def test_run_with_a_link_that_leads_elsewhere_is_not_resumed(place, leads, tmp_path, victim):
    folder = run(tmp_path / "run")
    assert train.read_configuration(RunFolder(folder))
    (folder / place).unlink(missing_ok=True)
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    target = {"folder": victim, "file": victim / "profile", "nowhere": victim / "new", "up": ".."}[leads]
    (folder / place).symlink_to(target)
    with pytest.raises(LabError, match=rf"{place} is a symbolic link; .*: replace the link by its target$"):
        train.read_configuration(RunFolder(folder))


def test_run_that_had_not_started_is_not_started_with_a_link_in_its_folder(tmp_path, victim):
    added = ("choices", "per_run", "made_with")  # are added when the configuration is resolved
    folder = not_started(
        tmp_path / "run", {key: one for key, one in sound(tmp_path / "run").items() if key not in added}
    )
    register()
    (folder.path / "teacher").mkdir()
    (folder.path / "teacher" / "weights.pth").symlink_to(victim / "profile")
    with pytest.raises(LabError, match=r"weights\.pth is a symbolic link"):
        train.read_configuration(folder)


def test_links_are_refused_in_all_jobs_of_a_sweep(tmp_path, victim):
    run(tmp_path / "sweep" / "0-run")
    untrusted.check_folder(tmp_path / "sweep")
    (tmp_path / "sweep" / "1-run").symlink_to(victim)
    with pytest.raises(LabError, match="1-run is a symbolic link"):
        untrusted.check_folder(tmp_path / "sweep")


def test_pipe_is_refused(tmp_path):
    os.mkfifo(run(tmp_path / "run") / "timing.csv.old")
    with pytest.raises(LabError, match=r"timing\.csv\.old is a pipe, a socket or a device"):
        train.read_configuration(RunFolder(tmp_path / "run"))


def test_links_of_lightning_and_to_the_folder_are_allowed(tmp_path):
    """last.ckpt may be a link to another checkpoint in its folder. If that is missing, a later check reports it."""
    folder = RunFolder(run(tmp_path / "run"))
    folder.last.parent.mkdir()
    folder.last.symlink_to("epoch=3.ckpt")
    (tmp_path / "latest").symlink_to(tmp_path / "run")
    assert train.read_configuration(RunFolder(tmp_path / "latest"))


def test_teacher_is_not_copied_through_a_link(tmp_path, victim):
    teacher = RunFolder(folders.run(tmp_path / "teacher"))
    teacher.weights.write_bytes(b"weights")
    folder = RunFolder(folders.run(tmp_path / "run"))
    folder.teacher.mkdir()
    for name in ("config.json", "weights.pth"):
        (folder.teacher / name).symlink_to(victim / "profile")
    folder.copy_teacher(teacher)
    assert (folder.teacher / "weights.pth").read_bytes() == b"weights"
    other = RunFolder(folders.run(tmp_path / "other"))
    other.teacher.symlink_to(victim)
    with pytest.raises(LabError, match="teacher is a symbolic link"):
        other.copy_teacher(teacher)


def test_link_with_the_temporary_name_is_not_written_through(tmp_path, victim):
    (tmp_path / f".metrics.json.{os.getpid()}.tmp").symlink_to(victim / "profile")
    atomic.write_bytes(tmp_path / "metrics.json", b"{}")
    assert (tmp_path / "metrics.json").read_bytes() == b"{}"


def test_path_that_the_user_chose_is_allowed(tmp_path, victim):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "figures").symlink_to(victim)
    untrusted.check_output_path(tmp_path / "run" / ".." / "elsewhere", tmp_path / "run")
    untrusted.check_output_path(victim / "figures", tmp_path / "run")
    with pytest.raises(LabError, match="figures is a symbolic link"):
        untrusted.check_output_path(tmp_path / "run" / "figures" / "x.png", tmp_path / "run")

"""A folder is claimed by one run. A refused run leaves nothing behind."""

import resource
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from losslab import runs
from losslab.errors import LabError
from losslab.runs.lock import is_unlocked


def test_folder_that_is_not_empty_is_refused(tmp_path):
    runs.claim(tmp_path / "new")
    (tmp_path / "new" / "something").touch()
    with pytest.raises(LabError, match="is not empty"):
        runs.claim(tmp_path / "new")
    (tmp_path / "new" / "config.json").touch()
    with pytest.raises(LabError, match="already contains a run"):
        runs.claim(tmp_path / "new")


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "new").touch()
    with pytest.raises(LabError, match="new is a file: set run_dir to another folder"):
        runs.claim(tmp_path / "new")


def write_as_hydra_does(folder):
    (folder / ".hydra").mkdir()
    (folder / "train.log").touch()


def test_refused_run_removes_the_folders_it_made(tmp_path):
    (tmp_path / "outputs").mkdir()
    path = tmp_path / "outputs" / "name" / "stamp"
    made = runs.claim(path)
    write_as_hydra_does(path)
    runs.discard(path, made)
    assert list(tmp_path.rglob("*")) == [tmp_path / "outputs"]


def test_refused_run_leaves_an_existing_folder(tmp_path):
    (tmp_path / "mine").mkdir()
    made = runs.claim(tmp_path / "mine")
    write_as_hydra_does(tmp_path / "mine")
    runs.discard(tmp_path / "mine", made)
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_run_that_has_started_is_not_discarded(tmp_path):
    made = runs.claim(tmp_path / "run")
    write_as_hydra_does(tmp_path / "run")
    (tmp_path / "run" / "config.json").touch()
    runs.discard(tmp_path / "run", made)
    assert (tmp_path / "run" / "train.log").exists()


def test_one_of_several_concurrent_runs_claims_the_folder(tmp_path):
    def claimed(_: int) -> bool:
        try:
            runs.claim(tmp_path / "same")
        except LabError:
            return False
        return True

    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(claimed, range(8))) == 1
        shutil.rmtree(tmp_path / "same")


def test_all_folders_are_locked_until_the_end(tmp_path):
    paths = make_folders(tmp_path)
    with runs.lock_all(paths):
        assert not any(map(is_unlocked, paths))
        with pytest.raises(LabError, match="another process is training in"), runs.lock_all(paths):
            pass
    assert all(map(is_unlocked, paths))


def test_file_descriptors_are_left_when_many_folders_are_locked(tmp_path, monkeypatch):
    limits = [(256, resource.RLIM_INFINITY), (256, 514), (256, 100)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits.pop(0))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: set_limits.append(limit[0]))
    set_limits: list[int] = []
    paths = make_folders(tmp_path)
    for locked in (3, 2, 0):
        with runs.lock_all(paths):
            assert sum(not is_unlocked(path) for path in paths) == locked
    assert set_limits == [515, 514, 100]


def make_folders(path):
    folders = [path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    return folders

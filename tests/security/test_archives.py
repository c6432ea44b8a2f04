"""Malicious archives of CIFAR-10 write no file outside of the data folder, execute no code and do not fill the disk."""

import gzip
import io
import json
import os
import pickle
import tarfile

import folders
import pytest

from losslab.data import cifar10
from losslab.data.cifar10 import CIFAR10
from losslab.errors import LabError
from losslab.runs import RunFolder
from losslab.training import reopen

FOLDER = cifar10.FOLDER


def member(name, content=b"x", **more):
    made = tarfile.TarInfo(name)
    made.size = len(content)
    for key, value in more.items():
        setattr(made, key, value)
    return made, content


def linked(name, to, kind=tarfile.SYMTYPE):
    return member(name, b"", type=kind, linkname=to)


def evil(canary):
    class Call:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    return pickle.dumps({b"data": Call(), b"labels": []}, 2)


OUTSIDE = {
    "a path that leads out": lambda out: [
        member(FOLDER, b"", type=tarfile.DIRTYPE), member(f"{FOLDER}/../../{out.name}/canary"),
    ],
    "an absolute path": lambda out: [member(f"{out}/canary")],
    "a link that is written through": lambda out: [
        member(FOLDER, b"", type=tarfile.DIRTYPE), linked(f"{FOLDER}/a", str(out)), member(f"{FOLDER}/a/canary"),
    ],
    "a folder that is a link": lambda out: [linked(FOLDER, str(out)), member(f"{FOLDER}/canary")],
}  # fmt: skip
"""Archives that write a file outside of the folder if they are unpacked unchecked."""

ALL = OUTSIDE | {
    "a link to a file": lambda _: [linked(f"{FOLDER}/test_batch", "/etc/passwd")],
    "a hard link": lambda _: [linked(f"{FOLDER}/test_batch", "../../canary", tarfile.LNKTYPE)],
    "a pipe": lambda _: [member(f"{FOLDER}/test_batch", b"", type=tarfile.FIFOTYPE)],
    "a device": lambda _: [member(f"{FOLDER}/test_batch", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5)],
    "a file that comes twice": lambda _: [member(f"{FOLDER}/test_batch"), member(f"{FOLDER}/test_batch")],
    "a folder below": lambda _: [member(f"{FOLDER}/a/b/c")],
    "too many files": lambda _: [member(f"{FOLDER}/{number}") for number in range(200)],
    "another folder": lambda _: [member("elsewhere/test_batch")],
}


def write(folder, members):
    folder.mkdir()
    with tarfile.open(folder / cifar10.ARCHIVE, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return folder


def refused(folder):
    def read():
        data = CIFAR10(dir=folder, url="file:///nowhere", verify=False)
        data.prepare_data()
        data.setup()

    with pytest.raises(LabError) as found:
        read()
    assert "\n" not in str(found.value)
    return str(found.value)


@pytest.mark.parametrize("name", ALL)
def test_foreign_members_are_not_unpacked(name, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert "is damaged or is not CIFAR-10" in refused(write(tmp_path / "data", ALL[name](out)))
    assert not any(out.iterdir())
    assert not (tmp_path / "data" / FOLDER).exists()


@pytest.mark.parametrize("name", OUTSIDE)
def test_malicious_archives_write_outside_if_they_are_unpacked_unchecked(name, tmp_path):
    """The negative control."""
    out = tmp_path / "out"
    out.mkdir()
    folder = write(tmp_path / "data", OUTSIDE[name](out))
    with tarfile.open(folder / cifar10.ARCHIVE) as tar:
        tar.extractall(folder, filter="fully_trusted")  # noqa: S202
    assert (out / "canary").exists() or (tmp_path / "canary").exists()


def test_the_message_names_the_number_of_members_and_not_a_harmless_member(tmp_path):
    said = "it contains more than 100 files and folders"
    assert said in refused(write(tmp_path / "data", ALL["too many files"](tmp_path)))
    write(tmp_path / "full", [member(f"{FOLDER}/{number}") for number in range(100)])
    cifar10._unpack(tmp_path / "full" / cifar10.ARCHIVE, tmp_path)
    assert len([*(tmp_path / FOLDER).iterdir()]) == 100


def test_decompression_bomb_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("losslab.data.cifar10._MAX_UNPACKED_BYTES", 4 << 20)
    message = refused(write(tmp_path / "data", [member(f"{FOLDER}/test_batch", bytes(64 << 20))]))
    assert "unpacks to more than" in message
    (tmp_path / "other").mkdir()
    header = member("x", bytes(32 << 20), type=tarfile.XHDTYPE)
    packed = header[0].tobuf() + header[1]
    (tmp_path / "other" / cifar10.ARCHIVE).write_bytes(gzip.compress(packed))
    assert "unpacks to more than" in refused(tmp_path / "other")


def test_batch_files_are_neither_executed_nor_waited_for(tmp_path):
    canary = tmp_path / "canary"
    batches = tmp_path / FOLDER
    batches.mkdir()
    for name in (*cifar10.TRAIN, *cifar10.TEST):
        (batches / name).write_bytes(evil(canary))
    assert "it names posix.system" in refused(tmp_path)
    assert not canary.exists()
    pickle.loads((batches / "test_batch").read_bytes())
    assert canary.exists()  # the negative control
    (batches / "data_batch_1").unlink()
    os.mkfifo(batches / "data_batch_1")
    assert "it is not a regular file" in refused(tmp_path)


@pytest.mark.parametrize("asked", [(), ("dir=FRESH",), ("dir=FRESH", "verify=false"), ("subset=5",)])
def test_finished_run_downloads_nothing_that_its_folder_names(asked, tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(
        cifar10, "ensure_downloaded", lambda *given, **verify: fetched.append((*given, *verify.values()))
    )
    (tmp_path / "victim").mkdir()
    given = {"url": "http://127.0.0.1:9/evil.tar.gz", "verify": False, "dir": str(tmp_path / "victim"), "subset": 9}
    config = folders.config(
        ckpt_path=None, loss___target_="losslab.losses.cross_entropy.CrossEntropy", optimizer___partial_=True
    )
    config["data"] = {"_target_": "losslab.data.cifar10.CIFAR10"} | given
    folder = RunFolder(folders.run(tmp_path / "run"))
    folder.config.write_text(json.dumps(config))
    (folder.path / "data.json").unlink(missing_ok=True)
    monkeypatch.setattr(reopen.weights, "load", lambda *_: None)
    monkeypatch.setattr(reopen, "find_checkpoint", lambda *_: folder.last)
    changed = tuple(each.replace("FRESH", str(tmp_path / "fresh")) for each in asked)
    data = reopen.reopen(reopen.EvaluationRequest(folder.path, data=changed)).data
    if len(changed) > 0 and changed[0].startswith("dir"):
        data.prepare_data()
        assert fetched == [(tmp_path / "fresh", None, len(changed) == 1)]  # its public home
        return
    with pytest.raises(LabError, match=r"no download is started for a run folder, .*: pass --data dir=FOLDER"):
        data.prepare_data()
    assert not fetched
    assert not [*(tmp_path / "victim").iterdir()]

"""A file is complete or absent, whenever its writer is killed."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from losslab.io import atomic

WRITER = """
import os, signal, sys
from pathlib import Path
from losslab.io import atomic

die_at, when, path, text = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4]
calls = 0

def watched(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == die_at and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*arguments, **options)
        if calls == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

def content(file):
    file.write(text.encode() * 50)
    file.flush()
    half = watched(lambda: None)
    half()
    file.write(text.encode() * 50)

os.fsync, Path.replace, Path.unlink = watched(os.fsync), watched(Path.replace), watched(Path.unlink)
if sys.argv[5] == "durable":
    atomic.write_with_checksum(path, content)
else:
    with path.open("wb") as file:
        content(file)
        os.fsync(file.fileno())
print(calls)
"""


def killed(die_at, when, path, text, how="durable"):
    arguments = [str(die_at), when, str(path), text, how]
    return subprocess.run(
        [sys.executable, "-c", WRITER, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_killed_at_any_moment_the_old_or_the_new_file_is_intact(tmp_path):
    path = tmp_path / "file"
    calls = int(killed(0, "", path, "old").stdout)
    assert calls >= 8
    for moment in range(1, calls + 1):
        for when in ("before", "after"):
            atomic.write_with_checksum(path, lambda file: file.write(b"old" * 100))
            assert killed(moment, when, path, "new").returncode == -9
            assert path.read_bytes() in {b"old" * 100, b"new" * 100}, (moment, when)
            assert atomic.matches_checksum(path), (moment, when)
    assert path.read_bytes() == b"new" * 100, "killed after the last call"


def test_plain_write_leaves_half_a_file_and_the_checksum_does_not_match(tmp_path):
    """The negative control: a kill leaves half a file if it is not written atomically."""
    path = tmp_path / "file"
    atomic.write_with_checksum(path, lambda file: file.write(b"old" * 100))
    assert killed(1, "after", path, "new", how="plain").returncode == -9
    assert path.read_bytes() == b"new" * 50
    assert atomic.matches_checksum(path) is False


def test_matches_checksum_is_false_for_a_flipped_bit_and_none_without_a_checksum(tmp_path):
    path = tmp_path / "file"
    atomic.write_with_checksum(path, lambda file: file.write(bytes(1000)))
    assert atomic.matches_checksum(path) is True
    content = bytearray(path.read_bytes())
    content[500] ^= 4
    path.write_bytes(content)
    assert atomic.matches_checksum(path) is False
    atomic.checksum_path(path).unlink()
    assert atomic.matches_checksum(path) is None


def test_sha256sum_verifies_the_checksum(tmp_path):
    atomic.write_with_checksum(tmp_path / "file", lambda file: file.write(b"x"))
    done = subprocess.run(
        ["sha256sum", "--check", "file.sha256"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "file: OK\n")


def test_failed_write_leaves_the_previous_file_unchanged(tmp_path):
    path = tmp_path / "file"
    atomic.write_with_checksum(path, lambda file: file.write(b"old"))

    def full(file):
        file.write(b"new")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        atomic.write_with_checksum(path, full)
    assert path.read_bytes() == b"old"
    assert atomic.matches_checksum(path)
    assert {each.name for each in tmp_path.iterdir()} == {"file", "file.sha256"}


def test_killed_move_leaves_a_file_that_matches_its_checksum(tmp_path, monkeypatch):
    first, second = tmp_path / "last", tmp_path / "previous"
    for path in (first, second):
        atomic.write_with_checksum(path, lambda file, path=path: file.write(path.name.encode()))
    atomic.move(first, second)
    assert second.read_bytes() == b"last"
    assert atomic.matches_checksum(second)
    assert len(atomic.checksum_path(second).read_text().splitlines()) == 1

    def killed(*_):
        raise KeyboardInterrupt

    atomic.write_with_checksum(first, lambda file: file.write(b"newest"))
    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        atomic.move(first, second)
    assert atomic.matches_checksum(first)
    assert atomic.matches_checksum(second)


def test_moved_file_without_a_checksum_has_none_afterwards(tmp_path, monkeypatch):
    first, second = tmp_path / "last", tmp_path / "previous"
    atomic.write_with_checksum(second, lambda file: file.write(b"older"))
    first.write_bytes(b"newer")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "_fsync_folder", killed)  # is called right after the file is renamed
    with pytest.raises(KeyboardInterrupt):
        atomic.move(first, second)
    assert (second.read_bytes(), atomic.matches_checksum(second)) == (b"newer", None)


def test_json_is_written_completely_or_not_at_all(tmp_path):
    path = tmp_path / "metrics.json"
    atomic.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        atomic.write_json(path, {"a": object()})
    assert path.read_text() == '{\n  "a": 1\n}\n'


def test_nan_and_infinity_become_null(tmp_path):
    atomic.write_json(tmp_path / "metrics.json", {"a": float("nan"), "b": float("inf"), "c": 1.5})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"a": None, "b": None, "c": 1.5}


def test_json_has_null_for_nan_and_infinity_at_any_depth():
    content = {"jobs": [{"value": float("nan")}, {"value": (1.0, float("inf"))}], "name": "a"}
    assert json.loads(atomic.to_json(content)) == {"jobs": [{"value": None}, {"value": [1.0, None]}], "name": "a"}

"""Simulates a disk that is full."""

import errno
import io
import os
from pathlib import Path


class Disk:
    """The disk of a folder. While it is `full`, a write in the folder writes half of the bytes and raises OSError."""

    def __init__(self, folder, monkeypatch):
        self.full, self.refused = False, set()
        opened = io.open

        def open_on_disk(path, mode="r", *args, **kwargs):
            file = opened(path, mode, *args, **kwargs)
            inside = not isinstance(path, int) and Path(path).is_relative_to(folder)
            return _File(file, self, Path(path).name) if inside and set(mode) & set("wxa") else file

        monkeypatch.setattr(io, "open", open_on_disk)  # pathlib calls it


class _File:
    def __init__(self, file, disk, name):
        self._file, self._disk, self._name = file, disk, name

    def write(self, content):
        if not self._disk.full:
            return self._file.write(content)
        self._disk.refused.add(self._name)
        half = self._file.write(content[: len(content) // 2])
        if isinstance(self._file, io.RawIOBase):
            return half  # an unbuffered file raises at the next write
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def __getattr__(self, name):
        return getattr(self._file, name)

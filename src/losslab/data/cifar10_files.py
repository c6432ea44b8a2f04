"""CIFAR-10's files: downloaded once, verified, and read without executing what a damaged or hostile file contains."""

import gzip
import hashlib
import io
import pickle
import shutil
import socket
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from losslab.errors import LabError, message_of

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PIXELS = 3 * 32 * 32
_MAX_BATCH_BYTES = 64 << 20
_MAX_UNPACKED_BYTES = 256 << 20
"""Limit of the unpacked archive; the official one has 186 million bytes."""
_MAX_MEMBERS = 100
_DAMAGED = (tarfile.TarError, ValueError, EOFError, zlib.error, gzip.BadGzipFile, FileNotFoundError, FileExistsError)
"""What unpacking raises for an archive that is damaged or holds something else."""


def ensure_downloaded(folder: Path, url: str | None, *, verify: bool) -> None:
    """Unpack CIFAR-10 into `folder` unless it is there, from an archive in `folder` or from a download.

    A file lock makes processes that start together wait for the first one. Incomplete files never have the final name.

    Args:
        folder: parent folder of cifar-10-batches-py.
        url: URL of the archive; None for the official one.
        verify: whether the archive must have the official SHA-256.

    Raises:
        LabError: the download failed, or the archive is damaged or not the official one; the message names the remedy.
    """
    if (folder / FOLDER).is_dir():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{FOLDER}.lock"):
            if not (folder / FOLDER).is_dir():
                _fetch(folder, url, verify=verify)
    except OSError as error:
        raise LabError(
            f"cannot write CIFAR-10 to {folder} ({error.strerror or error}): set data.dir to a folder you may write"
        ) from error


def require_present(folder: Path) -> None:
    """Raise LabError unless `folder` holds CIFAR-10 unpacked. Nothing is downloaded."""
    if not (folder / FOLDER).is_dir():
        raise LabError(
            f"there is no {FOLDER} in {folder}, and nothing is fetched because a run's configuration asks for it: "
            "pass --data dir=FOLDER, or unpack it there"
        )


def read_batches(folder: Path, files: tuple[str, ...], *, verify: bool) -> tuple[Tensor, Tensor]:
    """Read batch files → images, uint8 (N, 32, 32, 3), and class indices, int64 (N,).

    Raises:
        LabError: a file is missing, is not a CIFAR-10 batch, or, with `verify`, is not the official one.
    """
    images, labels = [], []
    for name in files:
        path = folder / FOLDER / name
        pixels, classes = _parse(_content(path, verify=verify), path)
        images.append(torch.from_numpy(pixels).view(-1, 3, 32, 32).permute(0, 2, 3, 1).contiguous())
        labels.append(torch.tensor(classes))
    return torch.cat(images), torch.cat(labels)


def _fetch(folder: Path, url: str | None, *, verify: bool) -> None:
    archive = folder / ARCHIVE
    by_hand = _manual_remedy(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".cifar-10-") as temporary:
        source, remedy = archive, f"delete it and run again, or {by_hand}"
        if not archive.is_file():
            source, remedy = Path(temporary) / ARCHIVE, f"run again, or {by_hand}"
            _download(url, source)
        if verify:
            _check_archive(source, remedy)
        try:
            _unpack(source, Path(temporary))
            (Path(temporary) / FOLDER).rename(folder / FOLDER)
        except _DAMAGED as error:
            raise LabError(f"{source.name} is damaged or is not CIFAR-10 ({message_of(error)}): {remedy}") from error
        if source != archive:
            source.replace(archive)  # keep the download, which is complete now


def _download(url: str | None, path: Path) -> None:
    from torchvision.datasets import CIFAR10  # noqa: PLC0415 -- half a second to import, needed once per data set
    from torchvision.datasets.utils import download_url  # noqa: PLC0415

    source = url or CIFAR10.url
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)  # torchvision sets none and would wait forever for a silent server
    try:
        download_url(source, str(path.parent), path.name)
    except Exception as error:
        # The URL is the user's, and torchvision passes on any exception that it causes.
        raise LabError(
            f"cannot download CIFAR-10 from {source} ({message_of(getattr(error, 'reason', None) or error)}): go "
            f"online, set data.url to a mirror, or {_manual_remedy(path.parents[1])}"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _check_archive(path: Path, remedy: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise LabError(
            f"{path.name} is damaged or is not the official CIFAR-10 (SHA-256 {digest[:12]}…, expected {SHA256[:12]}…):"
            f" {remedy}; data.verify=false accepts it as it is"
        )


def _manual_remedy(folder: Path) -> str:
    return f"put {ARCHIVE} or the folder {FOLDER} into {folder.absolute()} (data.dir)"


def _unpack(archive: Path, into: Path) -> None:
    """Unpack the archive. Raises one of _DAMAGED unless it holds only a few plain files, directly in FOLDER."""
    (into / FOLDER).mkdir()
    with archive.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        content: Any = _LimitedReader(gzip.GzipFile(fileobj=file) if is_gzip else file)
        # Read as a stream: sizes in headers are never used to seek, and bytes are counted as they come.
        with tarfile.open(fileobj=content, mode="r|") as tar:
            for number, member in enumerate(tar):
                path = PurePosixPath(member.name)
                is_folder = path == PurePosixPath(FOLDER)
                is_inside = path.parts == (FOLDER, path.name) and path.name not in {".", ".."}
                if number > _MAX_MEMBERS or not (is_folder or is_inside):
                    raise ValueError(f"it holds {ascii(member.name)[:80]}")
                if member.isdir() and is_folder:
                    continue
                source = tar.extractfile(member) if member.isreg() and not member.sparse else None
                if source is None:
                    raise ValueError(f"its {ascii(member.name)[:80]} is no file")
                with source, (into / FOLDER / path.name).open("xb") as target:
                    shutil.copyfileobj(source, target)


class _LimitedReader:
    """A stream that raises ValueError once more than _MAX_UNPACKED_BYTES were read: protects against archive bombs."""

    def __init__(self, file: Any) -> None:
        self._file, self._remaining = file, _MAX_UNPACKED_BYTES

    def read(self, size: int) -> bytes:
        """Up to `size` bytes."""
        content: bytes = self._file.read(size)
        self._remaining -= len(content)
        if self._remaining < 0:
            raise ValueError(f"it unpacks to more than {_MAX_UNPACKED_BYTES >> 20} MiB")
        return content


def _content(path: Path, *, verify: bool) -> bytes:
    from torchvision.datasets import CIFAR10  # noqa: PLC0415

    if path.exists() and not (path.is_file() and path.stat().st_size <= _MAX_BATCH_BYTES):
        raise LabError(f"{path} is no file, or larger than a CIFAR-10 batch: delete {path.parent} and run again")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LabError(f"cannot read {path} ({error.strerror}): delete {path.parent} to download it again") from error
    official = dict((*CIFAR10.train_list, *CIFAR10.test_list))
    if verify and hashlib.md5(content, usedforsecurity=False).hexdigest() != official[path.name]:
        raise LabError(
            f"{path} is not the official file (MD5 differs): delete {path.parent} to download it again, or set "
            f"data.verify=false to use a re-encoded copy"
        )
    return content


def _parse(content: bytes, path: Path) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[int]]:
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = _pixels(batch[b"data"]), batch[b"labels"]
        valid = len(pixels) == len(labels) and all(isinstance(y, int) and 0 <= y < len(CLASSES) for y in labels)
    except Exception as error:
        # A damaged pickle can raise any exception.
        raise LabError(
            f"{path} is damaged or is not a CIFAR-10 batch ({message_of(error)}): delete {path.parent} and run again"
        ) from error
    if not valid:
        raise LabError(f"{path} does not hold as many labels 0-9 as images: delete {path.parent} and run again")
    return pixels, labels


def _pixels(array: "PickledArray") -> np.ndarray[Any, np.dtype[np.uint8]]:
    if array.dtype.name != "u1" or array.is_fortran or array.shape[1:] != (_PIXELS,):
        raise ValueError(f"no uint8 images of {_PIXELS} values")
    return array.to_numpy("u1")


class _BatchUnpickler(pickle.Unpickler):
    """Unpickles dicts, lists, bytes, numbers, and arrays as `PickledArray`."""

    def find_class(self, module: str, name: str) -> Any:
        """Return stand-ins for the names that rebuild arrays and (in Python 3's pickles) bytes; refuse all others."""
        stand_ins: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: PickledArray(),
            ("numpy", "ndarray"): PickledArray,
            ("numpy", "dtype"): PickledDtype,
            ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
        }
        stand_in = stand_ins.get((module.replace("numpy._core", "numpy.core"), name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no such batch holds")
        return stand_in


class PickledDtype:
    """Stand-in for numpy.dtype while unpickling: a real dtype built from hostile bytes can crash the process."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name, self.order = name.decode() if isinstance(name, bytes) else name, "|"

    def __setstate__(self, state: Any) -> None:
        """Take the byte order out of NumPy's state (version, byte order, fields of compound types)."""
        self.order = state[1]


class PickledArray:
    """Stand-in for numpy.ndarray while unpickling, for the same reason."""

    def __setstate__(self, state: Any) -> None:
        """Take NumPy's state: version, shape, dtype, Fortran order, bytes."""
        _, self.shape, self.dtype, self.is_fortran, self.content = state

    def to_numpy(self, dtype: str) -> np.ndarray[Any, np.dtype[Any]]:
        """The array. The caller has checked that the shape and the dtype are plausible."""
        return np.frombuffer(self.content, np.dtype(dtype)).reshape(self.shape).copy()

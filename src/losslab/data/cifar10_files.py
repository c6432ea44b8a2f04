"""Unpacks CIFAR-10's archive without trusting it: files of one folder, no more bytes than the data set has.

CIFAR-10's files: downloaded once, verified, and read without trusting them.
"""

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
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from losslab.errors import LabError

_MOST_BYTES = 256 << 20
"""Unpacked; the data set takes 186 million."""
_MOST_FILES = 100


def unpack(archive: Path, into: Path, folder: str) -> None:
    """Unpack the files of `folder` in the archive, which must be all that it holds.

    Raises:
        ValueError: it holds something else: a file elsewhere, a link, a device, or more than CIFAR-10.
        tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error: it is damaged.
    """
    (into / folder).mkdir()
    with archive.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        content: Any = _Limited(gzip.GzipFile(fileobj=file) if packed else file)
        # As a stream, in which nothing is sought: what a header says of sizes is not gone to, but counted.
        with tarfile.open(fileobj=content, mode="r|") as tar:
            for number, member in enumerate(tar):
                path = PurePosixPath(member.name)
                if number > _MOST_FILES or not (path == PurePosixPath(folder) or _lies_in(path, folder)):
                    raise ValueError(f"it holds {ascii(member.name)[:80]}")
                if member.isdir() and path == PurePosixPath(folder):
                    continue
                part = tar.extractfile(member) if member.isreg() and not member.sparse else None
                if part is None:
                    raise ValueError(f"its {ascii(member.name)[:80]} is no file")
                with part, (into / folder / path.name).open("xb") as fresh:
                    shutil.copyfileobj(part, fresh)


def _lies_in(path: PurePosixPath, folder: str) -> bool:
    return path.parts == (folder, path.name) and path.name not in {".", ".."}


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes:
        """So many bytes, or what is left."""


class _Limited:
    """A stream that is refused when it turns out to be longer than the data set, however small it was packed."""

    def __init__(self, file: _Readable) -> None:
        self._file, self._left = file, _MOST_BYTES

    def read(self, size: int) -> bytes:
        """So many bytes, or what is left."""
        found = self._file.read(size)
        self._left -= len(found)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {_MOST_BYTES >> 20} MiB")
        return found


FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PIXELS = 3 * 32 * 32
_LARGEST = 64 << 20


def ensure_downloaded(folder: Path, url: str | None, *, verify: bool) -> None:
    """See that `folder` holds CIFAR-10 unpacked: as it is, from an archive that lies there, or downloaded.

    Processes that start together wait for the first one; what is not complete never has the final name.

    Args:
        folder: which is to hold cifar-10-batches-py.
        url: of the archive; None for its public home.
        verify: whether the archive must be the official one, by SHA-256.

    Raises:
        LabError: it cannot be had, or is not what it should be; the message says what to put where.
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
    """See that `folder` holds CIFAR-10 unpacked; nothing is fetched or written.

    Raises:
        LabError: it does not.
    """
    if not (folder / FOLDER).is_dir():
        raise LabError(
            f"there is no {FOLDER} in {folder}, and nothing is fetched because a run's folder says so: name a place "
            "(--data dir=FOLDER), or unpack it there"
        )


def read_batches(folder: Path, files: tuple[str, ...], *, verify: bool) -> tuple[Tensor, Tensor]:
    """The images, uint8 (N, 32, 32, 3), and class indices, int64 (N,), of these batch files, in their order.

    Raises:
        LabError: a file is missing, is not the official one while `verify` holds, or is no CIFAR-10 batch.
    """
    images, labels = [], []
    for name in files:
        path = folder / FOLDER / name
        content = _content(path, verify=verify)
        pixels, classes = _parse(content, path)
        images.append(torch.from_numpy(pixels).view(-1, 3, 32, 32).permute(0, 2, 3, 1).contiguous())
        labels.append(torch.tensor(classes))
    return torch.cat(images), torch.cat(labels)


def _fetch(folder: Path, url: str | None, *, verify: bool) -> None:
    archive = folder / ARCHIVE
    with tempfile.TemporaryDirectory(dir=folder, prefix=".cifar-10-") as temporary:
        source, remedy = archive, f"delete it and run again, or {_by_hand(folder)}"
        if not archive.is_file():
            source, remedy = Path(temporary) / ARCHIVE, f"run again, or {_by_hand(folder)}"
            _download(url, source)
        if verify:
            _check_archive(source, remedy)
        try:
            unpack(source, Path(temporary), FOLDER)
            (Path(temporary) / FOLDER).rename(folder / FOLDER)
        except (
            tarfile.TarError,
            ValueError,
            EOFError,
            zlib.error,
            gzip.BadGzipFile,
            FileNotFoundError,
            FileExistsError,
        ) as error:
            reason = " ".join(str(error).split())
            raise LabError(f"{source.name} is damaged or is not CIFAR-10 ({reason}): {remedy}") from error
        if source != archive:
            source.replace(archive)  # only now that it is known to be whole


def _download(url: str | None, path: Path) -> None:
    from torchvision.datasets import CIFAR10  # noqa: PLC0415 -- half a second to import, once in a data set's life
    from torchvision.datasets.utils import download_url  # noqa: PLC0415

    source = url or CIFAR10.url
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)  # a server that says nothing for a minute; torchvision would wait for ever
    try:
        download_url(source, str(path.parent), path.name)
    except Exception as error:
        # Any address can be given, and torchvision raises whatever it leads to; all of it means that there is no file.
        reason = " ".join(str(getattr(error, "reason", None) or error).split())
        raise LabError(
            f"cannot download CIFAR-10 from {source} ({reason}): go online, set data.url to a mirror, "
            f"or {_by_hand(path.parents[1])}"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)


def _check_archive(path: Path, remedy: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise LabError(
            f"{path.name} is damaged or is not the official CIFAR-10 (SHA-256 {found[:12]}…, expected {SHA256[:12]}…): "
            f"{remedy}; data.verify=false takes it as it is"
        )


def _by_hand(folder: Path) -> str:
    return f"put {ARCHIVE} or the folder {FOLDER} into {folder.absolute()} (data.dir)"


def _content(path: Path, *, verify: bool) -> bytes:
    from torchvision.datasets import CIFAR10  # noqa: PLC0415

    if path.exists() and not (path.is_file() and path.stat().st_size <= _LARGEST):
        raise LabError(f"{path} is no file, or larger than a CIFAR-10 batch: delete {path.parent} and run again")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LabError(
            f"cannot read {path} ({error.strerror}): delete {path.parent} to have it downloaded again"
        ) from error
    official = dict((*CIFAR10.train_list, *CIFAR10.test_list))
    if verify and hashlib.md5(content, usedforsecurity=False).hexdigest() != official[path.name]:
        raise LabError(
            f"{path} is not the official file (MD5 differs): delete {path.parent} to have it downloaded again, "
            f"or set data.verify=false to use a re-encoded copy"
        )
    return content


def _parse(content: bytes, path: Path) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], list[int]]:
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = batch[b"data"].pixels(), batch[b"labels"]
        fits = len(pixels) == len(labels) and all(isinstance(y, int) and 0 <= y < len(CLASSES) for y in labels)
    except Exception as error:
        # A damaged pickle can raise anything at all; each of it means the same to the user.
        reason = " ".join(str(error).split())
        raise LabError(
            f"{path} is damaged or is not a CIFAR-10 batch ({reason}): delete {path.parent} and run again"
        ) from error
    if not fits:
        raise LabError(f"{path} does not hold as many labels 0-9 as images: delete {path.parent} and run again")
    return pixels, labels


class _BatchUnpickler(pickle.Unpickler):
    """Unpickles dicts, lists, bytes and numbers, and what a pickled array says about itself.

    Nothing of NumPy is reachable from the pickle: a dtype made by hostile bytes can crash the process.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Only stand-ins for the names by which arrays and, in Python 3's pickles, bytes are rebuilt."""
        stand_ins: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: _PickledArray(),
            ("numpy", "ndarray"): _PickledArray,
            ("numpy", "dtype"): _PickledType,
            ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
        }
        known = stand_ins.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no such batch holds")
        return known


class _PickledType:
    """What a pickle says of a dtype: its name."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name = name.decode() if isinstance(name, bytes) else name

    def __setstate__(self, state: Any) -> None:
        """Byte order and alignment mean nothing to single bytes."""


class _PickledArray:
    """What a pickle says of an array: shape, type, order and bytes."""

    def __setstate__(self, state: Any) -> None:
        """NumPy's own five: version, shape, type, whether Fortran's order, bytes."""
        _, self.shape, self.type, self.fortran, self.content = state

    def pixels(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The array, if it is one of uint8 images (N, 3072)."""
        if self.type.name != "u1" or self.fortran or self.shape[1:] != (_PIXELS,):
            raise ValueError(f"no uint8 images of {_PIXELS} values")
        return np.frombuffer(self.content, np.uint8).reshape(self.shape).copy()

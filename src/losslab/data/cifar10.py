"""CIFAR-10: data module, download, and a reader that executes no code from damaged or hostile files."""

import gzip
import hashlib
import io
import logging
import os
import pickle
import shutil
import socket
import tarfile
import tempfile
import zlib
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from losslab.data.batch import DataSpec, Examples
from losslab.data.module import ExperimentDataModule, split_rows
from losslab.data.transforms import Augment, Normalise
from losslab.errors import LabError, message_of
from losslab.io.untrusted import read_bytes
from losslab.targets import Kind, Task

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PIXELS = 3 * 32 * 32
_MAX_BATCH_BYTES = 64 << 20
_MAX_UNPACKED_BYTES = 256 << 20
"""Limit for the unpacked archive. The official archive unpacks to 186 million bytes."""
_MAX_MEMBERS = 100
_DAMAGED = (tarfile.TarError, ValueError, EOFError, zlib.error, gzip.BadGzipFile, FileNotFoundError, FileExistsError)
"""The exceptions that unpacking raises if the archive is damaged or has other content."""

logger = logging.getLogger(__name__)


class CIFAR10(ExperimentDataModule):
    """60,000 colour images of 32×32 pixels in 10 classes (Krizhevsky 2009), in memory as uint8.

    Validation is split from the 50,000 official training images; the official test set is the test split.

    Args:
        dir: parent folder of cifar-10-batches-py, or that folder or the archive itself; the archive is downloaded to
            the parent folder.
        url: URL of a mirror of the archive; None for the official URL.
        verify: whether the files must be the official ones. If False, a re-encoded copy is accepted with a warning.
        val_size: number of validation images, which are split from the training images.
        subset: number of training images, drawn at random; None for all. Validation and test keep their sizes.
        crop, flip, cutout, reflect, alternate: augmentation of the training images; see `Augment`.
        batch_size, eval_batch_size, seed: see `ExperimentDataModule`.
        split_seed: seed of the validation split and the subset. Runs with different `seed` share one split.
    """

    spec = DataSpec(Task.MULTICLASS, Kind.INDEX, input_shape=(3, 32, 32), targets=10, class_names=CLASSES)

    def __init__(
        self,
        dir: str | os.PathLike[str] = "data",  # noqa: A002 -- data.dir on the command line
        url: str | None = None,
        *,
        verify: bool = True,
        val_size: int = 5_000,
        subset: int | None = None,
        crop: int = 2,
        flip: bool = True,
        cutout: int = 0,
        reflect: bool = False,
        alternate: bool = False,
        batch_size: int | None = 128,
        eval_batch_size: int | None = 500,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, eval_batch_size, seed)
        self.dir, self.url, self.verify = locate(Path(dir).expanduser()), url, verify
        self.val_size, self.subset, self.split_seed = val_size, subset, split_seed
        augment = Augment(crop, flip=flip, cutout=cutout, reflect=reflect, alternate=alternate)
        self.augment = augment if crop or flip or cutout else None

    def prepare_data(self) -> None:
        if self.may_download:
            ensure_downloaded(self.dir, self.url, verify=self.verify)
        elif not (self.dir / FOLDER).is_dir():
            raise LabError(
                f"{self.dir} has no folder {FOLDER}, and no download is started for a run folder, because its URL may "
                f"be untrusted: pass --data dir=FOLDER, or unpack CIFAR-10 into {self.dir}"
            )

    def load(self) -> dict[str, Examples]:
        if not self.verify:
            _warn_unverified()
        official = Examples.of(*read_batches(self.dir, TRAIN, verify=self.verify))
        max_train = official.size - self.val_size
        if self.subset is not None and not 1 <= self.subset <= max_train:
            raise LabError(
                f"data.subset must be 1 to {max_train:,} (the training images minus data.val_size), got {self.subset:,}"
            )
        # Validation is drawn first, so it does not depend on the subset.
        val_rows, train_rows = split_rows(official.size, (self.val_size, max_train), self.split_seed)
        if self.subset is not None:
            train_rows = train_rows[split_rows(len(train_rows), (self.subset,), self.split_seed)[0]]
        train = official.take(train_rows)
        self.transform = Normalise.from_images(train.inputs)
        test = Examples.of(*read_batches(self.dir, TEST, verify=self.verify))
        return {"train": train, "val": official.take(val_rows), "test": test}


def locate(path: Path) -> Path:
    """Return the parent folder of FOLDER and ARCHIVE, given this folder, or the path of one of the two.

    Raises:
        LabError: the path is another file or a renamed folder of batches, or the data are in a subfolder of it.
    """
    if (path / FOLDER).is_dir() or (path / ARCHIVE).is_file():
        return path
    if path.name in {FOLDER, ARCHIVE}:
        return path.parent
    if path.is_file():
        raise LabError(f"data.dir={path} is a file: set it to the folder that contains {FOLDER} or {ARCHIVE}")
    if any((path / name).is_file() for name in TRAIN + TEST):
        raise LabError(f"data.dir={path} contains batches of CIFAR-10: rename this folder to {FOLDER}")
    inside = sorted(each.parent for name in (FOLDER, ARCHIVE) for each in path.glob(f"*/{name}"))
    if inside:
        raise LabError(f"CIFAR-10 is not in data.dir={path}, but in a folder of it: set data.dir={inside[0]}")
    return path


def has_batches(path: Path) -> bool:
    """Return whether `path` contains the unpacked FOLDER, or is this folder."""
    return (path / FOLDER).is_dir() or (path.name == FOLDER and path.is_dir())


@cache  # once per process, even if a command opens several runs
def _warn_unverified() -> None:
    logger.warning("data.verify=false: CIFAR-10 was not compared with the official files")


def ensure_downloaded(folder: Path, url: str | None, *, verify: bool) -> None:
    """Unpack CIFAR-10 into `folder` if it is not there, from an archive in `folder` or from a download.

    With `verify`, the archive must have the official SHA-256. A file lock makes processes that start together wait for
    the first. Incomplete files never have the final name.

    Raises:
        LabError: the download failed, or the archive is damaged or not official. The message says what to do.
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


def _fetch(folder: Path, url: str | None, *, verify: bool) -> None:
    archive = folder / ARCHIVE
    by_hand = f"put {ARCHIVE} or the folder {FOLDER} into {folder.absolute()} (data.dir)"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".cifar-10-") as temporary:
        source, remedy = archive, f"delete it and run again, or {by_hand}"
        if not archive.is_file():
            source, remedy = Path(temporary) / ARCHIVE, f"run again, or {by_hand}"
            _download(url, source, by_hand)
        if verify:
            with source.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != SHA256:
                raise LabError(
                    f"{source.name} is damaged or is not the official CIFAR-10 (SHA-256 {digest[:12]}…, expected "
                    f"{SHA256[:12]}…): {remedy}; data.verify=false accepts it as it is"
                )
        try:
            _unpack(source, Path(temporary))
            (Path(temporary) / FOLDER).rename(folder / FOLDER)
        except _DAMAGED as error:
            raise LabError(f"{source.name} is damaged or is not CIFAR-10 ({message_of(error)}): {remedy}") from error
        if source != archive:
            source.replace(archive)  # keep the download, which is complete now


def _download(url: str | None, path: Path, by_hand: str) -> None:
    from torchvision import datasets  # noqa: PLC0415 -- half a second to import, needed once per data set

    source = url or datasets.CIFAR10.url
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(60)  # torchvision sets no timeout, and would wait forever for a silent server
    try:
        datasets.utils.download_url(source, str(path.parent), path.name)
    except Exception as error:
        # A wrong URL can raise any exception, and torchvision converts none.
        raise LabError(
            f"cannot download CIFAR-10 from {source} ({message_of(getattr(error, 'reason', None) or error)}): go "
            f"online, set data.url to a mirror, or {by_hand}"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _unpack(archive: Path, into: Path) -> None:
    """Unpack an archive of a few plain files, directly in FOLDER. Raises one of _DAMAGED for any other content."""
    (into / FOLDER).mkdir()
    with archive.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        content: Any = _LimitedReader(gzip.GzipFile(fileobj=file) if is_gzip else file)
        # Read as a stream: sizes in headers are never used to seek, and all bytes that are read are counted.
        with tarfile.open(fileobj=content, mode="r|") as tar:
            for number, member in enumerate(tar):
                path = PurePosixPath(member.name)
                is_folder = path == PurePosixPath(FOLDER)
                is_inside = path.parts == (FOLDER, path.name) and path.name not in {".", ".."}
                if number >= _MAX_MEMBERS:
                    raise ValueError(f"it contains more than {_MAX_MEMBERS} files and folders")
                if not (is_folder or is_inside):
                    raise ValueError(f"it contains {ascii(member.name)[:80]}")
                if member.isdir() and is_folder:
                    continue
                source = tar.extractfile(member) if member.isreg() and not member.sparse else None
                if source is None:
                    raise ValueError(f"its {ascii(member.name)[:80]} is not a file")
                with source, (into / FOLDER / path.name).open("xb") as target:
                    shutil.copyfileobj(source, target)


class _LimitedReader:
    """Stream that raises ValueError after _MAX_UNPACKED_BYTES bytes, as protection against decompression bombs."""

    def __init__(self, file: Any) -> None:
        self._file, self._remaining = file, _MAX_UNPACKED_BYTES

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        content: bytes = self._file.read(size)
        self._remaining -= len(content)
        if self._remaining < 0:
            raise ValueError(f"it unpacks to more than {_MAX_UNPACKED_BYTES >> 20} MiB")
        return content


def read_batches(folder: Path, files: tuple[str, ...], *, verify: bool) -> tuple[Tensor, Tensor]:
    """Read batch files → images, uint8 (N, 32, 32, 3), and class indices, int64 (N,).

    Raises:
        LabError: a file is missing, is not a CIFAR-10 batch, or, with `verify`, is not the official file.
    """
    batches = [_read_batch(folder / FOLDER / name, verify=verify) for name in files]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return images, labels


def _read_batch(path: Path, *, verify: bool) -> tuple[Tensor, Tensor]:
    from torchvision import datasets  # noqa: PLC0415

    remedy = f"delete {path.parent} and run again, which unpacks or downloads it again"
    try:
        content = read_bytes(path, _MAX_BATCH_BYTES)
    except OSError as error:
        raise LabError(f"cannot read {path} ({error.strerror}): {remedy}") from error
    official = dict((*datasets.CIFAR10.train_list, *datasets.CIFAR10.test_list))
    if verify and hashlib.md5(content, usedforsecurity=False).hexdigest() != official[path.name]:
        raise LabError(
            f"{path} is not the official file (MD5 differs): {remedy}; data.verify=false accepts a re-encoded copy"
        )
    try:
        return _parse(content)
    except Exception as error:
        # A damaged pickle can raise any exception.
        raise LabError(f"{path} is damaged or is not a CIFAR-10 batch ({message_of(error)}): {remedy}") from error


def _parse(content: bytes) -> tuple[Tensor, Tensor]:
    batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
    array, labels = batch[b"data"], batch[b"labels"]
    if array.dtype.name != "u1" or array.is_fortran or array.shape[1:] != (_PIXELS,):
        raise ValueError(f"it has no uint8 images of {_PIXELS} values")
    pixels = torch.from_numpy(array.to_numpy("u1"))
    if len(pixels) != len(labels) or not all(isinstance(y, int) and 0 <= y < len(CLASSES) for y in labels):
        raise ValueError("it does not have as many labels 0-9 as images")
    return pixels.view(-1, 3, 32, 32).permute(0, 2, 3, 1).contiguous(), torch.tensor(labels)


class _BatchUnpickler(pickle.Unpickler):
    """Unpickles dicts, lists, bytes and numbers, and arrays as `PickledArray`."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in for a name that rebuilds arrays or (in Python 3's pickles) bytes; refuse other names."""
        stand_ins: dict[tuple[str, str], Any] = {
            ("numpy.core.multiarray", "_reconstruct"): lambda *_: PickledArray(),
            ("numpy", "ndarray"): PickledArray,
            ("numpy", "dtype"): PickledDtype,
            ("_codecs", "encode"): lambda text, _: text.encode("latin1"),
        }
        stand_in = stand_ins.get((module.replace("numpy._core", "numpy.core"), name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not part of a CIFAR-10 batch")
        return stand_in


class PickledDtype:
    """Stand-in for numpy.dtype while unpickling: a real dtype built from hostile bytes can crash the process."""

    def __init__(self, name: Any = "", *_: Any) -> None:
        self.name, self.order = name.decode() if isinstance(name, bytes) else name, "|"

    def __setstate__(self, state: Any) -> None:
        """Take the byte order from NumPy's state (version, byte order, fields of compound types)."""
        self.order = state[1]


class PickledArray:
    """Stand-in for numpy.ndarray while unpickling, for the same reason as `PickledDtype`."""

    def __setstate__(self, state: Any) -> None:
        """Take NumPy's state: version, shape, dtype, Fortran order, bytes."""
        _, self.shape, self.dtype, self.is_fortran, self.content = state

    def to_numpy(self, dtype: str) -> np.ndarray[Any, np.dtype[Any]]:
        """Convert to an array of this dtype. The caller must check the shape and the dtype before."""
        return np.frombuffer(self.content, np.dtype(dtype)).reshape(self.shape).copy()

"""Reads untrusted files in the format of torch.save. Only tensors, numbers and strings in plain containers are allowed.

torch.load with `weights_only=True` executes no code either, but it decompresses without limit, instantiates classes
that any library has declared safe, and accepts tensors whose shape exceeds their storage.
"""

import pickletools
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from losslab.io.untrusted import open_regular_file

_SCALARS = (str, int, float, bool, type(None), torch.dtype)
_CONTAINERS = (dict, OrderedDict, Counter, list, tuple, torch.Size)
_PICKLED_NAMES = frozenset({
    "collections OrderedDict", "collections Counter", "torch Size", "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
})  # fmt: skip
"""The globals that the pickle in a checkpoint may name, in addition to storage classes and dtypes of torch."""
_FORBIDDEN_OPCODES = frozenset({"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4", "NEWOBJ", "NEWOBJ_EX"})
_MAX_DEPTH, _MAX_VALUES = 50, 20_000_000


def load(path: Path) -> Any:
    """Load a file written by torch.save onto the CPU.

    Raises:
        OSError: the file cannot be read.
        ValueError: the content is not allowed. The message has one line.
        Exception: torch may raise any exception for a damaged file.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is not a regular file")
    with open_regular_file(path) as file:
        for opcode, argument, _ in pickletools.genops(read_pickle(file)):
            if opcode.name in _FORBIDDEN_OPCODES or (opcode.name == "GLOBAL" and not _is_allowed(str(argument))):
                name = ascii(argument)[1:-1] if argument else f"a global by {opcode.name}"
                raise ValueError(f"it refers to {name}, which no checkpoint contains")
    content = torch.load(path, map_location="cpu", weights_only=True)
    values, depth = _measure(content, {}, 0)
    if values > _MAX_VALUES or depth > _MAX_DEPTH:
        raise ValueError("it is nested deeper or contains more values than any checkpoint")
    return content


def read_pickle(file: BinaryIO) -> bytes:
    """Read the pickle in an uncompressed archive written by torch.save.

    Raises:
        ValueError: the file is not such an archive.
    """
    size = file.seek(0, 2)
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is not a torch.save file: {error}") from error
    with archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > size:
            raise ValueError("its archive is compressed, or its members exceed the file size")
        pickles = [member for member in members if member.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or any(member.filename.endswith(("constants.pkl", ".py")) for member in members):
            raise ValueError("it is a TorchScript or torch.export archive, not a torch.save file")
        return archive.read(pickles[0])


def _is_allowed(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    is_storage = module in {"torch", "torch.storage"} and attribute.endswith("Storage")
    is_dtype = module == "torch" and isinstance(getattr(torch, attribute, None), torch.dtype)
    return name in _PICKLED_NAMES or is_storage or is_dtype


def _measure(value: Any, measured: dict[int, tuple[int, int]], depth: int) -> tuple[int, int]:
    """Return the number of values in a tree and its depth. A container that occurs twice is counted twice."""
    if type(value) in _SCALARS:
        return 1, 0
    if id(value) in measured:
        return measured[id(value)]
    if type(value) in (Tensor, nn.Parameter):
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"a tensor of shape {tuple(value.shape)} exceeds its storage")
        return 1, 0
    if type(value) not in _CONTAINERS or depth > _MAX_DEPTH:
        raise ValueError(f"it contains a {type(value).__name__}, which no checkpoint contains")
    children = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    results = [_measure(child, measured, depth + 1) for child in children]
    count, height = sum(size for size, _ in results), max((below for _, below in results), default=0)
    measured[id(value)] = 1 + count, 1 + height
    return measured[id(value)]

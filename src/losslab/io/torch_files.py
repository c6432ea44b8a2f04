"""Files of torch.save's, read without trusting them: tensors, numbers and texts in plain containers, or nothing.

torch's own `weights_only=True` executes nothing either, but it inflates what was compressed, builds what any library
has declared safe, and takes a single number for a tensor of any size.
"""

import pickletools
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from losslab.io.untrusted import open_plain

_PLAIN = (str, int, float, bool, type(None), torch.dtype)
_CONTAINERS = (dict, OrderedDict, Counter, list, tuple, torch.Size)
_REBUILT = frozenset({
    "collections OrderedDict",
    "collections Counter",
    "torch Size",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
})  # fmt: skip
"""The names in the pickle of a checkpoint, beside those of torch's storages and number types."""
_NAMING = frozenset({"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4", "NEWOBJ", "NEWOBJ_EX"})
_DEEPEST, _MOST = 50, 20_000_000


def load(path: Path) -> Any:
    """The content of a file that torch.save wrote.

    Raises:
        OSError: it cannot be read.
        Exception: it is no such file, or holds something else; the message says what, in one line. What lies in a
            damaged file may lead torch to raise anything.
    """
    if path.exists() and not path.is_file():
        raise ValueError("it is no file")
    with open_plain(path) as file:
        _check_names(pickled(file))
    content = torch.load(path, map_location="cpu", weights_only=True)
    _check_plain(content)
    return content


def pickled(file: Any) -> bytes:
    """The pickle in an archive of torch.save's that is no larger unpacked than packed.

    Raises:
        ValueError: it is none, or would be larger.
    """
    size = file.seek(0, 2)
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is no archive of torch.save's: {error}") from error
    with archive:
        inside = archive.infolist()
        stored = all(each.compress_type == zipfile.ZIP_STORED for each in inside)
        if not stored or sum(each.file_size for each in inside) > size:
            raise ValueError("its archive would unpack to more than it is")
        pickles = [each for each in inside if each.filename.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or any(each.filename.endswith(("constants.pkl", ".py")) for each in inside):
            raise ValueError("it is no archive of torch.save's but a program")
        return archive.read(pickles[0])


def _check_names(content: bytes) -> None:
    for code, argument, _ in pickletools.genops(content):
        if code.name in _NAMING or (code.name == "GLOBAL" and not _is_known(str(argument))):
            raise ValueError(f"it names {ascii(argument)[1:-1] if argument else 'what'!s}, which no checkpoint holds")


def _is_known(name: str) -> bool:
    module, _, own = name.partition(" ")
    storage = module in {"torch", "torch.storage"} and own.endswith("Storage")
    return name in _REBUILT or storage or (module == "torch" and isinstance(getattr(torch, own, None), torch.dtype))


def _check_plain(content: Any) -> None:
    seen: dict[int, tuple[int, int]] = {}
    most, deepest = _measure(content, seen, 0)
    if most > _MOST or deepest > _DEEPEST:
        raise ValueError("it is nested deeper or holds more than any checkpoint")


def _measure(value: Any, seen: dict[int, tuple[int, int]], depth: int) -> tuple[int, int]:
    """How much is in it, where what is named twice counts twice as for whoever walks over it, and how deep it goes."""
    if type(value) in _PLAIN:
        return 1, 0
    if id(value) in seen:
        return seen[id(value)]
    if type(value) in (Tensor, nn.Parameter):
        _check_tensor(value)
        return 1, 0
    if type(value) not in _CONTAINERS or depth > _DEEPEST:
        raise ValueError(f"it holds a {type(value).__name__} where no checkpoint does")
    inside = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    below = [_measure(each, seen, depth + 1) for each in inside]
    seen[id(value)] = 1 + sum(size for size, _ in below), 1 + max((deep for _, deep in below), default=0)
    return seen[id(value)]


def _check_tensor(tensor: Tensor) -> None:
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"it claims more numbers than it holds (a tensor of {tuple(tensor.shape)})")

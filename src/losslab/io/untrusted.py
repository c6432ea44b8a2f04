"""Reading files, and checking folders, that somebody else may have written. Imports no torch.

A folder that was copied from elsewhere may hold symbolic links, through which a write lands outside of it, and pipes,
which block whoever opens them.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from losslab.errors import LabError

_MAX_BYTES = 64 << 20
_MAX_YAML_BYTES = 1 << 18
_MAX_YAML_BRACKETS = 1000
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\}")
_CONF_RESOLVERS = re.compile(r"\$\{(?:divisor:\d+,(?:\d+|null|-)|oc\.env:LOSSLAB_DATA,[\w./-]+)\}")


def check_output_path(path: Path, folder: Path) -> None:
    """Check that writing to `path` follows no symbolic link below `folder`.

    Links that lead to the folder itself are fine, and so is any path outside of it: the user typed those.

    Raises:
        LabError: a part of the path below the folder is a link.
    """
    part, target = (Path(os.path.abspath(each)) for each in (folder, path))  # noqa: PTH100 -- resolve() follows links
    if not target.is_relative_to(part):
        return
    for name in target.relative_to(part).parts:
        part /= name
        if part.is_symlink():
            _raise_link(part)


def check_folder(folder: Path) -> None:
    """Check that nothing below a folder, at any depth, redirects or blocks a run that writes into it.

    A link to a name in the same directory is allowed: Lightning makes last.ckpt one.

    Raises:
        LabError: there is a link that leads elsewhere, a pipe, a socket or a device.
        OSError: a subfolder cannot be read.
    """
    for entry in _walk(folder):
        if entry.is_symlink():
            target = str(Path(entry).readlink())
            if "/" in target or target in {".", ".."}:
                _raise_link(Path(entry))
        elif not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode) and not entry.is_dir(follow_symlinks=False):
            raise LabError(f"{entry.path} is no file but a pipe or the like, and a run would wait for it: remove it")


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    folders = [os.fspath(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)


def _raise_link(link: Path) -> NoReturn:
    raise LabError(f"{link} is a link, and writing would follow it: replace it by what it links to")


def open_regular_file(path: Path) -> BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Raises:
        OSError: it cannot be opened, or is a pipe, a device or a folder.
    """
    # O_NONBLOCK does not wait for a pipe's writer; fstat sees the file that was opened, even if it is replaced since.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no file", str(path))


def read_bytes(path: Path, max_bytes: int = _MAX_BYTES) -> bytes:
    """Read a regular file.

    Raises:
        OSError: it cannot be read, is no regular file, or is longer than `max_bytes`.
    """
    with open_regular_file(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read()


def read_text(path: Path, max_bytes: int = _MAX_BYTES) -> str:
    r"""Read a UTF-8 text file, with `\n` as line ending.

    Raises:
        OSError: as `read_bytes`.
        ValueError: it is not UTF-8.
    """
    return read_bytes(path, max_bytes).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def read_yaml(path: Path) -> Any:
    """Read a YAML file of Hydra's into plain containers; interpolations are not resolved.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no YAML, or uses aliases, by which a small file expands to any size.
    """
    import yaml  # noqa: PLC0415 -- slow to import, and most readers of run folders need neither
    from omegaconf import OmegaConf  # noqa: PLC0415
    from omegaconf.errors import OmegaConfBaseException  # noqa: PLC0415

    text = read_text(path, _MAX_YAML_BYTES)
    if text.count("[") + text.count("{") > _MAX_YAML_BRACKETS:  # deeply nested, they keep the parser busy for hours
        raise ValueError(f"{path} holds more brackets than Hydra writes")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError(f"{path} holds an alias, which Hydra writes none of")
        return OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ValueError(f"{path} is no YAML ({' '.join(str(error).split())[:100]})") from error


def find_unknown_interpolation(config: Any) -> str | None:
    """Find a text whose interpolation is none that conf/ uses, and so could resolve to anything.

    Allowed are one reference to a single value, and one call of `divisor` or `oc.env:LOSSLAB_DATA`.

    Returns:
        The text, or None if there is none.
    """
    nodes = [config]
    while nodes:
        node = nodes.pop()
        if isinstance(node, Mapping):
            key = next((str(key) for key in node if "${" in str(key)), None)
            if key is not None:
                return key
            nodes.extend(node.values())
        elif isinstance(node, list):
            nodes.extend(node)
        elif isinstance(node, str) and not _is_known(config, node):
            return node
    return None


def _is_known(config: Any, text: str) -> bool:
    references = _REFERENCE.findall(text)
    rest = _REFERENCE.sub("-", text)
    calls = _CONF_RESOLVERS.findall(rest)
    if "${" in _CONF_RESOLVERS.sub("", rest) or len(references) > 1 or len(calls) > 1:
        return False
    return not any(_is_container(config, key) for key in references)


def _is_container(config: Any, dotted_key: str) -> bool:
    node = config
    for key in dotted_key.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return isinstance(node, Mapping | list)

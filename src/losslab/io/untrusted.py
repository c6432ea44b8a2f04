"""Reads untrusted files and checks untrusted folders. Imports no torch.

A folder from somebody else may contain symbolic links and pipes. Writing through a link may overwrite a file outside of
the folder, and opening a pipe may block the process.
"""

import errno
import json
import os
import re
import stat
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from losslab.errors import LabError, message_of

_MAX_BYTES = 64 << 20
_MAX_YAML_BYTES = 1 << 18
_MAX_YAML_BRACKETS = 1000
_REFERENCE = re.compile(r"\$\{([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\}")
_CONF_RESOLVERS = re.compile(r"\$\{(?:divisor:\d+,(?:\d+|null|-)|oc\.env:LOSSLAB_DATA,[\w./-]+)\}")


def check_output_path(path: Path, folder: Path) -> None:
    """Check that no part of `path` below `folder` is a symbolic link, so that a write does not leave the folder.

    Links above the folder are allowed, and so are paths outside of the folder, since the user typed them.

    Raises:
        LabError: a part of the path below the folder is a symbolic link.
    """
    part, target = (Path(os.path.abspath(each)) for each in (folder, path))  # noqa: PTH100 -- resolve() follows links
    if not target.is_relative_to(part):
        return
    for name in target.relative_to(part).parts:
        part /= name
        if part.is_symlink():
            _raise_link(part)


def check_folder(folder: Path) -> None:
    """Check that nothing in a folder, at any depth, redirects or blocks a process that writes into the folder.

    A link to a name in its own directory is allowed, since last.ckpt may be such a link.

    Raises:
        LabError: there is a symbolic link to another directory, a pipe, a socket or a device.
        OSError: a subfolder cannot be read.
    """
    folders = [Path(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                path = Path(entry)
                if entry.is_symlink():
                    target = str(path.readlink())
                    if "/" in target or target in {".", ".."}:
                        _raise_link(path)
                elif entry.is_dir():
                    folders.append(path)
                elif not entry.is_file():
                    raise LabError(f"{path} is a pipe, a socket or a device, which would block the run: remove it")


def _raise_link(link: Path) -> NoReturn:
    raise LabError(f"{link} is a symbolic link; writing would leave the folder: replace the link by its target")


def open_regular_file(path: Path) -> BufferedReader:
    """Open a regular file, or a link to one, for reading.

    Raises:
        OSError: the file cannot be opened, or is a pipe, a device or a folder.
    """
    # With O_NONBLOCK, opening a pipe does not wait for its writer. fstat checks the file that was opened, even if
    # another file replaces it meanwhile.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_bytes(path: Path, max_bytes: int = _MAX_BYTES) -> bytes:
    """Read a regular file.

    Raises:
        OSError: the file cannot be read, is not a regular file, or is longer than `max_bytes`.
    """
    with open_regular_file(path) as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
        return file.read()


def read_text(path: Path, max_bytes: int = _MAX_BYTES) -> str:
    r"""Read a UTF-8 text file, with `\n` as line ending.

    Raises:
        OSError: the file cannot be read, see `read_bytes`.
        ValueError: the file is not UTF-8.
    """
    return read_bytes(path, max_bytes).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path, advice: str = "") -> Any:
    """Read a JSON file.

    Raises:
        LabError: the file cannot be read; the message ends with `advice`.
    """
    try:
        return json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        ending = f": {advice}" if advice else ""
        raise LabError(f"cannot read {path} ({error}){ending}") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML file of Hydra, and return plain containers with unresolved interpolations.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not YAML, or uses aliases, which let a small file expand to any size.
    """
    import yaml  # noqa: PLC0415 -- slow to import, and most readers of run folders need no YAML
    from omegaconf import OmegaConf  # noqa: PLC0415
    from omegaconf.errors import OmegaConfBaseException  # noqa: PLC0415

    text = read_text(path, _MAX_YAML_BYTES)
    if text.count("[") + text.count("{") > _MAX_YAML_BRACKETS:  # the parser takes hours for deep nesting
        raise ValueError(f"{path} contains more brackets than Hydra writes")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError(f"{path} contains a YAML alias; Hydra never writes aliases")
        return OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ValueError(f"{path} is not YAML ({message_of(error, 100)})") from error


def find_unknown_interpolation(config: Any) -> str | None:
    """Return a string of a configuration with an interpolation that conf/ does not use; None if there is none.

    A string in conf/ contains at most one reference to a single value, and one call of `divisor` or
    `oc.env:LOSSLAB_DATA`.
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
    """Return whether the interpolations in a string are those that `find_unknown_interpolation` allows."""
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

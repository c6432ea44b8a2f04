"""Which names and texts that somebody handed over stand for a file or a folder."""

import re
from pathlib import PurePath

_PLACE = re.compile(r"(^|_)(dir|path|file|folder|root|location)s?(_|$)|(dir|path|file)s?$")
_NO_PATH = re.compile(r"^\s*~|://|::|\0")


def names_a_place(key: str) -> bool:
    """Whether a name such as run_dir, dirpath or exclude_batches_path is one of a file or a folder."""
    return bool(_PLACE.search(key))


def is_an_address(text: str) -> bool:
    """Whether a text is no path to us, and is one, or an address, to libraries: `local://~/Documents`."""
    return bool(_NO_PATH.search(text))


def goes_up(text: str) -> bool:
    """Whether it is a path that leaves a folder for the one above."""
    return ".." in PurePath(text.replace("\\", "/")).parts

"""What groups of runs are called: by what tells them apart in their configurations."""

import re
from collections.abc import Sequence

from losslab.comparison.settings import SUBJECTS, Settings, shown

_WITH_CHOICE = (*SUBJECTS, "mix")
_ORDER = (
    "loss.", "model.", "data.", "mix.", "imbalance.", "noise.", "optimizer.", "trainer.", "scheduler.", "callbacks.",
)  # fmt: skip


def labels(settings: Sequence[Settings]) -> list[tuple[str, ...]]:
    """A name for each of these settings, which are all different, in parts such as "loss=focal".

    It holds choices first (loss=focal), then single values (loss.gamma=2), and each only where it tells apart what the
    parts before it do not.
    """
    names: list[tuple[str, ...]] = [()] * len(settings)
    for key in _candidates(settings):
        values = [_value(key, each) for each in settings]
        cells: dict[tuple[str, ...], set[str]] = {}
        for name, value in zip(names, values, strict=True):
            cells.setdefault(name, set()).add(value)
        names = [
            (*name, f"{_said(key)}={value}") if len(cells[name]) > 1 else name
            for name, value in zip(names, values, strict=True)
        ]
    return [name or (f"loss={_value('loss', each)}",) for name, each in zip(names, settings, strict=True)]


def unsaid(settings: Sequence[Settings], names: Sequence[tuple[str, ...]]) -> dict[str, list[str]]:
    """What else differs between the groups, and so may be where a difference comes from: by key, the value of each.

    A value that all settings of one choice share (gamma of the focal loss) comes with that choice, and is not told.
    """
    found: dict[str, list[str]] = {}
    for key in _candidates(settings):
        values = [_value(key, each) for each in settings]
        silent = [not any(part.startswith(f"{_said(key)}=") for part in name) for name in names]
        for cell in _with_one_choice(key, settings):
            if len({values[place] for place in cell}) > 1 and any(silent[place] for place in cell):
                found.setdefault(_said(key), values)
    return found


def _with_one_choice(key: str, settings: Sequence[Settings]) -> list[list[int]]:
    """The places of settings that a value is to be compared between: of a loss's, those with the same loss."""
    subject = key.partition(".")[0] if "." in key else ""
    cells: dict[str, list[int]] = {}
    for place, each in enumerate(settings):
        cells.setdefault(_value(subject, each) if subject in _WITH_CHOICE else "", []).append(place)
    return [*cells.values()]


def matches(settings: Settings, asked: dict[str, str]) -> bool:
    """Whether settings have these values, as one types them: {"loss": "focal", "loss.gamma": "2"}."""
    return all(_same(_value(key, settings), value) for key, value in asked.items())


def _same(value: str, asked: str) -> bool:
    try:
        return value == asked or float(value) == float(asked)
    except ValueError:
        return False


def _candidates(settings: Sequence[Settings]) -> list[str]:
    """All that may tell settings apart, the plainest first."""
    keys = dict.fromkeys(key for each in settings for key in each if not key.startswith(("choices.", "callbacks.")))
    callbacks = dict.fromkeys(key for each in settings for key in each if key.startswith("callbacks."))
    place = {prefix: number for number, prefix in enumerate(_ORDER)}
    plain = sorted((*keys, *callbacks), key=lambda key: place.get(key.partition(".")[0] + ".", len(place)))
    return [*SUBJECTS[:3], "mix", *SUBJECTS[3:], "callbacks", *plain]


def _value(key: str, settings: Settings) -> str:
    """What settings have at a candidate."""
    if key in SUBJECTS:
        choice = settings.get(f"choices.{key}")
        own = settings.get(f"{key}._target_")
        if choice is own is None and key in {"imbalance", "noise"}:
            return "none"
        return shown(own if choice in {None, "custom"} and own is not None else choice)
    if key == "mix":
        return str(settings.get("mix._target_", "null")).rpartition(".")[2].lower()
    if key == "callbacks":
        names = dict.fromkeys(name.split(".")[1] for name in settings if name.startswith("callbacks."))
        return ",".join(name for name in names if name != "checkpoints") or ("default" if names else "none")
    return shown(settings.get(key))


def _said(key: str) -> str:
    return re.sub(r"\._target_$", "", key)

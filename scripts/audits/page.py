"""The text of docs/audit.md."""

import platform
from collections.abc import Iterator
from datetime import UTC, datetime

from audits.finding import Evidence, Finding, status
from audits.libraries import Audit, count

HEAD = """# Public implementations of losses, audited

Where a public implementation of a loss is wrong, or is not what its paper or its documentation says. Every entry runs
the installed implementation and says what it saw. Made by

    python scripts/audit.py --markdown > docs/audit.md

and tested by `tests/unit/scripts/test_audit.py`, which fails when an entry no longer holds. `python scripts/audit.py
timm kornia` audits some libraries only; one that is not installed is skipped.

*Documented* means that the library's documentation says so: a difference to know about, not a fault.
"""


def page(audits: list[Audit]) -> str:
    """The content of the page."""
    audited = [one for one in audits if not one.skipped]
    versions = ", ".join(f"{one.library} {one.version}" for one in audited)
    made = f"Made on {datetime.now(UTC):%Y-%m-%d} with Python {platform.python_version()} on a CPU: {versions}."
    skipped = [one.skipped + ".\n" for one in audits if one.skipped]
    sections = [f"## {one.heading}\n\n" + "\n".join(_entries(one)) for one in audited]
    return "\n".join([HEAD, made + "\n", *skipped, _table(audited), *sections])


def _table(audited: list[Audit]) -> str:
    kinds = list(count([]))
    rows = ["| findings that hold | " + " | ".join(kinds) + " |", "| --- |" + " ---: |" * len(kinds)]
    for name, some in [*((one.library, [one]) for one in audited), ("all", audited)]:
        rows.append(f"| {name} | " + " | ".join(str(number or "") for number in count(some).values()) + " |")
    return "\n".join(rows) + "\n"


def _entries(one: Audit) -> Iterator[str]:
    for found, evidence in one.results:
        yield entry(found) + _seen(evidence)


def entry(found: Finding) -> str:
    """The part of an entry that is the same on every machine."""
    return (
        f"### {found.function}\n\n**{escape(found.fault)}** ({found.kind})\n\n"
        f"- Claim: {escape(found.claim)}.\n- Source: {escape(found.source)}.\n"
        f"- losslab: {escape(found.losslab)}.\n"
    )


def _seen(evidence: Evidence) -> str:
    fixed = "" if evidence.holds else f" **{status(evidence).capitalize()}.**"
    return f"- Measured: {escape(evidence.seen)}.{fixed}\n"


def escape(text: str) -> str:
    """Escape Markdown's special characters, which formulas and argument names are full of."""
    for letter in "\\*_<>|":
        text = text.replace(letter, f"\\{letter}")
    return text

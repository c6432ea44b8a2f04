"""The text of docs/audit.md."""

import platform
from collections.abc import Iterator
from datetime import UTC, datetime

from audits.finding import Evidence, Finding, status
from audits.libraries import Audit, count

HEAD = """# Audit of public implementations of losses

This page lists public implementations of losses that are wrong, or that differ from their paper or their documentation.
Each entry runs the installed implementation and shows what was measured. The page is made by

    python scripts/audit.py --markdown > docs/audit.md

`tests/unit/scripts/test_audit.py` fails if an entry no longer holds. `python scripts/audit.py timm kornia` audits only
the named libraries. Libraries that are not installed are skipped.

*Documented* means that the documentation of the library mentions the behaviour: you should know about it, but it is not
a fault.
"""


def page(audits: list[Audit]) -> str:
    """Return the content of the page."""
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
    """Format the part of an entry that is the same on every machine."""
    return (
        f"### {found.function}\n\n**{escape(found.fault)}** ({found.kind})\n\n"
        f"- Claim: {escape(found.claim)}.\n- Source: {escape(found.source)}.\n"
        f"- losslab: {escape(found.losslab)}.\n"
    )


def _seen(evidence: Evidence) -> str:
    fixed = "" if evidence.holds else f" **{status(evidence).capitalize()}.**"
    return f"- Measured: {escape(evidence.seen)}.{fixed}\n"


def escape(text: str) -> str:
    """Escape the special characters of Markdown, which occur in formulas and argument names."""
    for letter in "\\*_<>|":
        text = text.replace(letter, f"\\{letter}")
    return text

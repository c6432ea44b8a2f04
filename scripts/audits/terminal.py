"""Terminal output of the audit."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from audits.finding import Evidence, Finding, Severity, status
from audits.libraries import Audit, count

_COLOURS = {
    Severity.NOT_FINITE: "red",
    Severity.WRONG_GRADIENT: "red",
    Severity.WRONG_VALUE: "magenta",
    Severity.MISUSE: "yellow",
    Severity.DIFFERS: "cyan",
}


def show(one: Audit, console: Console) -> None:
    """Print the findings of a library, or one line that says why the library was skipped."""
    if one.skipped:
        console.print(Text(one.skipped, style="dim"))
        return
    console.rule(Text(one.heading, style="bold"), align="left")
    console.print(Group(*_findings(one)))


def _findings(one: Audit) -> Iterator[RenderableType]:
    for found, evidence in one.results:
        yield Text()
        yield Text(found.function, style="bold")
        yield Padding(_details(found, evidence), (0, 0, 0, 2))


def _details(found: Finding, evidence: Evidence) -> Table:
    colour = _COLOURS[found.severity] if evidence.holds else "green"
    rows = {
        found.severity if not found.documented else f"{found.severity}*": Text(found.fault),
        "measured": Text(evidence.seen),
        "claim": Text(found.claim),
        "source": Text(found.source, style="dim"),
        "losslab": Text(found.losslab, style="dim"),
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(width=17, no_wrap=False)
    table.add_column(ratio=1)
    for index, (name, text) in enumerate(rows.items()):
        table.add_row(Text(name, style=colour if index == 0 else "dim"), text)
    if not evidence.holds:
        table.add_row(Text("status", style=colour), Text(status(evidence), style=colour))
    return table


def summary(audits: list[Audit]) -> Table:
    """Make a table of the number of findings by severity and library."""
    table = Table(caption="* documented by the library", caption_justify="left", box=SIMPLE_HEAD)
    for name in ("findings that hold", "", "in"):
        table.add_column(name, justify="left" if name else "right")
    for kind, total in count(audits).items():
        shares = [(one.library, count([one]).get(kind, 0)) for one in audits]
        table.add_row(kind, str(total), ", ".join(f"{library} {share}" for library, share in shares if share))
    return table

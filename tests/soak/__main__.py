"""`make soak`: test the promises of docs/reliability.md at full size. Continues an interrupted campaign."""

import argparse
import math
import os
import platform
import signal
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import lightning
import torch
from rich.console import Console

from soak import (
    fused,
    fused_writes,
    kills,
    load,
    random_configurations,
    random_tensors,
    requeues,
    saves,
    study,
    sweeps,
    untrusted_files,
)
from soak.record import Case, CaseResult, Record

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"


class Part(NamedTuple):
    """A kind of experiment."""

    description: str
    unit: str
    cases: Callable[[int], list[Case]]
    run: Callable[[Case, Path], CaseResult]
    count: int


PARTS = {
    "saves": Part("a process killed while it writes a checkpoint", "kills", saves.cases, saves.run, 100),
    "kills": Part("a run of one process killed at a random moment, resumed", "kills", kills.cases, kills.run, 200),
    "signals": Part("SIGINT and SIGTERM to a run of one process", "signals", kills.signal_cases, kills.run, 40),
    "ranks": Part(
        "kills and signals to one, all or the parent of two processes", "faults", kills.rank_cases, kills.run, 100
    ),
    "sweeps": Part("a sweep whose parent is killed, completed", "kills", sweeps.cases, sweeps.run, 30),
    "fused": Part(
        "a fused sweep killed or interrupted at a random moment, completed", "faults", fused.cases, fused.run, 50
    ),
    "fused_writes": Part(
        "a fused group killed before one of its file operations, started again",
        "kills",
        fused_writes.cases,
        fused_writes.run,
        200,
    ),
    "configurations": Part(
        "a random configuration, trained or refused",
        "configurations",
        random_configurations.cases,
        random_configurations.run,
        2000,
    ),
    "tensors": Part(
        "outputs and targets of any kind, scored or refused", "pairs", random_tensors.cases, random_tensors.run, 20_000
    ),
    "hostile": Part("a file that tries to execute code", "tests", untrusted_files.cases, untrusted_files.run, 1),
    "load": Part("commands that start at once in one outputs/", "runs", load.cases, load.run, 100),
    "study": Part(
        "a study whose runs are drawn from known distributions: 41 scenarios", "studies", study.cases, study.run, 2000
    ),
    "requeues": Part("a job that SLURM stops and requeues", "requeues", requeues.cases, requeues.run, 50),
}


def main() -> None:
    """Run the remaining cases, and write the report after each of them."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "soak", help="of the record and the runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of kills, signals and the like")
    parser.add_argument("--write", action="store_true", help="put the report into docs/reliability.md")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
    record, console = Record(options.folder / "record.jsonl"), Console(highlight=False)
    planned = [
        case for name in options.only for case in PARTS[name].cases(math.ceil(PARTS[name].count * options.scale))
    ]
    for number, case in enumerate(planned, 1):
        if case in record.results:
            continue
        began = time.monotonic()
        result = PARTS[case.part].run(case, options.folder)
        record.add(case, result)
        _report(record, options.folder)
        verdict = f"{len(result.failures)} FAILED" if result.failures else "ok"
        took = f"{time.monotonic() - began:.0f} s"
        console.print(f"{number}/{len(planned)}  {case.part} {case.name}  {result.counted}  {took}  {verdict}")
        for line in result.failures:
            console.print(f"    {line}")
    console.print(_report(record, options.folder))
    if options.write:
        write_page(record)
    raise SystemExit(bool(record.failures))


def _report(record: Record, folder: Path) -> str:
    tables = [table for table in (_counts(record, list(PARTS)), study.table(record.results)) if table]
    text = "\n\n".join([*tables, *(f"- {line}" for line in record.failures)]) + "\n"
    (folder / "report.md").write_text(text)
    return text


def _counts(record: Record, names: Sequence[str]) -> str:
    return record.table([(name, PARTS[name].description, PARTS[name].unit) for name in names])


def write_page(record: Record, page: Path = PAGE) -> None:
    """Write the tables of the record into a page: counts between its marks `soak`, simulated studies between `study`.

    A part of the page is kept if the record has no results for it.
    """
    text = page.read_text()
    counts = _counts(record, [name for name in PARTS if name != "study"])
    for mark, table in {"soak": counts, "study": study.table(record.results)}.items():
        if table:
            failures = [f"- {line}" for line in record.failures if line.startswith("study ") == (mark == "study")]
            before, begin, rest = text.partition(f"<!-- {mark} -->\n")
            _, end, after = rest.partition(f"<!-- /{mark} -->\n")
            content = "\n\n".join([_conditions(), table, *(["\n".join(failures)] if failures else [])])
            text = f"{before}{begin}\n{content}\n\n{end}{after}"
    page.write_text(text)


def _conditions() -> str:
    versions = f"torch {torch.__version__}, lightning {lightning.__version__}, Python {platform.python_version()}"
    return f"{datetime.now().astimezone():%Y-%m-%d}, {os.cpu_count()} cores of {platform.machine()}, {versions}."


if __name__ == "__main__":
    main()

"""The page docs/benchmarks.md, whose sections can be replaced separately."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch

from benchmarks.timing import Numbers, ratio

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

This page is written by `python scripts/benchmark.py --write`; `python scripts/benchmark.py sweep --write` replaces one
section only. Absolute values depend on the machine. Programs that are compared are run alternately (A B A B ...), and a
ratio is the median of the ratios of all rounds.
"""


def sections(text: str) -> dict[str, str]:
    """Split the page into its sections: name → text."""
    return dict(re.findall(r"<!-- (\w+) -->\n(.*?)(?=\n<!-- |\Z)", text, flags=re.DOTALL))


def write(new: dict[str, str], order: list[str]) -> None:
    """Replace these sections of the page and keep the others."""
    existing = sections(PAGE.read_text()) if PAGE.is_file() else {}
    existing |= new
    parts = [f"<!-- {name} -->\n{existing[name].strip()}\n" for name in order if name in existing]
    PAGE.write_text("\n".join([HEAD, *parts]))


def section(title: str, rounds: int, *paragraphs: str) -> str:
    """Format a section: title, conditions and paragraphs."""
    times = f"median of {rounds} alternating rounds" if rounds > 1 else "one round"
    return "\n\n".join([f"## {title}", f"{conditions()}; {times}.", *paragraphs])


def table(numbers: Numbers, headings: tuple[str, str, str], peer: str, form: str = ".2f") -> str:
    """Format a table with one row per program: median, minimum and maximum, and the ratio to the peer."""
    name, unit, times = headings
    rows = [f"| {name} | {unit}, median (minimum - maximum) | {times} |", "| --- | --- | --- |"]
    for program, values in numbers.items():
        spread = " - ".join(format(value, form) for value in (min(values), max(values)))
        rows.append(f"| {program} | {format(median(values), form)} ({spread}) | {ratio(values, numbers[peer]):.2f} |")
    return "\n".join(rows)


def target(text: str, value: float, holds: Callable[[float], bool], reason: str = "") -> str:
    """Format a target, the measured value, and whether the target is met; if it is not, with the known reason."""
    missed = f" (target not met{': ' if reason else ''}{reason})"
    return f"Target: {text}. Measured: {value:.2f}{'' if holds(value) else missed}."


def conditions() -> str:
    """Describe the conditions: date, processor and versions."""
    names = ("torch", "torchvision", "lightning", "hydra-core")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {_cpu()}, {os.cpu_count()} cores{gpu}, Python {platform.python_version()}, "
        f"{versions}"
    )


def _cpu() -> str:
    """Describe the processor: its name, and its instructions for bfloat16."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    fast = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in text]
    return f"{model or platform.processor() or platform.machine()} ({', '.join(fast) or 'no bfloat16 instructions'})"

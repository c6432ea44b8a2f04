"""docs/benchmarks.md: its sections, each of which is renewed by itself."""

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

Renewed by `python scripts/benchmark.py --write`, or section by section. What is absolute depends on the machine; what
is compared ran in turn with what it is compared with, and a ratio is the median of the rounds' own ratios.
"""


def sections(text: str) -> dict[str, str]:
    """The sections of a page by name."""
    return dict(re.findall(r"<!-- (\w+) -->\n(.*?)(?=\n<!-- |\Z)", text, flags=re.DOTALL))


def write(new: dict[str, str], order: list[str]) -> None:
    """Renew these sections and keep the others."""
    known = sections(PAGE.read_text()) if PAGE.is_file() else {}
    known |= new
    parts = [f"<!-- {name} -->\n{known[name].strip()}\n" for name in order if name in known]
    PAGE.write_text("\n".join([HEAD, *parts]))


def section(title: str, rounds: int, *paragraphs: str) -> str:
    """A title, what it ran on, and paragraphs."""
    return "\n\n".join([f"## {title}", f"{conditions()}; median of {rounds} rounds in turn.", *paragraphs])


def table(numbers: Numbers, headings: tuple[str, str, str], peer: str, form: str = ".2f") -> str:
    """A row for each contender: median (least - most), and its ratio to the peer."""
    name, unit, times = headings
    rows = [f"| {name} | {unit}, median (least - most) | {times} |", "| --- | --- | --- |"]
    for contender, values in numbers.items():
        spread = " - ".join(format(value, form) for value in (min(values), max(values)))
        rows.append(f"| {contender} | {format(median(values), form)} ({spread}) | {ratio(values, numbers[peer]):.2f} |")
    return "\n".join(rows)


def promise(text: str, value: float, holds: Callable[[float], bool]) -> str:
    """What is promised, and whether it held."""
    return f"Promised: {text}. Measured: {value:.2f}{'' if holds(value) else ', which does not hold'}."


def conditions() -> str:
    """When, on what, with which versions."""
    names = ("torch", "torchvision", "lightning", "hydra-core")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {_cpu()}, {os.cpu_count()} cores{gpu}, Python {platform.python_version()}, "
        f"{versions}"
    )


def _cpu() -> str:
    """The processor, and what of it half precision depends on."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    fast = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in text]
    return f"{model or platform.processor() or platform.machine()} ({', '.join(fast) or 'no bfloat16 instructions'})"

"""docs/benchmarks.md, whose sections are replaced one by one."""

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
    """Sections of a page by name."""
    return dict(re.findall(r"<!-- (\w+) -->\n(.*?)(?=\n<!-- |\Z)", text, flags=re.DOTALL))


def write(new: dict[str, str], order: list[str]) -> None:
    """Replace these sections, and keep the others."""
    existing = sections(PAGE.read_text()) if PAGE.is_file() else {}
    existing |= new
    parts = [f"<!-- {name} -->\n{existing[name].strip()}\n" for name in order if name in existing]
    PAGE.write_text("\n".join([HEAD, *parts]))


def section(title: str, rounds: int, *paragraphs: str) -> str:
    """A section with a title, the conditions and paragraphs."""
    return "\n\n".join([f"## {title}", f"{conditions()}; median of {rounds} rounds in turn.", *paragraphs])


def table(numbers: Numbers, headings: tuple[str, str, str], peer: str, form: str = ".2f") -> str:
    """Table with a row for each program: median (least - most), and its ratio to the peer."""
    name, unit, times = headings
    rows = [f"| {name} | {unit}, median (least - most) | {times} |", "| --- | --- | --- |"]
    for program, values in numbers.items():
        spread = " - ".join(format(value, form) for value in (min(values), max(values)))
        rows.append(f"| {program} | {format(median(values), form)} ({spread}) | {ratio(values, numbers[peer]):.2f} |")
    return "\n".join(rows)


def promise(text: str, value: float, holds: Callable[[float], bool]) -> str:
    """A promise, the measured value, and whether it holds."""
    return f"Promised: {text}. Measured: {value:.2f}{'' if holds(value) else ', which does not hold'}."


def conditions() -> str:
    """Date, processor and versions."""
    names = ("torch", "torchvision", "lightning", "hydra-core")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {_cpu()}, {os.cpu_count()} cores{gpu}, Python {platform.python_version()}, "
        f"{versions}"
    )


def _cpu() -> str:
    """Name of the processor, and its instructions for bfloat16."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    fast = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in text]
    return f"{model or platform.processor() or platform.machine()} ({', '.join(fast) or 'no bfloat16 instructions'})"

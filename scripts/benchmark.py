"""Time the project beside its peers: `python scripts/benchmark.py`. Minutes; nothing else should be running.

Every command is a whole process. They run in turn, A B C A B C ..., so that a machine which slows down slows all of
them, and what is compared is the ratio to the peer of the same round: its median over the rounds.
"""

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from rich.progress import track

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Contender:
    """A command that is timed, and what it is called in the table."""

    name: str
    command: tuple[str, ...]


LINEAR = (
    Contender("raw loop and plot, 20 lines", ("scripts/peers/linear_raw.py",)),
    Contender("naive Lightning with a DataLoader", ("scripts/peers/linear_lightning.py",)),
    Contender("python train.py", ("train.py", "trainer=cpu", "run_dir=run")),
    Contender("python train.py --help", ("train.py", "--help")),
)


def main() -> None:
    """Run the rounds, print the table, and with --write renew docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how often each command is run (default: 5)")
    parser.add_argument("--write", action="store_true", help=f"renew {PAGE.relative_to(ROOT)}")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    seconds: dict[Contender, list[float]] = {contender: [] for contender in LINEAR}
    for number in track(range(options.rounds + 1), "rounds (the first warms up)"):
        for contender in LINEAR:
            took = timed(contender)
            if number:
                seconds[contender].append(took)
    page = report(seconds)
    print(page)
    if options.write:
        PAGE.write_text(page)


def timed(contender: Contender) -> float:
    """Seconds that the command takes as a whole process, in an empty folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        script, *arguments = contender.command
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, str(ROOT / script), *arguments],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"MPLBACKEND": "agg"},
        )
        return time.perf_counter() - start


def report(seconds: dict[Contender, list[float]]) -> str:
    """The page: what was run, where, and a row for each command."""
    rounds = len(next(iter(seconds.values())))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "lightning", "hydra-core"))
    rows = ["| command | seconds, median (least - most) | times the raw loop |", "| --- | --- | --- |"]
    raw = seconds[LINEAR[0]]
    for contender, taken in seconds.items():
        ratio = median(ours / theirs for ours, theirs in zip(taken, raw, strict=True))
        rows.append(f"| {contender.name} | {median(taken):.2f} ({min(taken):.2f} - {max(taken):.2f}) | {ratio:.2f} |")
    return f"""# Benchmarks

Renewed by `python scripts/benchmark.py --write`. Seconds depend on the machine; the ratios are what is promised.

## Linear regression: three points, 1000 epochs, a whole process from start to exit

{datetime.now(UTC):%Y-%m-%d}, {cpu()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions};
median of {rounds} rounds in turn.

{chr(10).join(rows)}

`python train.py` also validates every 10th epoch, tests, guards every step against NaN and infinity, writes
TensorBoard's events, history.csv, two figures and three files of weights.
"""


def cpu() -> str:
    """The processor, and what of it half precision depends on."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    model = next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")), "")
    fast = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in text]
    return f"{model or platform.processor() or platform.machine()} ({', '.join(fast) or 'no bfloat16 instructions'})"


if __name__ == "__main__":
    main()

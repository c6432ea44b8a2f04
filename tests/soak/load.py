"""Many commands at once that train into one outputs/, a tenth of them sweeps."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from soak import commands
from soak.record import Case, Found

_AT_ONCE = 8


def cases(count: int) -> list[Case]:
    """All in one."""
    return [Case("load", str(count))] if count else []


def run(case: Case, folder: Path) -> Found:
    """Start them, eight at a time → which failed, and whether a run is missing."""
    place, count = folder / "load" / case.name, int(case.name)
    shutil.rmtree(place, ignore_errors=True)

    def command(number: int) -> str | None:
        seeds = ["-m", "seed=0,1"] if number % 10 == 0 else ["seed=0"]
        process = commands.start("trainer=cpu", "trainer.max_epochs=2", *seeds, cwd=place)
        out, _ = process.communicate()
        return None if process.returncode == 0 else out.strip().splitlines()[-1]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        failures = [said for said in pool.map(command, range(count)) if said]
    whole, expected = len(list(place.rglob("metrics.json"))), count + len(range(0, count, 10))
    if whole != expected:
        failures.append(f"{whole} runs of {expected}")
    return Found(whole, failures)

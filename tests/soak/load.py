"""Many commands that train in one outputs/ at once, a tenth of them sweeps."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from soak import commands
from soak.record import Case, CaseResult

_PARALLEL = 8


def cases(count: int) -> list[Case]:
    """A single case."""
    return [Case("load", str(count))] if count else []


def run(case: Case, folder: Path) -> CaseResult:
    """Run the commands, eight at a time → those that failed, and the number of missing runs."""
    cwd, count = folder / "load" / case.name, int(case.name)
    shutil.rmtree(cwd, ignore_errors=True)

    def command(number: int) -> str | None:
        seeds = ["-m", "seed=0,1"] if number % 10 == 0 else ["seed=0"]
        process = commands.start("trainer=cpu", "trainer.max_epochs=2", *seeds, cwd=cwd)
        out, _ = process.communicate()
        return None if process.returncode == 0 else out.strip().splitlines()[-1]

    with ThreadPoolExecutor(_PARALLEL) as pool:
        failures = [line for line in pool.map(command, range(count)) if line]
    whole, expected = len(list(cwd.rglob("metrics.json"))), count + len(range(0, count, 10))
    if whole != expected:
        failures.append(f"{whole} runs of {expected}")
    return CaseResult(whole, failures)

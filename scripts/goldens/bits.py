"""The golden bits: the files they lie in, one for each kind of machine, and how others are held against them."""

import json
from pathlib import Path
from typing import Any

import torch

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
TOLERANCE = 1e-5
"""By how much of itself a loss may differ on another machine."""
Bits = dict[str, Any]
"""`losses` of each step, in as many digits as tell the float32 exactly, and SHA-256 of the final `weights`."""


def machine() -> dict[str, Any]:
    """All that the bits of a run on the CPU depend on, beside its configuration."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    facts = dict(
        line.split("\t: ", 1) for line in info.partition("\n\n")[0].replace("\t\t", "\t").splitlines() if "\t: " in line
    )
    processor = " ".join(facts.get(key, "unknown") for key in ("vendor_id", "cpu family", "model"))
    return {
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processor": processor,
        "threads": torch.get_num_threads(),
    }


def differences(found: Bits, golden: Bits, *, exact: bool) -> list[str]:
    """In what a run is not the golden one: its losses, and where that is asked of it, all of its bits."""
    said = []
    for step, (ours, theirs) in enumerate(zip(found["losses"], golden["losses"], strict=True), 1):
        if ours != theirs and (exact or not abs(ours - theirs) <= TOLERANCE * abs(theirs)):
            said.append(f"step {step}: loss {ours!r}, golden {theirs!r}")
    if exact and found["weights"] != golden["weights"]:
        said.append("the final weights are not the golden ones")
    return said


def read() -> tuple[dict[str, Bits], bool]:
    """The golden runs, of this machine if there are any, and whether they are."""
    files = sorted(GOLDEN.glob("*.json"))
    all_runs = [json.loads(file.read_text()) for file in files]
    mine = [each for each in all_runs if each["machine"] == machine()]
    return (mine or all_runs)[0]["runs"], bool(mine)


def write(found: dict[str, Bits]) -> Path:
    """Renew the file of this machine."""
    here = machine()
    name = " ".join(map(str, here.values())).lower().replace(" ", "-")
    file = GOLDEN / f"{name}-thread{'s' * (here['threads'] > 1)}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"machine": here, "runs": found}, indent=1) + "\n")
    return file

"""Golden files, one for each kind of machine, and the comparison of runs with them."""

import json
from pathlib import Path
from typing import Any

import torch

GOLDEN = Path(__file__).parent
TOLERANCE = 1e-5
"""Relative difference of a loss that is allowed on another machine."""
Bits = dict[str, Any]
"""`losses` of each step, with enough digits for the exact float32, and SHA-256 of the final `weights`.

In a file of another machine, `weights` are null if the run changed by rounding only and was not recorded there again.
"""


def machine() -> dict[str, Any]:
    """Everything that the bits of a run on the CPU depend on, except its configuration."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    first = info.partition("\n\n")[0].replace("\t\t", "\t")
    facts = dict(line.split("\t: ", 1) for line in first.splitlines() if "\t: " in line)
    return {
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processor": " ".join(facts.get(key, "unknown") for key in ("vendor_id", "cpu family", "model")),
        "threads": torch.get_num_threads(),
    }


def differences(found: Bits, golden: Bits, *, exact: bool) -> list[str]:
    """Differences of a run from the golden one: in its losses, and with `exact` in any bit of losses and weights."""
    texts, exact = [], exact and golden["weights"] is not None
    for step, (ours, theirs) in enumerate(zip(found["losses"], golden["losses"], strict=True), 1):
        if ours != theirs and (exact or not abs(ours - theirs) <= TOLERANCE * abs(theirs)):
            texts.append(f"step {step}: loss {ours!r}, golden {theirs!r}")
    if exact and found["weights"] != golden["weights"]:
        texts.append("the final weights are not the golden ones")
    return texts


def read() -> tuple[dict[str, Bits], bool]:
    """Read the golden runs of this machine, or of another one → the runs, and whether they are of this machine."""
    files = [json.loads(file.read_text()) for file in sorted(GOLDEN.glob("*.json"))]
    own = [file for file in files if file["machine"] == machine()]
    return (own or files)[0]["runs"], bool(own)


def write(found: dict[str, Bits]) -> Path:
    """Write the file of this machine → its path."""
    here = machine()
    name = " ".join(map(str, here.values())).lower().replace(" ", "-")
    file = GOLDEN / f"{name}-thread{'s' * (here['threads'] > 1)}.json"
    file.write_text(json.dumps({"machine": here, "runs": found}, indent=1) + "\n")
    return file

"""What a manifest says in a line."""

from typing import Any


def lines(manifest: dict[str, Any]) -> dict[str, str]:
    """For each group that is at work, what it did: "symmetric, rate 0.4, 1,234 of 3,086 labels wrong"."""
    return {record["group"]: f"{_asked(record)}, {_done(record)}" for record in manifest["faults"]}


def _asked(record: dict[str, Any]) -> str:
    shown = {name: value for name, value in record["parameters"].items() if name not in ("seed", "file")}
    return ", ".join([record["kind"], *(f"{name} {value}" for name, value in shown.items())])


def _done(record: dict[str, Any]) -> str:
    if record["group"] == "imbalance":
        sizes = record["classes"].values()
        kept = f"{record['examples']:,} of {record['examples_before']:,} examples kept"
        return f"{kept}, {max(sizes):,} to {min(sizes):,} a class"
    what = "values changed" if "moved" in record else "labels wrong"
    return f"{record['changed']:,} of {record['of']:,} {what}"

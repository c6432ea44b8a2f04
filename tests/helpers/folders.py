"""Run folders as training leaves them, without training."""

import json
from pathlib import Path
from typing import Any

from losslab import runs
from losslab.runs import RunFolder

PER_RUN = ["seed", "name", "run_dir", "data.seed", "callbacks.history.run_dir", "callbacks.history.title"]


def config(loss: str = "mse", seed: int = 0, path: str = "outputs/run", **values: Any) -> dict[str, Any]:
    """A configuration; `values` are further ones by dotted key, written with __ for the dot."""
    found: dict[str, Any] = {
        "seed": seed,
        "name": f"mlp-digits-{loss}-s{seed}",
        "tags": [],
        "run_dir": path,
        "data": {"_target_": "losslab.data.sklearn_datasets.Digits", "batch_size": 32, "split_seed": 0, "seed": seed},
        "loss": {"_target_": f"losslab.losses.{loss}.{loss.title()}"},
        "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.001},
        "scheduler": {"interval": "epoch", "scheduler": None},
        "trainer": {"_target_": "lightning.Trainer", "accelerator": "cpu", "max_epochs": 3, "precision": "32-true"},
        "callbacks": {
            "history": {
                "_target_": "losslab.training.callbacks.history.History",
                "run_dir": path,
                "title": f"{loss}-s{seed}",
            },
            "checkpoints": {"_target_": "losslab.training.callbacks.checkpoint.BestAndLastCheckpoint"},
        },
        "model": {"_target_": "losslab.models.linear.mlp"},
        "choices": {"model": "mlp", "data": "digits", "loss": loss, "optimizer": "adam", "scheduler": "constant"},
        "per_run": PER_RUN,
    }
    for key, value in values.items():
        *path_to, last = key.split("__")
        place = found
        for part in path_to:
            place = place.setdefault(part, {})
        place[last] = value
    return found


def run(folder: Path, loss: str = "mse", seed: int = 0, *, metrics: Any = None, epochs: int = 3, **values: Any) -> Path:
    """A finished run, or with metrics=False one that is not."""
    found = RunFolder(folder)
    runs.write_json(found.config, config(loss, seed, str(folder), **values))
    rows = [
        f"{at},{10 * at},{1 / at},{2.0 / at + seed / 100},{1 - 0.5 / at + seed / 1000}" for at in range(1, epochs + 1)
    ]
    found.history.write_text("\n".join(["epoch,step,train/loss,val/loss,val/accuracy", *rows]) + "\n")
    found.timing.write_text("epoch,seconds\n" + "".join(f"{at},0.5\n" for at in range(1, epochs + 1)))
    if metrics is not False:
        runs.write_json(found.metrics, metrics or {"best_epoch": epochs, "test/accuracy": 0.5, "test/nll": 1.0})
    return folder


def accuracies(place: Path, **values: dict[int, float]) -> Path:
    """Runs of several losses: the test accuracy of each seed."""
    for loss, seeds in values.items():
        for seed, value in seeds.items():
            run(place / f"{loss}-s{seed}", loss, seed, metrics={"test/accuracy": value})
    return place


def summary(sweep: Path, *jobs: dict[str, Any]) -> None:
    """What a sweep says of its jobs."""
    usual = {"overrides": [], "folder": None, "state": "done", "reason": None}
    rows = [usual | {"job": number} | job for number, job in enumerate(jobs)]
    (sweep / "summary.json").write_text(json.dumps({"jobs": rows}))

"""Creates run folders with the files that training writes, but without training."""

import json
from pathlib import Path
from typing import Any

from losslab import runs
from losslab.runs import RunFolder

PER_RUN = ["seed", "name", "run_dir", "data.seed", "callbacks.history.run_dir", "callbacks.history.title"]


def config(loss: str = "mse", seed: int = 0, path: str = "outputs/run", **values: Any) -> dict[str, Any]:
    """Return the configuration of a run, with further `values`: `loss__gamma=2` sets the config key loss.gamma."""
    result: dict[str, Any] = {
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
        *sections, last = key.split("__")
        section = result
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return result


def run(folder: Path, loss: str = "mse", seed: int = 0, *, metrics: Any = None, epochs: int = 3, **values: Any) -> Path:
    """Create the folder of a finished run; with metrics=False, of a run that has not finished."""
    files = RunFolder(folder)
    runs.write_json(files.config, config(loss, seed, str(folder), **values))
    rows = [
        f"{at},{10 * at},{1 / at},{2.0 / at + seed / 100},{1 - 0.5 / at + seed / 1000}" for at in range(1, epochs + 1)
    ]
    files.history.write_text("\n".join(["epoch,step,train/loss,val/loss,val/accuracy", *rows]) + "\n")
    files.timing.write_text("epoch,seconds\n" + "".join(f"{at},0.5\n" for at in range(1, epochs + 1)))
    if metrics is not False:
        runs.write_json(files.metrics, metrics or {"best_epoch": epochs, "test/accuracy": 0.5, "test/nll": 1.0})
    return folder


def accuracies(folder: Path, **values: dict[int, float]) -> Path:
    """Create a run for each loss and seed, with this test accuracy: `mse={0: 0.5, 1: 0.6}`."""
    for loss, seeds in values.items():
        for seed, value in seeds.items():
            run(folder / f"{loss}-s{seed}", loss, seed, metrics={"test/accuracy": value})
    return folder


def summary(sweep: Path, *jobs: dict[str, Any], command: Any = None) -> None:
    """Write the summary of a sweep with these jobs, and with its command unless that is None."""
    defaults = {"overrides": [], "folder": None, "state": "done", "reason": None}
    rows = [defaults | {"job": number} | job for number, job in enumerate(jobs)]
    (sweep / "summary.json").write_text(json.dumps({"jobs": rows} | ({} if command is None else {"command": command})))

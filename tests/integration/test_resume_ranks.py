"""A run of two ranks resumes exactly from every checkpoint."""

from pathlib import Path

import pytest
import torch
import workers
from states import outcome

from losslab.runs import RunFolder

DIGITS = [
    "model=mlp", "data=digits", "data.size=8", "data.batch_size=250", "loss=cross_entropy", "trainer.max_epochs=3",
    "callbacks.checkpoints.every_seconds=0",
]  # fmt: skip
RUNS = {
    "one cycle": ["scheduler=one_cycle", "data.batch_size=175", "+trainer.val_check_interval=3"],
    "accumulated": [
        "data.batch_size=60", "trainer.accumulate_grad_batches=4", "callbacks=ema", "trainer.precision=bf16-mixed",
    ],
    "batch statistics, dynamics": [
        "model._target_=workers.Normalised", "examine=false", "callbacks=dynamics",
        "callbacks.dynamics.draw=false", "callbacks.dynamics.examples=50",
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [name if name == "accumulated" else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
def test_two_ranks_resumed_from_any_checkpoint_end_as_undisturbed(name, tmp_path):
    overrides = [*DIGITS, *RUNS[name]]
    whole = tmp_path / "whole"
    kept = workers.run_ranks(workers.keep, 2, str(whole), overrides)
    assert kept.reason is None, kept.traceback
    assert kept.value > 9
    folders = [f"{whole}-{number}" for number in range(1, kept.value, 4)]
    sums = [torch.load(RunFolder(Path(folder)).last, weights_only=True)["learner"]["sums"] for folder in folders]
    assert all(len(of) == 2 for of in sums)
    resumed = workers.run_ranks(workers.resume, 2, folders, overrides)
    assert resumed.reason is None, resumed.traceback
    for folder in folders:
        assert outcome(folder) == outcome(whole), folder

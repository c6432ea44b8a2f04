"""What is NaN or infinite on one of two processes ends both, in the same step and with the same words."""

import json
import re

import pytest
import torch
import workers

from losslab.runs import RunFolder
from losslab.training.callbacks.checkpoint import first_non_finite

BARE = [
    "model=mlp", "data=digits", "data.size=8", "data.batch_size=300", "loss=sce", "trainer.max_epochs=3",
    "examine=false",
]  # fmt: skip
RUN = [*BARE, "callbacks.checkpoints.every_seconds=0"]
SELDOM = [*BARE, "callbacks.checkpoints.every_seconds=1000"]
ACCUMULATED = [*RUN, "data.batch_size=75", "trainer.accumulate_grad_batches=4"]
STEP = r"NonFiniteError: step 8 \(epoch 2, batch 3, rank 1\)"
GRADIENT = rf"{STEP}: a gradient became .* under WeightedSum, first in the gradient of network\.3;"
CASES = {
    "inputs": (
        RUN,
        rf"{STEP}: a loss .* under WeightedSum \(its terms cross_entropy, rce\), first in the inputs .*\(example \d+\)",
    ),
    "loss": (RUN, rf"{STEP}: a loss .* under WeightedSum \(its term rce\), first in the loss itself"),
    "gradient": (RUN, GRADIENT),
    "averaged gradient": (RUN, GRADIENT),
    "weight": (RUN, rf"{STEP}: a weight .* first in the weights of network\.3;"),
    "gradient, accumulated": (ACCUMULATED, GRADIENT.replace("batch 3", "batch 9")),
    "loss, clipped": ([*RUN, "trainer.gradient_clip_val=0.5"], rf"{STEP}: a loss .* \(its term rce\)"),
}  # fmt: skip
OTHERS = {
    "inputs, and the best waits": SELDOM,
    "inputs, unguarded": [*BARE, "callbacks=none", "test=false"],
    "inputs, later": SELDOM,
    "weight, later": SELDOM,
    "validation": [*BARE, "data.eval_batch_size=50"],
}


def reports(folder, name):
    return [json.loads((folder / f"{name} {rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    runs = {name: run for name, (run, _) in CASES.items()} | OTHERS
    cases = {name: (name.partition(",")[0], run) for name, run in runs.items()}
    outcome = workers.together(workers.poisoned, 2, str(folder), cases, seconds=180)
    assert outcome.reason is None, outcome.traceback
    return folder


@pytest.mark.parametrize("name", CASES)
def test_what_one_process_meets_ends_both_in_its_step_and_nothing_is_saved_after_it(ended, name):
    first, second = reports(ended, name)
    assert re.match(CASES[name][1], first["said"])
    assert second["said"] == first["said"]
    assert (first["since"], second["since"]) == (1, 1)
    assert first["kept"]  # as the files were when the step began, seen by the process that writes them
    assert first["finite"]  # nothing bad has reached its weights


def test_a_best_state_of_an_earlier_epoch_that_still_waits_is_saved(ended):
    first, _ = reports(ended, "inputs, and the best waits")
    assert first["said"].startswith("NonFiniteError: step 8")
    folder = RunFolder(ended / "inputs, and the best waits")
    assert not folder.last.exists()
    best = torch.load(folder.best, weights_only=True)
    assert best["global_step"] == 5
    assert first_non_finite(best) is None


@pytest.mark.parametrize(("name", "what"), [("inputs, later", "loss"), ("weight, later", "weight")])
def test_where_flags_are_read_a_step_late_as_on_gpus_both_end_one_step_later(ended, name, what):
    first, second = reports(ended, name)
    assert re.match(rf"NonFiniteError: step 8 \(epoch 2, batch 3, rank 1\): a {what} became", first["said"])
    assert second["said"] == first["said"]
    assert (first["since"], second["since"]) == (2, 2)
    assert not RunFolder(ended / name).last.exists()


def test_of_a_validation_process_batch_and_term_are_named(ended):
    first, second = reports(ended, "validation")
    said = r"NonFiniteError: step \d \(epoch 1, batch 2, rank 1\): a val/loss became .* terms cross_entropy, rce\), "
    assert re.match(said + r"first in the inputs of the batch \(example \d+\);", first["said"])
    assert second["said"] == first["said"]


def test_without_the_guard_both_train_on_and_end_with_garbage(ended):
    for report in reports(ended, "inputs, unguarded"):
        assert report["said"] == ""
        assert report["since"] > 1
        assert not report["finite"]


def test_a_process_that_ended_alone_would_leave_the_others_with_a_broken_connection(tmp_path):
    """The control: what the guard did before it knew of others."""
    workers.together(workers.poisoned, 2, str(tmp_path), {"inputs": ("inputs", RUN)}, "alone", seconds=60)
    first, second = reports(tmp_path, "inputs")
    assert second["said"].startswith("NonFiniteError")
    assert not first["said"].startswith("NonFiniteError")
    assert "rank 1" not in first["said"]

"""A NaN or an infinity on one of two ranks ends both, in the same step and with the same message."""

import json
import re

import pytest
import torch
import workers

from losslab.runs import RunFolder
from losslab.training.callbacks.checkpoint_state import first_non_finite

BARE = [
    "model=mlp", "data=digits", "data.size=8", "data.batch_size=300", "loss=sce", "trainer.max_epochs=3",
    "examine=false",
]  # fmt: skip
RUN = [*BARE, "callbacks.checkpoints.every_seconds=0"]
SELDOM = [*BARE, "callbacks.checkpoints.every_seconds=1000"]
ACCUMULATED = [*RUN, "data.batch_size=75", "trainer.accumulate_grad_batches=4"]
STEP = r"NonFiniteError: step 8 \(epoch 2, batch 3, rank 1\)"
GRADIENT = rf"{STEP}: a gradient became .* with loss WeightedSum, first in the gradient of network\.3;"
CASES = {
    "inputs": (
        RUN,
        rf"{STEP}: a loss .* with loss WeightedSum \(its terms cross_entropy, rce\), first in the inputs .*\(example",
    ),
    "loss": (RUN, rf"{STEP}: a loss .* with loss WeightedSum \(its term rce\), first in the loss itself"),
    "gradient": (RUN, GRADIENT),
    "averaged gradient": (RUN, GRADIENT),
    "weight": (RUN, rf"{STEP}: a weight .* first in the weights of network\.3;"),
    "gradient, accumulated": (ACCUMULATED, GRADIENT.replace("batch 3", "batch 9")),
    "loss, clipped": ([*RUN, "trainer.gradient_clip_val=0.5"], rf"{STEP}: a loss .* \(its term rce\)"),
}  # fmt: skip
OTHERS = {
    "inputs, best not written": SELDOM,
    "inputs, unguarded": [*BARE, "callbacks=none", "test=false"],
    "inputs, deferred": SELDOM,
    "weight, deferred": SELDOM,
    "validation": [*BARE, "data.eval_batch_size=50"],
}


def reports(folder, name):
    return [json.loads((folder / f"{name} {rank}.json").read_text()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    runs = {name: run for name, (run, _) in CASES.items()} | OTHERS
    cases = {name: (name.partition(",")[0], run) for name, run in runs.items()}
    outcome = workers.run_ranks(workers.poisoned, 2, str(folder), cases, seconds=180)
    assert outcome.reason is None, outcome.traceback
    return folder


@pytest.mark.parametrize("name", CASES)
def test_both_ranks_end_in_the_same_step_and_save_nothing_after_it(ended, name):
    first, second = reports(ended, name)
    assert re.match(CASES[name][1], first["message"])
    assert second["message"] == first["message"]
    assert (first["since"], second["since"]) == (1, 1)
    assert first["kept"]  # the files are those at the beginning of the step
    assert first["finite"]  # its weights were not changed by the bad values


def test_unwritten_best_state_of_an_earlier_epoch_is_saved(ended):
    first, _ = reports(ended, "inputs, best not written")
    assert first["message"].startswith("NonFiniteError: step 8")
    folder = RunFolder(ended / "inputs, best not written")
    assert not folder.last.exists()
    best = torch.load(folder.best, weights_only=True)
    assert best["global_step"] == 5
    assert first_non_finite(best) is None


@pytest.mark.parametrize(("name", "what"), [("inputs, deferred", "loss"), ("weight, deferred", "weight")])
def test_with_deferred_flags_both_ranks_end_one_step_later(ended, name, what):
    first, second = reports(ended, name)
    assert re.match(rf"NonFiniteError: step 8 \(epoch 2, batch 3, rank 1\): a {what} became", first["message"])
    assert second["message"] == first["message"]
    assert (first["since"], second["since"]) == (2, 2)
    assert not RunFolder(ended / name).last.exists()


def test_bad_validation_is_reported_with_rank_batch_and_terms(ended):
    first, second = reports(ended, "validation")
    message = r"NonFiniteError: step \d \(epoch 1, batch 2, rank 1\): a val/loss became .* terms cross_entropy, rce\), "
    assert re.match(message + r"first in the inputs of the batch \(example \d+\);", first["message"])
    assert second["message"] == first["message"]


def test_without_the_guard_both_ranks_train_on_with_non_finite_weights(ended):
    for report in reports(ended, "inputs, unguarded"):
        assert report["message"] == ""
        assert report["since"] > 1
        assert not report["finite"]


def test_rank_that_ends_alone_leaves_the_others_with_a_broken_connection(tmp_path):
    """The control: a guard that does not know of other ranks."""
    workers.run_ranks(workers.poisoned, 2, str(tmp_path), {"inputs": ("inputs", RUN)}, "alone", seconds=60)
    first, second = reports(tmp_path, "inputs")
    assert second["message"].startswith("NonFiniteError")
    assert not first["message"].startswith("NonFiniteError")
    assert "rank 1" not in first["message"]

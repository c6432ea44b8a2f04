"""Any configuration trains, or is refused in one line. `make soak` tries thousands."""

import os
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from soak.random_configurations import campaign, draw, run_trial

EXAMPLES = int(os.environ.get("LOSSLAB_EXAMPLES", "15"))
SHORT = ["trainer=cpu", "trainer.max_epochs=2", "trainer.enable_progress_bar=false"]
DIGITS = ["model=mlp", "data=digits", "loss=cross_entropy", "data.size=2"]


@settings(
    max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
@given(st.integers(0, 2**32))
def test_any_configuration_trains_or_is_refused_in_one_line_and_leaves_nothing(number):
    trial = run_trial(draw(random.Random(number)))  # noqa: S311
    assert trial.outcome != "failed", f"{trial.message} <- {' '.join(trial.overrides)}"


def test_a_campaign_can_be_resumed_at_any_case():
    assert next(campaign(0, 3, 1)).overrides == tuple(draw(random.Random("0/3")))  # noqa: S311


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["scheduler=step", "scheduler.scheduler.step_size=0"], "scheduler.scheduler: StepLR with step_size=0"),
        (
            ["scheduler=plateau", "scheduler.scheduler.patience=abc"],
            "scheduler.scheduler.patience must be an integer",
        ),
        (["scheduler.interval=abc"], "scheduler.interval must be step or epoch"),
        (["+scheduler.gamma=1"], "did you mean scheduler.scheduler.gamma?"),
        (["optimizer.lr=true"], "optimizer.lr must be a number, got true"),
        (["optimizer.lr=nan"], "optimizer.lr must be a number, got nan"),
        (["optimizer.weight_decay=1e308"], "optimizer: SGD with"),
        (["+optimizer.nestrov=true"], "optimizer.nestrov: SGD has no such argument: did you mean nesterov?"),
        (
            ["optimizer._partial_=false"],
            "optimizer._partial_ must be true: optimizer is called later",
        ),
        (["scheduler=one_cycle", "scheduler.scheduler._partial_=null"], "scheduler.scheduler._partial_ must be true"),
        (["optimizer._partial_=abc"], "optimizer._partial_ must be true or false"),
        ([*DIGITS, "scheduler=one_cycle", "scheduler.scheduler.max_lr=1e308"], "optimizer: it cannot take a step"),
        ([*DIGITS, "data.crop=1000000000"], "data.crop=1000000000 can erase whole images of 2×2 pixels"),
        ([*DIGITS, "loss.weight=abc"], "weight must have one number"),
        ([*DIGITS, "loss=sce", "loss.terms.rce.loss=1"], "a term of a weighted_sum must contain a loss, got 1"),
        ([*DIGITS, "loss=sce", "+loss.terms.rce.wait=1"], "weighted_sum must be a mapping with the keys loss and"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0 trains nothing"),
        (["trainer.accelerator=[1]"], "trainer.accelerator must be a string"),
        (["+trainer.val_check_interval=0"], "trainer.val_check_interval must be a number above 0"),
        (["trainer.log_every_n_steps=abc"], "trainer.log_every_n_steps must be an integer"),
        (["callbacks.path=3"], "leave it out with ~callbacks.path"),
        (["data=linear_synthetic", f"data.n={10**18}"], "the data cannot be created with these settings"),
        (["+modle=mlp"], "modle is set but never read: did you mean model?"),
        (["+whatever=1"], "whatever is set but never read: put your own keys under notes, as in +notes.KEY=VALUE"),
        (["model=[]"], "model is not chosen: choose model=airbench"),
        (["data=[1]"], "the value of a group must be the name"),
        (["optimizer.momentums=1"], "there is no optimizer.momentums: did you mean optimizer.momentum="),
        (["ckpt_path=1"], "ckpt_path must be a string or null, got 1"),
        (["name='\udcff'"], "name is set to '\\udcff', which cannot be encoded in UTF-8"),
        (["optimizer='\ud800'"], "cannot be encoded in UTF-8: leave out '\\ud800'"),
        (["optimizer.lr='${nowhere}'"], "Interpolation key 'nowhere' not found"),
    ],
)
def test_invalid_settings_that_were_once_a_traceback_or_accepted_are_refused(overrides, line):
    trial = run_trial([*SHORT, *overrides])
    assert trial.outcome == "refused", trial
    assert line in trial.message


@pytest.mark.parametrize(
    "overrides",
    [
        ["+rate=0.1", "optimizer.lr=${rate}"],  # a key that another value refers to
        ["+notes.why=curious"],
        ["name=1"],
        ["model=mlp", "data=breast_cancer", "loss=hinge", "trainer.precision=bf16-true", "callbacks=dynamics"],
    ],
)
def test_unusual_but_valid_configurations_train(overrides):
    trial = run_trial([*SHORT, *overrides])
    assert trial.outcome == "trained", trial

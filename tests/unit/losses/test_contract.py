"""What every loss promises and claims, asked of every file in conf/loss: a new loss is tested by existing."""

from functools import cache

import pytest
from hydra.utils import instantiate

from losslab import CONF
from losslab.losses import Loss, catalog
from losslab.losses.contract import CHECKS, CLAIMS, run_check
from losslab.losses.contract.behaviour import (
    has_the_gradient_of_its_value,
    is_stable_far_out,
    passes_nan_on,
    takes_one_hot_for_a_class,
)
from losslab.losses.contract.sample_inputs import is_classification, with_class_counts


@cache
def variants(name: str) -> dict[str, Loss]:
    """The loss as configured, and at every value of its parameters that is worth comparing."""
    config = catalog.config(name)
    loss: Loss = instantiate(config)
    changed = {
        f"{name}.{parameter}={value}": instantiate(config, **{parameter: value})
        for parameter, declared in loss.hyperparameters.items()
        for value in declared.tried
        if value != getattr(loss, parameter)
    }
    return {name: loss} | changed


ALL = {case: loss for name in catalog.names() for case, loss in variants(name).items()}


# What another value of a hyperparameter can break. The rest is a matter of code, and asked once for each loss.
NUMERICAL = (has_the_gradient_of_its_value, is_stable_far_out, passes_nan_on, takes_one_hot_for_a_class)
PROMISES = [
    pytest.param(case, kind, check, id=f"{case}-{kind}-{check.__name__}")
    for case, loss in ALL.items()
    for kind in loss.wants
    for check in (NUMERICAL if "=" in case else CHECKS)
]


@pytest.mark.parametrize(("case", "kind", "check"), PROMISES)
def test_promise(case, kind, check):
    assert run_check(check, with_class_counts(ALL[case]), kind) is None


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
@pytest.mark.parametrize("case", ALL)
def test_claim(case, claim):
    card = ALL[case].card
    assert card is not None, "a loss of this project declares a card"
    assert run_check(claim, ALL[case], card) is None


@pytest.mark.parametrize("case", ALL)
def test_only_losses_made_of_others_leave_facts_open(case):
    loss = ALL[case]
    if any(isinstance(part, Loss) for part in loss.modules() if part is not loss):
        return
    card = loss.card
    assert None not in (card.near, card.far, card.convex, card.low, card.high)
    if is_classification(loss):
        assert None not in (card.proper, card.uniform)
        assert card.elicits is None
    else:
        assert (card.proper, card.uniform, card.symmetric, card.shift_invariant) == (None, None, None, False)


@pytest.mark.parametrize("name", catalog.names())
def test_every_loss_has_a_comment_that_says_what_it_is(name):
    assert (CONF / "loss" / f"{name}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("name", catalog.names())
def test_every_number_that_can_be_set_is_declared(name):
    numbers = {key for key, value in catalog.config(name).items() if isinstance(value, float)}
    assert numbers == set(ALL[name].hyperparameters)

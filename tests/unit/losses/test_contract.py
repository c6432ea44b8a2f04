"""Every loss of conf/loss passes the contract's checks, and a search refutes no claim of its card.

A new loss is tested by existing. The quick tests check each loss as configured; the slow ones check it at every value
of its hyperparameters that is worth comparing, and compile each loss for each kind of target.
"""

from functools import cache, partial

import pytest
import torch
from hydra.utils import instantiate

from losslab import CONF
from losslab.losses import Loss, catalog
from losslab.losses.contract.behaviour import (
    CHECKS,
    compiles_into_one_graph,
    has_the_gradient_of_its_value,
    is_stable_at_large_outputs,
    propagates_nan,
    takes_one_hot_for_a_class,
)
from losslab.losses.contract.claims import CLAIMS, run_check
from losslab.losses.contract.sample_inputs import CLASSES, is_classification, sample_outputs, with_class_counts

NAMES = catalog.names()
# The checks that another value of a hyperparameter can fail. The others depend on the code alone.
NUMERICAL = (has_the_gradient_of_its_value, is_stable_at_large_outputs, propagates_nan, takes_one_hot_for_a_class)
# Their outputs are estimates, or the probabilities are another function of them.
WITHOUT_LOGITS = {"bi_tempered", "rescaled_mse", "squared_hinge"}
# Compiled in the quick tests too: one loss for each way in which the formulas are written.
COMPILED_QUICKLY = {
    "barron", "bce", "cross_entropy", "focal", "gaussian_nll", "js", "ldam", "mse", "nce", "weighted_sum",
}  # fmt: skip


@cache
def made(name: str) -> Loss:
    return instantiate(catalog.config(name))


@cache
def variants(name: str) -> dict[str, Loss]:
    """Return the loss at each value in `tried` of each hyperparameter, except the configured value."""
    loss, config = made(name), catalog.config(name)
    return {
        f"{parameter}={value}": instantiate(config, **{parameter: value})
        for parameter, declared in loss.hyperparameters.items()
        for value in declared.tried
        if value != getattr(loss, parameter)
    }


def failures(loss: Loss, checks, kinds) -> dict[str, str]:
    results = {
        f"{check.__name__} ({kind})": run_check(check, with_class_counts(loss), kind)
        for kind in kinds
        for check in checks
    }
    return {name: failure for name, failure in results.items() if failure is not None}


def refuted(loss: Loss) -> dict[str, str]:
    card = loss.card
    assert card is not None, "a loss of this project declares a card"
    results = {claim.__name__: run_check(claim, loss, card) for claim in CLAIMS}
    return {name: failure for name, failure in results.items() if failure is not None}


def check_open_facts(loss: Loss) -> None:
    """Check that no fact of the card is None, unless the loss is made of other losses."""
    if any(isinstance(part, Loss) for part in loss.modules() if part is not loss):
        return
    card = loss.card
    assert None not in (card.near, card.far, card.convex, card.low, card.high)
    if is_classification(loss):
        assert None not in (card.proper, card.uniform)
        assert card.elicits is None
    else:
        assert (card.proper, card.uniform, card.symmetric, card.shift_invariant) == (None, None, None, False)


@pytest.mark.parametrize("name", NAMES)
def test_a_loss_passes_every_check(name):
    loss = made(name)
    assert failures(loss, [check for check in CHECKS if check is not compiles_into_one_graph], loss.wants) == {}


@pytest.mark.parametrize("name", [name for name in NAMES if is_classification(made(name))])
def test_probabilities_are_the_softmax_or_the_sigmoid_of_the_logits(name):
    loss = made(name)
    outputs = sample_outputs(loss, 20)[:, : loss.outputs(CLASSES)]
    logits, probabilities = loss.to_logits(outputs), loss.to_probabilities(outputs)
    assert (logits is None) == (name in WITHOUT_LOGITS)
    if logits is not None:
        assert any(
            torch.allclose(link(logits), probabilities) for link in (partial(torch.softmax, dim=1), torch.sigmoid)
        )


@pytest.mark.parametrize(
    "name", [name if name in COMPILED_QUICKLY else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_loss_compiles_into_one_graph(name):
    loss = made(name)
    assert failures(loss, [compiles_into_one_graph], loss.wants[:1]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if len(made(name).wants) > 1])
def test_a_loss_compiles_into_one_graph_for_its_other_kinds_of_target(name):
    loss = made(name)
    assert failures(loss, [compiles_into_one_graph], loss.wants[1:]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if made(name).hyperparameters])
def test_a_loss_passes_the_numerical_checks_at_other_hyperparameters(name):
    found = {case: failures(loss, NUMERICAL, loss.wants) for case, loss in variants(name).items()}
    assert {case: failed for case, failed in found.items() if failed} == {}


@pytest.mark.parametrize("name", NAMES)
def test_no_claim_of_a_card_is_refuted(name):
    assert refuted(made(name)) == {}
    check_open_facts(made(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if made(name).hyperparameters])
def test_no_claim_of_a_card_is_refuted_at_other_hyperparameters(name):
    found = {case: refuted(loss) for case, loss in variants(name).items()}
    assert {case: failed for case, failed in found.items() if failed} == {}
    for loss in variants(name).values():
        check_open_facts(loss)


def test_every_config_of_a_loss_starts_with_a_comment():
    assert [name for name in NAMES if not (CONF / "loss" / f"{name}.yaml").read_text().startswith("# ")] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_float_in_the_config_of_a_loss_is_a_declared_hyperparameter(name):
    numbers = {key for key, value in catalog.config(name).items() if isinstance(value, float)}
    assert numbers == set(made(name).hyperparameters)

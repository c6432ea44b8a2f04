"""The contract catches failures: cards with one false claim each, and losses that break one guarantee each."""

from dataclasses import replace

import pytest

from losslab.losses import BCE, GCE, L1, MAE, MSE, RCE, Barron, Card, CrossEntropy, Focal, Huber, KLDiv, Slope, SmoothL1
from losslab.losses.contract import behaviour, claims
from losslab.losses.contract.claims import run_check
from losslab.targets import Kind

FALSE = [
    (CrossEntropy(), claims.value_at_uniform_logits, {"uniform": "log(K) + 1e-4"}),
    (CrossEntropy(), claims.value_at_uniform_logits, {"uniform": "log(2)"}),
    (BCE(), claims.value_at_uniform_logits, {"uniform": "K * log(2)"}),
    (Focal(2.0), claims.value_at_uniform_logits, {"uniform": "log(K)"}),
    (CrossEntropy(), claims.symmetry, {"symmetric": "K * log(K)"}),
    (CrossEntropy(), claims.bounds, {"high": "100"}),
    (CrossEntropy(), claims.bounds, {"low": "0.5"}),
    (CrossEntropy(), claims.bounds, {"low": "-1"}),
    (CrossEntropy(label_smoothing=0.1), claims.bounds, {"low": "0"}),
    (MSE(), claims.bounds, {"high": "1"}),
    (GCE(0.1), claims.bounds, {"high": "oo"}),
    (GCE(0.01), claims.bounds, {"high": "oo"}),
    (Barron(-0.5), claims.bounds, {"high": "oo"}),
    (MAE(), claims.symmetry, {"symmetric": None}),
    (RCE(), claims.symmetry, {"symmetric": "K - 1"}),
    (Focal(2.0), claims.convexity, {"convex": True}),
    (Focal(0.5), claims.convexity, {"convex": True}),
    (CrossEntropy(), claims.convexity, {"convex": False}),
    (L1(), claims.convexity, {"convex": False}),
    (BCE(), claims.invariance_to_shifts, {"shift_invariant": True}),
    (KLDiv(), claims.invariance_to_shifts, {"shift_invariant": False}),
    (Focal(2.0), claims.properness, {"proper": True}),
    (CrossEntropy(label_smoothing=0.1), claims.properness, {"proper": True}),
    (CrossEntropy(), claims.properness, {"proper": False}),
    (BCE(pos_weight=3.0), claims.properness, {"proper": True}),
    (MSE(), claims.estimate, {"elicits": "median"}),
    (L1(), claims.estimate, {"elicits": "mean"}),
    (L1(), claims.estimate, {"elicits": None}),
    (Huber(), claims.estimate, {"elicits": "mean"}),
    (MSE(), claims.slope_near, {"near": Slope.STAYS}),
    (L1(), claims.slope_near, {"near": Slope.FADES}),
    (SmoothL1(0.0), claims.slope_near, {"near": Slope.FADES}),
    (CrossEntropy(), claims.slope_near, {"near": Slope.ZERO}),
    (MSE(), claims.slope_far, {"far": Slope.STAYS}),
    (Huber(), claims.slope_far, {"far": Slope.GROWS}),
    (CrossEntropy(), claims.slope_far, {"far": Slope.FADES}),
]


@pytest.mark.parametrize(("loss", "claim", "lie"), FALSE, ids=lambda part: getattr(part, "__name__", None) or str(part))
def test_a_false_claim_is_refuted_and_the_true_claim_is_not(loss, claim, lie):
    card = loss.card
    assert isinstance(card, Card)
    assert claim(loss, card) is None
    assert claim(loss, replace(card, **lie)) is not None


class Broken(MSE):
    """A squared error that breaks one guarantee, which `how` names."""

    def __init__(self, how):
        super().__init__()
        self.how = how

    def per_example(self, outputs, target):  # noqa: PLR0911
        right = super().per_example(outputs, target)
        match self.how:
            case "shape":
                return right[:, None]
            case "others":
                return right - right.mean()
            case "gradient":
                return (right * outputs.detach().exp().mean(1)) if outputs.ndim > 1 else right
            case "far":
                return (outputs.square() - target).square().square().square().square().mean(1)
            case "clamp":
                return right.clamp(max=1e3) + 0 * right
            case "nan":
                return right.nan_to_num(0.0)
            case "precision":
                return right.float()
            case "branch":
                return right if right.sum() > 0 else 2 * right
            case "item":
                return right * outputs.sum().item() / outputs.sum()
        return right

    def forward(self, outputs, target):
        value = super().forward(outputs, target)
        return value.nan_to_num(0.0) if self.how == "empty" else value


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("shape", behaviour.scores_each_example_by_itself),
        ("others", behaviour.scores_each_example_by_itself),
        ("gradient", behaviour.has_the_gradient_of_its_value),
        ("far", behaviour.is_stable_at_large_outputs),
        ("nan", behaviour.propagates_nan),
        ("precision", behaviour.keeps_its_precision),
        ("empty", behaviour.is_nan_on_an_empty_batch),
    ],
)
def test_a_loss_that_breaks_a_guarantee_fails_the_check(how, check):
    assert check(MSE(), Kind.VALUES) is None
    assert check(Broken(how), Kind.VALUES) is not None


@pytest.mark.parametrize(
    ("how", "check"),
    [
        ("branch", behaviour.compiles_into_one_graph),
        ("branch", behaviour.maps_over_examples),
        ("item", behaviour.maps_over_examples),
    ],
)
def test_a_loss_that_branches_on_values_fails_compile_and_vmap(how, check):
    assert run_check(check, MSE(), Kind.VALUES) is None
    assert run_check(check, Broken(how), Kind.VALUES) is not None


def test_class_weights_that_apply_to_one_hot_targets_only_fail_the_check():
    loss = CrossEntropy(weight=[1.0, 2.0, 3.0, 4.0, 5.0])
    pick = loss.pick
    assert behaviour.takes_one_hot_for_a_class(loss, Kind.INDEX) is None
    loss.pick = lambda costs, target: pick(costs, target) / loss.example_weight(target)
    assert behaviour.takes_one_hot_for_a_class(loss, Kind.INDEX) is not None

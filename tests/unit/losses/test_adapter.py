"""Criteria of torch.nn and of users: an adapted loss computes what they compute."""

import inspect
import logging
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from losslab.errors import LabError
from losslab.losses.adapter.adapted import Adapted, adapt
from losslab.losses.adapter.output_kind import OutputKind
from losslab.targets import Kind

CLASSES = 5
WEIGHT = torch.tensor([1.0, 1.0, 1.0, 4.0, 0.5])
I, P, B, V = Kind.INDEX, Kind.PROBABILITIES, Kind.BINARY, Kind.VALUES  # noqa: E741 -- one letter per kind keeps the tables narrow


def batch(loss: Adapted, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Make outputs and a target of the kind that the loss accepts, different from those of the adapter's trials."""
    random = torch.Generator().manual_seed(seed)
    outputs = torch.randn(9, loss.outputs(loss.targets), generator=random)
    index = torch.randint(loss.targets, (9,), generator=random)
    target = {
        I: index,
        P: torch.randn(9, loss.targets, generator=random).softmax(1),
        B: torch.randint(2, (9, loss.targets), generator=random).float(),
        V: torch.rand(9, loss.targets, generator=random) + 1,
    }[loss.wants[0]]
    return outputs.sigmoid() if loss.bounded else outputs, target


def check_equal(criterion, loss: Adapted, outputs: Tensor, target: Tensor, summed: bool = False) -> None:
    """Check that `forward`, the weighted mean of the scores, and the gradient equal those of the criterion."""
    outputs = outputs.requires_grad_()
    own = criterion(outputs, target).mean() / (len(outputs) if summed else 1)
    scores, weights = loss.per_example(outputs, target), loss.example_weight(target)
    assert scores.shape == weights.shape == (len(outputs),)
    torch.testing.assert_close(loss(outputs, target), own)
    torch.testing.assert_close(scores.sum() / weights.sum(), own)
    torch.testing.assert_close(*(torch.autograd.grad(value, outputs)[0] for value in (loss(outputs, target), own)))


ADAPTED = [
    (nn.BCELoss, {}, I, P, OutputKind.PROBABILITIES),
    (nn.BCELoss, {}, B, B, OutputKind.PROBABILITIES),
    (nn.BCEWithLogitsLoss, {}, I, P, OutputKind.BINARY_LOGITS),
    (nn.BCEWithLogitsLoss, {"pos_weight": WEIGHT}, B, B, OutputKind.BINARY_LOGITS),
    (nn.CrossEntropyLoss, {}, I, I, OutputKind.LOGITS),
    (nn.CrossEntropyLoss, {}, P, P, OutputKind.LOGITS),
    (nn.CrossEntropyLoss, {"weight": WEIGHT, "label_smoothing": 0.1, "ignore_index": 2}, I, I, OutputKind.LOGITS),
    (nn.CrossEntropyLoss, {"weight": WEIGHT, "label_smoothing": 0.1}, P, P, OutputKind.LOGITS),
    (nn.CrossEntropyLoss, {"weight": WEIGHT, "reduction": "sum"}, I, I, OutputKind.LOGITS),
    (nn.CrossEntropyLoss, {"weight": WEIGHT, "reduction": "none"}, I, I, OutputKind.LOGITS),
    (nn.HuberLoss, {"delta": 0.5}, V, V, OutputKind.VALUES),
    (nn.HuberLoss, {}, I, P, OutputKind.VALUES),
    (nn.KLDivLoss, {"reduction": "batchmean"}, P, P, OutputKind.LOG_PROBABILITIES),
    (nn.KLDivLoss, {"reduction": "sum"}, I, P, OutputKind.LOG_PROBABILITIES),
    (nn.L1Loss, {}, V, V, OutputKind.VALUES),
    (nn.L1Loss, {}, I, P, OutputKind.VALUES),
    (nn.LinearCrossEntropyLoss, {"in_features": 8, "num_classes": 5, "weight": WEIGHT}, I, I, OutputKind.UNKNOWN),
    (nn.MSELoss, {}, V, V, OutputKind.VALUES),
    (nn.MSELoss, {"reduction": "sum"}, V, V, OutputKind.VALUES),
    (nn.MSELoss, {}, B, B, OutputKind.VALUES),
    (nn.MultiLabelSoftMarginLoss, {"weight": WEIGHT}, B, B, OutputKind.BINARY_LOGITS),
    (nn.MultiMarginLoss, {"weight": WEIGHT, "p": 2}, I, I, OutputKind.LOGITS),
    (nn.NLLLoss, {"weight": WEIGHT, "ignore_index": 0}, I, I, OutputKind.LOG_PROBABILITIES),
    (nn.PoissonNLLLoss, {}, V, V, OutputKind.LOG_VALUES),
    (nn.PoissonNLLLoss, {"log_input": False, "full": True}, V, V, OutputKind.VALUES),
    (nn.SmoothL1Loss, {}, V, V, OutputKind.VALUES),
]
REFUSED = [
    (nn.AdaptiveLogSoftmaxWithLoss, {"in_features": 8, "n_classes": CLASSES, "cutoffs": [2]}, I, "not a tensor"),
    (nn.CTCLoss, {}, I, "missing 2 required"),
    (nn.CosineEmbeddingLoss, {}, I, "missing 1 required"),
    (nn.CrossEntropyLoss, {}, V, "does not depend on their outputs"),
    (nn.GaussianNLLLoss, {}, V, "missing 1 required"),
    (nn.HingeEmbeddingLoss, {}, B, "-1 or 1"),
    (nn.MarginRankingLoss, {}, V, "missing 1 required"),
    (nn.MultiLabelMarginLoss, {}, B, "list of class indices"),
    (nn.NLLLoss, {}, V, "target"),
    (nn.SoftMarginLoss, {}, I, "-1 and 1"),
    (nn.SoftMarginLoss, {}, B, "does not depend on their outputs"),
    (nn.TripletMarginLoss, {}, I, "missing 1 required"),
    (nn.TripletMarginWithDistanceLoss, {}, I, "missing 1 required"),
]  # fmt: skip


def named(case) -> str:
    return f"{case[0].__name__}-{'-'.join(case[1])}-{case[2]}"


@pytest.mark.parametrize("case", ADAPTED, ids=named)
@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
def test_adapted_torch_criterion_keeps_its_value_and_gradient(case):
    make, options, kind, wanted, output_kind = case
    criterion = make(**options)
    loss = adapt(criterion, kind, CLASSES)
    assert loss.wants == (wanted,)
    assert loss.output_kind is output_kind
    for seed in range(3):
        check_equal(criterion, loss, *batch(loss, seed), summed=options.get("reduction") == "sum")


@pytest.mark.parametrize("case", REFUSED, ids=named)
def test_unusable_torch_criterion_raises_a_one_line_error(case):
    make, options, kind, reason = case
    with pytest.raises(LabError, match=reason) as raised:
        adapt(make(**options), kind, 1 if kind in (B, V) else CLASSES)
    assert "\n" not in str(raised.value)
    assert make.__name__ in str(raised.value)
    assert "losslab.losses.Loss" in str(raised.value)


def test_test_cases_cover_all_criteria_of_torch():
    criteria = {thing for name, thing in vars(nn).items() if name.endswith("Loss") and inspect.isclass(thing)}
    assert criteria | {nn.AdaptiveLogSoftmaxWithLoss} == {case[0] for case in (*ADAPTED, *REFUSED)}


def test_ignored_index_has_weight_0():
    criterion = nn.CrossEntropyLoss(weight=WEIGHT)
    loss = adapt(criterion, I, CLASSES)
    outputs, target = batch(loss)
    target[[0, 3]] = -100
    check_equal(criterion, loss, outputs, target)
    assert loss.example_weight(target)[[0, 3]].sum() == 0


def test_adapt_does_not_change_criterion_or_random_state():
    criterion = nn.LinearCrossEntropyLoss(8, CLASSES)
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    state = torch.get_rng_state()
    loss = adapt(criterion, I, CLASSES)
    assert torch.equal(torch.get_rng_state(), state)
    assert criterion.reduction == "mean"
    assert all(torch.equal(value, before[name]) for name, value in criterion.state_dict().items())
    assert [id(own) for own in loss.parameters()] == [id(own) for own in criterion.parameters()]


def test_criterion_with_a_lazy_layer_can_be_adapted():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.LazyLinear(CLASSES)

        def forward(self, outputs, target):
            return F.cross_entropy(self.scale(outputs), target)

    loss = adapt(Scaled(), I, CLASSES)
    outputs, target = batch(loss)
    assert torch.equal(loss(outputs, target), loss.criterion(outputs, target))


def test_adapt_returns_a_losslab_loss_unchanged():
    from losslab.losses import CrossEntropy

    loss = CrossEntropy()
    assert adapt(loss, I, CLASSES) is loss


def brier(outputs: Tensor, target: Tensor) -> Tensor:
    return (outputs.softmax(1) - F.one_hot(target, CLASSES)).square().sum(1).mean()


def one_dimensional(outputs: Tensor, target: Tensor) -> Tensor:
    return torch.dot(outputs - target, outputs - target) / len(outputs)


class Branches(nn.Module):
    """A loss that vmap cannot map, because it branches on values."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        rows = [F.cross_entropy(z[None], y[None]) * (2 if z.max() > 1 else 1) for z, y in zip(outputs, target)]  # noqa: B905
        return torch.stack(rows).mean()


@pytest.mark.parametrize(
    ("criterion", "kind", "targets"),
    [
        (F.cross_entropy, I, CLASSES),
        (brier, I, CLASSES),
        (Branches(), I, CLASSES),
        (F.smooth_l1_loss, V, 1),
        (lambda z, y: (z - y).square().sum(1), V, 3),
    ],
)
def test_function_or_module_without_reduction_scores_each_example(criterion, kind, targets):
    loss = adapt(criterion, kind, targets)
    for seed in range(3):
        check_equal(criterion, loss, *batch(loss, seed))


def test_function_of_flat_tensors_is_called_with_flat_tensors():
    loss = adapt(one_dimensional, V, 1)
    outputs, target = batch(loss)
    torch.testing.assert_close(loss(outputs, target), (outputs - target).square().mean())


def test_broadcasting_criterion_is_rejected():
    # (N, 1) against (N,) gives (N, N): torch's own losses warn about it, a plain difference does not.
    with pytest.raises(LabError, match="target size"):
        adapt(lambda z, y: F.mse_loss(z, y.squeeze(1)), V, 1)
    with pytest.raises(LabError, match="broadcasts: it pairs the outputs of each example with the targets of all"):
        adapt(lambda z, y: (z - y.squeeze(1)).abs().mean(), V, 1)


def correlation(outputs: Tensor, target: Tensor) -> Tensor:
    z, y = outputs - outputs.mean(), target - target.mean()
    return 1 - (z * y).sum() / (z.norm() * y.norm())


def test_loss_of_the_whole_batch_trains_with_a_warning_and_has_no_scores(caplog):
    with caplog.at_level(logging.WARNING):
        loss = adapt(correlation, V, 1)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["correlation", "under"]
    assert "scores a batch as a whole" in caplog.text
    outputs, target = batch(loss)
    torch.testing.assert_close(loss(outputs, target), correlation(outputs, target))
    total, weight, _ = loss.total(outputs, target)
    torch.testing.assert_close(total, 9 * correlation(outputs, target))
    assert weight == 9
    with pytest.raises(LabError, match="correlation has no loss for single examples"):
        loss.per_example(outputs, target)


def balanced_cross_entropy(outputs: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(outputs, target, weight=1 / (torch.bincount(target, minlength=outputs.shape[1]) + 1.0))


def balanced_bce(outputs: Tensor, target: Tensor) -> Tensor:
    ones = target.sum(0)
    return F.binary_cross_entropy_with_logits(outputs, target, pos_weight=(len(target) - ones) / ones.clamp(min=1))


@pytest.mark.parametrize("targets", [2, 3, 12, 100])
@pytest.mark.parametrize(("criterion", "kind"), [(balanced_cross_entropy, I), (balanced_bce, B)])
def test_loss_weighted_by_the_classes_in_the_batch_is_of_the_whole_batch(criterion, kind, targets):
    assert not adapt(criterion, kind, targets).scores_examples


def test_criterion_that_sums_over_the_batch_becomes_a_mean_with_a_warning(caplog):
    adapt(nn.MSELoss(reduction="sum"), V, 2)
    assert "MSELoss sums over the batch" in caplog.text


def test_half_precision_is_raised_to_float32_under_autocast():
    loss = adapt(nn.BCELoss(), B, 1)
    target = torch.ones(4, 1)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(torch.full((4, 1), 0.5, dtype=torch.bfloat16), target).dtype == torch.float32


def test_empty_batch_has_weight_0_and_a_gradient_for_every_parameter():
    criterion = nn.LinearCrossEntropyLoss(8, CLASSES)
    loss = adapt(criterion, I, CLASSES)
    total, weight, _ = loss.total(torch.zeros(0, 8, requires_grad=True), torch.zeros(0, dtype=torch.int64))
    total.backward()
    assert (total, weight) == (0, 0)
    assert criterion.linear.weight.grad is not None


def test_to_predictions_gives_what_metrics_compare_with_the_target():
    outputs = torch.randn(3, 2)
    assert torch.equal(adapt(nn.PoissonNLLLoss(), V, 2).to_predictions(outputs), outputs.exp())
    assert torch.equal(adapt(nn.MSELoss(), V, 2).to_predictions(outputs), outputs)
    criterion = nn.LinearCrossEntropyLoss(8, CLASSES)
    embedding = torch.randn(3, 8)
    loss = adapt(criterion, I, CLASSES)
    assert torch.equal(loss.to_predictions(embedding), criterion.linear(embedding))
    assert torch.equal(loss.to_probabilities(embedding), criterion.linear(embedding).softmax(1))


def by_numpy(outputs, target):
    p = outputs.softmax(1).detach().numpy()
    return torch.tensor(-np.log(p[range(len(p)), target.numpy()]).mean(), requires_grad=True)


def without_grad(outputs, target):
    with torch.no_grad():
        return F.cross_entropy(outputs, target)


NOT_DIFFERENTIABLE = {
    "NumPy": by_numpy,
    "NumPy without detach": lambda z, y: torch.as_tensor(z.softmax(1).numpy()[range(len(z)), y]).mean(),
    "detach": lambda z, y: F.cross_entropy(z.detach(), y),
    "data": lambda z, y: F.cross_entropy(z.data, y),
    "tensor of values": lambda z, y: torch.tensor([float(F.cross_entropy(z, y))]).mean(),
    "argmax": lambda z, y: (z.argmax(1) != y).float().mean(),
    "no_grad": without_grad,
    "own parameter only": lambda z, y: F.cross_entropy(z.detach() * torch.ones(1, requires_grad=True), y),
}
ZERO_GRADIENT = {
    "argmax": lambda z, y: (z.argmax(1) != y).float().mean() + 0 * z.sum(),
    "round": lambda z, y: (z.round() - F.one_hot(y, CLASSES)).square().mean(),
    "sign": lambda z, y: (z.sign() - F.one_hot(y, CLASSES)).square().mean(),
}
NO_TENSOR = {
    "a float": lambda z, y: F.cross_entropy(z, y).item(),
    "a tuple": lambda z, y: (F.cross_entropy(z, y), {}),
    "a dict": lambda z, y: {"loss": F.cross_entropy(z, y)},
    "a NoneType": lambda *_: None,
}


def refusal(criterion) -> str:
    """Return the message of the LabError of `adapt`."""
    with pytest.raises(LabError) as raised:
        adapt(criterion, I, CLASSES)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("criterion", NOT_DIFFERENTIABLE.values(), ids=NOT_DIFFERENTIABLE)
def test_loss_without_gradient_is_refused_with_the_usual_causes(criterion):
    message = refusal(criterion)
    assert "does not depend on the outputs through differentiable operations" in message
    assert all(cause in message for cause in (".detach()", ".item()", "argmax", "NumPy", "torch.no_grad()"))
    assert "allow_unused" not in message


@pytest.mark.parametrize("criterion", ZERO_GRADIENT.values(), ids=ZERO_GRADIENT)
def test_loss_with_a_gradient_of_0_is_refused_with_the_usual_causes(criterion):
    assert "has a gradient of 0 for all outputs" in refusal(criterion)


@pytest.mark.parametrize("returned", NO_TENSOR)
def test_loss_that_returns_no_tensor_is_refused_with_what_it_returns(returned):
    assert f"returns {returned}, not a tensor" in refusal(NO_TENSOR[returned])


def test_loss_with_more_arguments_is_refused_once_with_where_they_are_available():
    message = refusal(lambda outputs, target, inputs: F.cross_entropy(outputs, target) + inputs.mean())
    assert message.count("missing 1 required positional argument: 'inputs'") == 1
    assert "its loss_inputs also gets the inputs" in message


def hardest(outputs, target):
    values = F.cross_entropy(outputs, target, reduction="none")
    return values.topk(len(values) // 4).values.mean()


def sampled(outputs, target):
    other = torch.randint(outputs.shape[1], target.shape)
    return (1 + outputs.gather(1, other[:, None]) - outputs.gather(1, target[:, None])).relu().mean()


@pytest.mark.parametrize("criterion", [hardest, sampled])
def test_loss_of_some_examples_of_a_batch_can_be_adapted(criterion):
    loss = adapt(criterion, I, CLASSES)
    outputs, target = batch(loss)
    results = []
    for each in (loss, criterion):
        torch.manual_seed(0)
        results.append(each(outputs, target))
    torch.testing.assert_close(*results)


class WarmingUp(nn.Module):
    """Is 0 in the first call."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, outputs, target):
        self.calls += 1
        return F.cross_entropy(outputs, target) * (self.calls - 1)


def test_loss_that_is_0_in_its_first_call_can_be_adapted():
    loss = adapt(WarmingUp(), I, CLASSES)
    outputs, target = batch(loss)
    values = [loss(outputs, target) for _ in range(3)]
    assert values == [0, F.cross_entropy(outputs, target), 2 * F.cross_entropy(outputs, target)]


def test_loss_that_counts_its_calls_scores_each_example():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, outputs, target):
            self.calls += 1
            return F.cross_entropy(outputs, target) * self.calls

    loss = adapt(Counting(), I, CLASSES)
    outputs, target = batch(loss)
    torch.testing.assert_close(loss.per_example(outputs, target), F.cross_entropy(outputs, target, reduction="none"))


def test_loss_with_dropout_scores_each_example_in_evaluation_mode():
    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, outputs, target):
            return F.cross_entropy(self.dropout(outputs), target)

    loss = adapt(Dropped(), I, CLASSES).eval()
    outputs, target = batch(loss)
    torch.testing.assert_close(loss.per_example(outputs, target), F.cross_entropy(outputs, target, reduction="none"))


def test_random_loss_is_said_to_be_random(caplog):
    adapt(lambda z, y: F.cross_entropy(z + torch.randn_like(z), y), I, CLASSES)
    assert "draws random numbers" in caplog.text
    assert "as a whole" not in caplog.text


def test_evaluation_says_that_a_loss_is_called_for_each_example(caplog):
    caplog.set_level("INFO")
    adapt(Branches(), I, CLASSES)
    assert not caplog.text
    adapt(Branches(), I, CLASSES, warn="metrics")
    assert "Branches is called once for each example" in caplog.text


def test_function_with_an_ignored_class_is_the_loss_of_each_example(caplog):
    options = {"ignore_index": 2, "weight": WEIGHT}
    ours = adapt(partial(F.cross_entropy, **options), Kind.INDEX, CLASSES)
    theirs = adapt(nn.CrossEntropyLoss(**options), Kind.INDEX, CLASSES)
    outputs, labels = torch.randn(6, CLASSES), torch.tensor([0, 1, 2, 2, 1, 0])
    torch.testing.assert_close(ours.total(outputs, labels), theirs.total(outputs, labels))
    assert "as a whole" not in caplog.text

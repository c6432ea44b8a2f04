"""Losses of timm, kornia and pytorch-metric-learning, in their installed versions, through the adapter."""

import kornia.losses as kl
import pytest
import pytorch_metric_learning.losses as pml
import timm.loss as tl
import torch
from torch import Tensor

from losslab.errors import LabError
from losslab.losses.adapter.adapted import Adapted, adapt
from losslab.losses.adapter.output_kind import OutputKind
from losslab.targets import Kind

CLASSES = 6
INDEX, PROBABILITIES, BINARY, VALUES = Kind.INDEX, Kind.PROBABILITIES, Kind.BINARY, Kind.VALUES


def batch(loss: Adapted, seed: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    outputs = torch.randn(12, loss.outputs(CLASSES), generator=random)
    index = torch.arange(12) % CLASSES
    target = {
        INDEX: index,
        PROBABILITIES: torch.nn.functional.one_hot(index).float(),
        BINARY: torch.randint(2, (12, CLASSES), generator=random).float(),
        VALUES: torch.randn(12, CLASSES, generator=random),
    }[loss.wants[0]]
    return outputs, target


def own(criterion, outputs: Tensor, target: Tensor) -> Tensor:
    return criterion(outputs, target).mean()


EACH_EXAMPLE = [
    (tl.LabelSmoothingCrossEntropy(0.2), INDEX, INDEX, OutputKind.LOGITS),
    (tl.SoftTargetCrossEntropy(), INDEX, PROBABILITIES, OutputKind.LOGITS),
    (tl.BinaryCrossEntropy(0.1), INDEX, INDEX, OutputKind.BINARY_LOGITS),
    (tl.BinaryCrossEntropy(0.0), BINARY, BINARY, OutputKind.BINARY_LOGITS),
    (tl.AsymmetricLossSingleLabel(), INDEX, INDEX, OutputKind.LOGITS),
    (tl.AsymmetricLossMultiLabel(), BINARY, BINARY, OutputKind.BINARY_LOGITS),
    (tl.PolyCrossEntropy(), INDEX, INDEX, OutputKind.LOGITS),
    (tl.PolyBinaryCrossEntropy(), BINARY, BINARY, OutputKind.BINARY_LOGITS),
    (tl.ZlprLoss(), BINARY, BINARY, OutputKind.BINARY_LOGITS),
    (kl.FocalLoss(alpha=0.5), INDEX, INDEX, OutputKind.LOGITS),
    (
        kl.FocalLoss(alpha=None, reduction="mean", weight=torch.linspace(0.5, 2, CLASSES)),
        INDEX,
        INDEX,
        OutputKind.LOGITS,
    ),
    (kl.BinaryFocalLossWithLogits(alpha=0.3, reduction="mean"), BINARY, BINARY, OutputKind.BINARY_LOGITS),
    (kl.BinaryFocalLossWithLogits(alpha=0.3), INDEX, PROBABILITIES, OutputKind.BINARY_LOGITS),
    (kl.CauchyLoss(reduction="mean"), VALUES, VALUES, OutputKind.VALUES),
    (kl.CharbonnierLoss(reduction="mean"), VALUES, VALUES, OutputKind.VALUES),
    (kl.GemanMcclureLoss(), VALUES, VALUES, OutputKind.VALUES),
    (kl.WelschLoss(), INDEX, PROBABILITIES, OutputKind.VALUES),
]
OWN_CLASSIFIER = [pml.ArcFaceLoss, pml.CosFaceLoss, pml.LargeMarginSoftmaxLoss, pml.NormalizedSoftmaxLoss]
OWN_CLASSIFIER += [pml.ProxyNCALoss, pml.SoftTripleLoss, pml.SphereFaceLoss]
WHOLE_BATCH = [pml.AngularLoss, pml.CircleLoss, pml.ContrastiveLoss, pml.FastAPLoss, pml.GeneralizedLiftedStructureLoss]
WHOLE_BATCH += [pml.IntraPairVarianceLoss, pml.LiftedStructureLoss, pml.MarginLoss, pml.MultiSimilarityLoss]
WHOLE_BATCH += [pml.NCALoss, pml.NTXentLoss, pml.PNPLoss, pml.SignalToNoiseRatioContrastiveLoss, pml.SupConLoss]
WHOLE_BATCH += [pml.TripletMarginLoss, pml.TupletMarginLoss]
REFUSED = [
    (tl.JsdCrossEntropy(), INDEX, "targets of all examples"),
    (kl.DiceLoss(), INDEX, "Invalid pred shape"),
    (kl.TverskyLoss(alpha=0.5, beta=0.5), INDEX, "Invalid pred shape"),
    (kl.LovaszSoftmaxLoss(), INDEX, "Shape dimension mismatch"),
    (kl.HausdorffERLoss(), VALUES, "Only 2D images"),
    (kl.SSIMLoss(3), VALUES, "Invalid img1 shape"),
    (kl.TotalVariation(), VALUES, "positional argument"),
    (pml.VICRegLoss(), INDEX, "not supported"),
    (pml.ContrastiveLoss(), VALUES, "labels must be"),
]


def named(case) -> str:
    return f"{type(case[0]).__name__}-{case[1]}"


@pytest.mark.parametrize("case", EACH_EXAMPLE, ids=named)
def test_criterion_that_scores_each_example_keeps_its_value_and_has_per_example_losses(case):
    criterion, kind, wanted, output_kind = case
    loss = adapt(criterion, kind, CLASSES)
    assert (loss.wants, loss.output_kind) == ((wanted,), output_kind)
    for seed in range(3):
        outputs, target = batch(loss, seed)
        outputs.requires_grad_()
        scores = loss.per_example(outputs, target)
        expected = own(criterion, outputs, target)
        torch.testing.assert_close(scores.mean(), expected)
        torch.testing.assert_close(loss(outputs, target), expected)
        torch.testing.assert_close(torch.cat([loss.per_example(*row) for row in rows(outputs, target)]), scores)
        gradients = [torch.autograd.grad(value, outputs)[0] for value in (loss(outputs, target), expected)]
        torch.testing.assert_close(*gradients)


def rows(outputs: Tensor, target: Tensor):
    return zip(outputs.split(1), target.split(1), strict=True)


@pytest.mark.filterwarnings("ignore:.*(ndim > 0|__array_wrap__|binom).*:DeprecationWarning")
@pytest.mark.parametrize("make", OWN_CLASSIFIER, ids=lambda make: make.__name__)
def test_loss_with_its_own_classifier_takes_embeddings_and_gives_class_logits(make):
    criterion = make(num_classes=CLASSES, embedding_size=16)
    loss = adapt(criterion, INDEX, CLASSES)
    assert loss.outputs(CLASSES) == 16
    outputs, target = batch(loss, 0)
    torch.testing.assert_close(loss.per_example(outputs, target).mean(), criterion(outputs, target))
    torch.testing.assert_close(loss(outputs, target), criterion(outputs, target))
    torch.testing.assert_close(loss.to_predictions(outputs), criterion.get_logits(outputs))
    torch.testing.assert_close(loss.to_probabilities(outputs), criterion.get_logits(outputs).softmax(1))
    assert [id(parameter) for parameter in loss.parameters()] == [id(parameter) for parameter in criterion.parameters()]


@pytest.mark.parametrize("make", WHOLE_BATCH, ids=lambda make: make.__name__)
def test_loss_of_pairs_keeps_its_value_and_warns_of_its_limitations(make, caplog):
    criterion = make()
    loss = adapt(criterion, INDEX, CLASSES)
    outputs, target = batch(loss, 0)
    total, weight, _ = loss.total(outputs, target)
    torch.testing.assert_close(total / weight, criterion(outputs, target))
    assert weight == len(outputs)
    assert f"{make.__name__} scores a batch as a whole" in caplog.text
    assert "the outputs are not estimates of the target" in caplog.text
    with pytest.raises(LabError, match="no loss for single examples"):
        loss.per_example(outputs, target)


def test_class_weighted_reducer_is_part_of_every_score():
    from pytorch_metric_learning.reducers import ClassWeightedReducer

    criterion = pml.ArcFaceLoss(CLASSES, 16, reducer=ClassWeightedReducer(torch.linspace(0.5, 2, CLASSES)))
    loss = adapt(criterion, INDEX, CLASSES)
    outputs, target = batch(loss, 0)
    torch.testing.assert_close(loss.per_example(outputs, target).mean(), criterion(outputs, target))
    torch.testing.assert_close(loss(outputs, target), criterion(outputs, target))


def test_regularizer_is_part_of_every_score():
    from pytorch_metric_learning.regularizers import LpRegularizer

    options = {"weight_regularizer": LpRegularizer(), "embedding_regularizer": LpRegularizer()}
    criterion = pml.CosFaceLoss(CLASSES, 16, **options)
    loss = adapt(criterion, INDEX, CLASSES)
    outputs, target = batch(loss, 1)
    torch.testing.assert_close(loss(outputs, target), criterion(outputs, target))


@pytest.mark.parametrize("case", REFUSED, ids=named)
def test_unusable_library_criterion_raises_a_one_line_error(case):
    criterion, kind, reason = case
    with pytest.raises(LabError, match=reason) as raised:
        adapt(criterion, kind, CLASSES)
    assert "\n" not in str(raised.value)
    assert type(criterion).__name__ in str(raised.value)

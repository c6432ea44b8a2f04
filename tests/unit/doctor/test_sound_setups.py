"""Sound setups, which must have no findings: a grid of networks, losses and data."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from losslab import losses
from losslab.doctor import examine, report
from losslab.losses import catalog
from losslab.losses.base import Loss
from losslab.models.cnn import cifar_cnn
from losslab.models.cosine import CosineLinear
from losslab.targets import Kind
from losslab.training.preflight import _SameViews

CLASSES = 5
pytestmark = pytest.mark.usefixtures("no_check_fails")


class Residual(nn.Module):
    """A residual block whose branch starts at 0, as is common."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Linear(width, width)
        nn.init.zeros_(self.branch.weight)

    def forward(self, inputs):
        return inputs + self.branch(inputs)


def networks(outputs: int) -> dict[str, nn.Module]:
    """Return networks whose inputs are 8 features, normally distributed with standard deviation 1."""
    zero = nn.Linear(16, outputs)
    nn.init.zeros_(zero.weight)
    nn.init.zeros_(zero.bias)
    probe = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, outputs))
    probe[0].requires_grad_(requires_grad=False)
    return {
        "linear": nn.Linear(8, outputs),
        "mlp": nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, outputs)),
        "norms": nn.Sequential(
            nn.BatchNorm1d(8), nn.Linear(8, 16), nn.ReLU(), nn.LayerNorm(16), nn.Linear(16, outputs)),
        "dropout": nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, outputs)),
        "batch statistics": nn.Sequential(nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, outputs)),
        "zero head": nn.Sequential(nn.Linear(8, 16), nn.Tanh(), zero),
        "sigmoid inside": nn.Sequential(nn.Linear(8, 16), nn.Sigmoid(), nn.Linear(16, outputs)),
        "softmax inside": nn.Sequential(nn.Linear(8, 16), nn.Softmax(1), nn.Linear(16, outputs)),
        "residual": nn.Sequential(nn.Linear(8, 16), *(Residual(16) for _ in range(12)), nn.Linear(16, outputs)),
        "deep": nn.Sequential(nn.Linear(8, 32), *(m for _ in range(10) for m in (nn.ReLU(), nn.Linear(32, 32))),
                              nn.ReLU(), nn.Linear(32, outputs)),
        "frozen features": probe,
        "normalised at the end": nn.Sequential(
            nn.Linear(8, outputs), nn.LayerNorm(outputs) if outputs > 1 else nn.Identity()),
    }  # fmt: skip


FAST = ("dropout", "softmax inside")
NETWORKS = [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in networks(1)]


def inputs(n: int = 32) -> torch.Tensor:
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(1))


def drawn(n: int = 32, columns: int = CLASSES) -> torch.Tensor:
    return torch.randn(n, columns, generator=torch.Generator().manual_seed(2))


LABELS = drawn().argmax(1)
SOME_IGNORED = LABELS.where(torch.arange(32) % 3 > 0, -100)
SOFT = drawn().softmax(1)
YES = (drawn() > 0).float()
VALUES = drawn()


def bce_by_hand(outputs, target):
    return F.binary_cross_entropy_with_logits(outputs, target)


def bce_of_probabilities_by_hand(outputs, target):
    return F.binary_cross_entropy(outputs, target)


CRITERIA = {
    "cross entropy": (nn.CrossEntropyLoss(), LABELS),
    "cross entropy, function": (F.cross_entropy, LABELS),
    "cross entropy, one weight each": (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])), LABELS),
    "cross entropy, smoothed": (partial(F.cross_entropy, label_smoothing=0.1), LABELS),
    "cross entropy, equal weights and smoothed": (nn.CrossEntropyLoss(torch.ones(5), label_smoothing=0.1), LABELS),
    "cross entropy, some ignored": (nn.CrossEntropyLoss(), SOME_IGNORED),
    "cross entropy, another index ignored": (
        nn.CrossEntropyLoss(ignore_index=255), SOME_IGNORED.where(SOME_IGNORED >= 0, 255)),
    "cross entropy, unknown and ignoring": (
        lambda o, t: F.cross_entropy(o, t, ignore_index=255), SOME_IGNORED.where(SOME_IGNORED >= 0, 255)),
    "cross entropy, converting": (lambda o, t: F.cross_entropy(o, t.long()), LABELS.int()),
    "cross entropy, soft": (nn.CrossEntropyLoss(), SOFT),
    "multi margin": (nn.MultiMarginLoss(), LABELS),
    "bce": (nn.BCEWithLogitsLoss(), YES),
    "bce, soft": (nn.BCEWithLogitsLoss(), SOFT),
    "bce, function": (F.binary_cross_entropy_with_logits, YES),
    "bce, unknown": (bce_by_hand, YES),
    "bce, positives weighted": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)), YES),
    "multi-label soft margin": (nn.MultiLabelSoftMarginLoss(), YES),
    "soft margin": (nn.SoftMarginLoss(), 2 * YES - 1),
    "mse": (nn.MSELoss(), VALUES),
    "mse of classes": (nn.MSELoss(), F.one_hot(LABELS, CLASSES).float()),
    "mse, summed": (nn.MSELoss(reduction="sum"), VALUES),
    "mse by hand": (lambda o, t: ((o - t) ** 2).mean(), VALUES),
    "mse of a softmax": (lambda o, t: F.mse_loss(o.softmax(1), t), SOFT),
    "l1": (nn.L1Loss(), VALUES),
    "huber": (nn.HuberLoss(), VALUES),
    "smooth l1": (nn.SmoothL1Loss(), VALUES),
    "l1 of large values": (nn.L1Loss(), 500 * VALUES),
    "poisson": (nn.PoissonNLLLoss(), VALUES.abs().round()),
    "gaussian": (lambda o, t: nn.GaussianNLLLoss()(o[:, :2], t[:, :2], o[:, 2:4].exp() + 0 * o[:, 4:].sum()), VALUES),
    "kl of log-softmax": (lambda o, t: F.kl_div(o.log_softmax(1), t, reduction="batchmean"), SOFT),
    "losslab cross entropy": (losses.CrossEntropy(), LABELS),
    "losslab cross entropy, soft": (losses.CrossEntropy(label_smoothing=0.2), SOFT),
    "losslab focal": (losses.Focal(), LABELS),
    "losslab bce": (losses.BCE(), F.one_hot(LABELS, CLASSES).float()),
    "losslab kl": (losses.KLDiv(), SOFT),
    "losslab mse": (losses.MSE(), VALUES),
    "losslab l1": (losses.L1(), F.one_hot(LABELS, CLASSES).float()),
    "losslab huber": (losses.Huber(), VALUES),
}  # fmt: skip


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("network", NETWORKS)
def test_sound_setup_has_no_findings(network, criterion):
    loss, target = CRITERIA[criterion]
    for seed in range(2):
        torch.manual_seed(seed)
        found = examine(networks(CLASSES)[network], loss, (inputs(), target), lr=1e-3)
        assert not found, report(found)


ENDS = {
    "log-softmax": (nn.LogSoftmax(1), {"nll": (nn.NLLLoss(), LABELS), "kl": (nn.KLDivLoss(reduction="batchmean"), SOFT),
                                       "nll by hand": (lambda o, t: -o.gather(1, t[:, None]).mean(), LABELS)}),
    "softmax": (nn.Softmax(1), {"mse": (nn.MSELoss(), SOFT), "losslab mse": (losses.MSE(), SOFT),
                                "nll of log": (lambda o, t: F.nll_loss(o.clamp(1e-8).log(), t), LABELS)}),
    "sigmoid": (nn.Sigmoid(), {"bce": (nn.BCELoss(), YES), "l1": (nn.L1Loss(), YES), "mse": (nn.MSELoss(), SOFT),
                               "bce by hand": (bce_of_probabilities_by_hand, YES)}),
    "tanh": (nn.Tanh(), {"mse": (nn.MSELoss(), VALUES.clamp(-1, 1))}),
    "softplus": (nn.Softplus(), {"mse": (nn.MSELoss(), VALUES.abs()),
                                 "poisson": (nn.PoissonNLLLoss(log_input=False), VALUES.abs().round())}),
}  # fmt: skip


@pytest.mark.parametrize(("end", "criterion"), [(end, name) for end, (_, found) in ENDS.items() for name in found])
@pytest.mark.parametrize("network", NETWORKS)
def test_network_that_ends_in_the_activation_that_its_loss_expects_has_no_findings(network, end, criterion):
    layer, criteria = ENDS[end]
    torch.manual_seed(0)
    found = examine(
        nn.Sequential(networks(CLASSES)[network], layer), criteria[criterion][0], (inputs(), criteria[criterion][1])
    )
    assert not found, report(found)


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), losses.BCE(), nn.MSELoss(), losses.MSE(), nn.L1Loss()])
@pytest.mark.parametrize("network", NETWORKS)
def test_network_with_a_single_output_has_no_findings(network, loss):
    torch.manual_seed(0)
    found = examine(networks(1)[network], loss, (inputs(), YES[:, :1]), lr=1e-3)
    assert not found, report(found)


@pytest.mark.parametrize("name", ["gaussian_nll", "poisson_nll", "tweedie"])
def test_likelihood_losses_with_one_value_per_example_have_no_findings(name):
    loss = catalog.make(name)
    network = nn.Linear(10, loss.outputs(1))
    assert not examine(network, loss, (drawn(columns=10), drawn(columns=1).abs().round()))


def test_flat_outputs_with_a_flat_target_are_sound():
    flat = nn.Sequential(nn.Linear(8, 1), nn.Flatten(0))
    for loss in (nn.MSELoss(), nn.BCEWithLogitsLoss(), lambda o, t: ((o - t) ** 2).mean(), nn.HuberLoss()):
        assert not examine(flat, loss, (inputs(), YES[:, 0]))
    column = nn.Linear(8, 1)
    assert not examine(column, lambda o, t: F.mse_loss(o.squeeze(1), t), (inputs(), YES[:, 0]))


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), losses.CrossEntropy(), losses.Focal(), nn.MultiMarginLoss()])
def test_normalised_images_are_sound(loss):
    images = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    found = examine(cifar_cnn((3, 32, 32), CLASSES), loss, (images, LABELS))
    assert not found, report(found)


def test_classes_per_pixel_are_sound():
    images = torch.randn(4, 3, 8, 8)
    labels = images.argmax(1).where(torch.rand(4, 8, 8) > 0.1, 255)
    loss = nn.CrossEntropyLoss(ignore_index=255)
    assert not examine(nn.Conv2d(3, 3, 1), loss, (images, labels))
    assert not examine(
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.LogSoftmax(1)), nn.NLLLoss(ignore_index=255), (images, labels)
    )


def test_bytes_are_sound_if_the_network_normalises_them():
    images = torch.randint(256, (32, 3, 8, 8)).float()
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, CLASSES))
    assert not examine(network, nn.CrossEntropyLoss(), (images, LABELS))


def test_token_indices_are_sound():
    network = nn.Sequential(nn.Embedding(1000, 8), nn.Flatten(), nn.Linear(48, CLASSES))
    assert not examine(network, nn.CrossEntropyLoss(), (torch.randint(1000, (32, 6)), LABELS))


def test_perfect_network_is_sound():
    network = nn.Linear(8, 5)
    target = network(inputs()).detach()
    assert not examine(network, nn.MSELoss(), (inputs(), target))


def test_missing_targets_are_sound_if_the_loss_masks_them():
    target = VALUES.clone()
    target[3] = torch.nan

    def masked(outputs, target):
        valid = ~target.isnan()
        return (outputs[valid] - target[valid]).square().mean()

    assert not examine(nn.Linear(8, 5), masked, (inputs(), target))


def test_custom_loss_with_its_own_probabilities_is_sound():
    class Cosine(losses.CrossEntropy):
        def score(self, outputs, target):
            return super().score(20 * F.normalize(outputs, dim=1), target)

        def to_probabilities(self, outputs):
            return (20 * F.normalize(outputs, dim=1)).softmax(1)

    torch.manual_seed(0)
    assert not examine(nn.Linear(8, CLASSES), Cosine(), (inputs(), LABELS))


MANY = torch.randn(64, CLASSES, generator=torch.Generator().manual_seed(2))
MANY_LABELS = MANY.argmax(1)
COUNT_LOSSES = ("poisson_nll", "tweedie")


def target_of(name: str, kind: Kind, columns: int) -> torch.Tensor:
    """Return a target of this kind, with this number of columns if the kind allows it."""
    if name in COUNT_LOSSES:
        return (3 * MANY[:, :columns].abs()).round()
    return {
        Kind.INDEX: MANY_LABELS,
        Kind.PROBABILITIES: F.one_hot(MANY_LABELS, CLASSES).float(),
        Kind.BINARY: (MANY[:, :columns] > 0).float(),
        Kind.VALUES: MANY[:, :columns],
    }[kind]


def network_for(loss: Loss, columns: int) -> nn.Module:
    last = CosineLinear(16, columns) if loss.cosine_outputs else nn.Linear(16, loss.outputs(columns))
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), last)


@pytest.mark.parametrize("columns", [1, CLASSES])
@pytest.mark.parametrize("name", catalog.names())
def test_every_loss_of_the_catalog_has_no_findings_on_its_first_kind_of_target(name, columns):
    loss = catalog.make(name)
    kind = loss.wants[0]
    if kind in {Kind.INDEX, Kind.PROBABILITIES}:
        columns = CLASSES
    loss.set_class_counts(MANY_LABELS.bincount(minlength=CLASSES))
    torch.manual_seed(0)
    inputs = torch.randn(64, 8)
    body = network_for(loss, columns)
    optimizer = torch.optim.SGD(body.parameters(), lr=0.01)
    loss = loss if loss.n_views == 1 else _SameViews(loss)
    found = examine(body, loss, (inputs, target_of(name, kind, columns)), optimizer=optimizer)
    assert not found, report(found)


class ValuesFirst(Loss):
    """A loss without `to_probabilities`; the base class uses a softmax by default."""

    wants = (Kind.VALUES, Kind.BINARY, Kind.INDEX)

    def score(self, outputs, target):
        return (outputs - target).square().flatten(1).mean(1)


class BinaryOnly(ValuesFirst):
    wants = (Kind.BINARY,)


@pytest.mark.parametrize("loss", [ValuesFirst(), BinaryOnly()])
def test_custom_loss_without_to_probabilities_is_not_taken_for_a_classification_loss(loss):
    found = examine(nn.Linear(8, 1), loss, (torch.randn(64, 8), (MANY[:, :1] > 0).float()))
    assert not found, report(found)


def test_poisson_can_reach_counts_but_not_negative_targets():
    rectified = nn.Sequential(nn.Linear(8, 1), nn.Hardtanh())
    batch = torch.randn(64, 8), (3 * MANY[:, :1].abs()).round()
    assert not examine(rectified, catalog.make("poisson_nll"), batch)
    found = examine(nn.Linear(8, 1), catalog.make("poisson_nll"), (batch[0], MANY[:, :1]))
    assert [finding.name for finding in found] == ["targets-out-of-reach"]

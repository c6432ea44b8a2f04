"""Wrong setups, each with its only finding. The sound setups are in test_sound_setups.py."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from losslab import losses
from losslab.doctor import Severity, examine, report

pytestmark = pytest.mark.usefixtures("no_check_fails")
ERROR, WARNING = Severity.ERROR, Severity.WARNING
N, C = 32, 5
X = torch.randn(N, 8, generator=torch.Generator().manual_seed(1))
Z = torch.randn(N, C, generator=torch.Generator().manual_seed(2))
LABELS, SOFT, YES = Z.argmax(1), Z.softmax(1), (Z > 0).float()
HOT = F.one_hot(LABELS, C)


def ends_in(*last: nn.Module, outputs: int = C) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, outputs), *last)


class Ends(nn.Module):
    """A network that ends in a function."""

    def __init__(self, function, outputs: int = C) -> None:
        super().__init__()
        self.body, self.function = ends_in(outputs=outputs), function

    def forward(self, inputs):
        return self.function(self.body(inputs))


class InList(nn.Module):
    """A network with a layer in a list, which is not registered."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.last = [nn.Linear(8, 16)], nn.Linear(16, C)

    def forward(self, inputs):
        return self.last(self.layers[0](inputs).relu())


class InPlace(nn.Module):
    """A network that halves its inputs in place."""

    def __init__(self) -> None:
        super().__init__()
        self.body = ends_in()

    def forward(self, inputs):
        inputs *= 0.5
        return self.body(inputs)


def dead() -> nn.Module:
    network = ends_in()
    nn.init.constant_(network[0].bias, -1e3)
    return network


def frozen() -> nn.Module:
    return ends_in().requires_grad_(requires_grad=False)


def sure() -> nn.Module:
    network = ends_in()
    with torch.no_grad():
        network[2].weight.mul_(100)
    return network


def half_used() -> nn.Module:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.left_out = nn.Linear(8, C), nn.Linear(8, C)

        def forward(self, inputs):
            return self.used(inputs)

    return Half()


def ragged(outputs, target):
    return (outputs - target).square().sum().sqrt()


def by_hand(outputs, target):
    return ((outputs - target) ** 2).mean()


def ce_by_hand(outputs, target):
    return F.cross_entropy(outputs, target)


def bce_by_hand(outputs, target):
    return F.binary_cross_entropy_with_logits(outputs, target)


CE, BCE, MSE, NLL = nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss(), nn.MSELoss(), nn.NLLLoss()
UNBALANCED = torch.tensor([0.1, 1.0, 1.0, 1.0, 10.0])
UNEVEN = torch.tensor([0.8, 1.0, 1.0, 1.0, 1.2])
PERCENT = 100 * SOFT
HALF = torch.cat([SOFT[:16], 2 * SOFT[16:]])
HOLE = X.clone()
HOLE[3, 2] = torch.nan
BYTES = torch.randint(256, (N, 3, 8, 8), generator=torch.Generator().manual_seed(0)).float()
IMAGES = nn.Sequential(nn.Flatten(), nn.Linear(192, C))
NANS = YES.where(torch.arange(N)[:, None] != 3, torch.nan)

WRONG = {
    # a softmax too many
    "softmax, ce": (ends_in(nn.Softmax(1)), CE, LABELS, ERROR, "softmax-in-network"),
    "softmax, ce on cpu functions": (
        Ends(partial(torch.softmax, dim=1)), F.cross_entropy, LABELS, ERROR, "softmax-in-network"),
    "softmax, ce by hand": (ends_in(nn.Softmax(1)), ce_by_hand, LABELS, ERROR, "softmax-in-network"),
    "softmax, focal": (ends_in(nn.Softmax(1)), losses.Focal(), LABELS, ERROR, "softmax-in-network"),
    "softmax, kl": (ends_in(nn.Softmax(1)), losses.KLDiv(), SOFT, ERROR, "softmax-in-network"),
    "softmax, soft ce": (ends_in(nn.Softmax(1)), CE, SOFT, ERROR, "softmax-in-network"),
    "softmax, bce": (ends_in(nn.Softmax(1)), BCE, YES, ERROR, "softmax-in-network"),
    "softmax, margin": (ends_in(nn.Softmax(1)), nn.MultiMarginLoss(), LABELS, ERROR, "softmax-in-network"),
    "log-softmax, ce": (ends_in(nn.LogSoftmax(1)), CE, LABELS, WARNING, "log-softmax-in-network"),
    "log-softmax, bce": (ends_in(nn.LogSoftmax(1)), BCE, YES, ERROR, "log-softmax-in-network"),
    "sigmoid, bce": (ends_in(nn.Sigmoid()), BCE, YES, ERROR, "sigmoid-in-network"),
    "sigmoid, one bce": (Ends(torch.sigmoid, 1), BCE, YES[:, :1], ERROR, "sigmoid-in-network"),
    "sigmoid, our bce": (ends_in(nn.Sigmoid()), losses.BCE(), YES, ERROR, "sigmoid-in-network"),
    "sigmoid, bce by hand": (
        ends_in(nn.Sigmoid()), bce_by_hand, YES, ERROR, "sigmoid-in-network"),
    "sigmoid, ce": (ends_in(nn.Sigmoid()), CE, LABELS, ERROR, "sigmoid-in-network"),
    "sigmoid, soft margin": (ends_in(nn.Sigmoid()), nn.SoftMarginLoss(), 2 * YES - 1, ERROR, "sigmoid-in-network"),
    "sigmoid and squeeze": (Ends(lambda z: z.sigmoid().squeeze(1), 1), BCE, YES[:, 0], ERROR, "sigmoid-in-network"),
    "relu, bce": (ends_in(nn.ReLU()), BCE, YES, ERROR, "rectified-logits"),
    "relu, ce": (ends_in(nn.ReLU()), CE, LABELS, WARNING, "rectified-logits"),
    # one too few
    "nll of logits": (ends_in(), NLL, LABELS, ERROR, "no-log-probabilities"),
    "nll of probabilities": (ends_in(nn.Softmax(1)), F.nll_loss, LABELS, ERROR, "no-log-probabilities"),
    "nll by hand": (ends_in(), lambda o, t: -o.gather(1, t[:, None]).mean(), LABELS, ERROR, "no-log-probabilities"),
    "kl of logits": (ends_in(), nn.KLDivLoss(reduction="batchmean"), SOFT, ERROR, "no-log-probabilities"),
    "kl of probabilities": (
        ends_in(nn.Softmax(1)), partial(F.kl_div, reduction="batchmean"), SOFT, ERROR, "no-log-probabilities"),
    "kl, element mean": (ends_in(nn.LogSoftmax(1)), nn.KLDivLoss(), SOFT, WARNING, "kl-element-mean"),
    "kl, targets in logs": (
        ends_in(nn.LogSoftmax(1)), nn.KLDivLoss(reduction="batchmean"), SOFT.log(), ERROR, "kl-targets"),
    "kl, targets not in logs": (
        ends_in(nn.LogSoftmax(1)), nn.KLDivLoss(reduction="batchmean", log_target=True), SOFT, ERROR, "kl-targets"),
    "bce of raw outputs": (ends_in(), nn.BCELoss(), YES, ERROR, "no-probabilities"),
    "bce of outputs that happen to fit": (
        Ends(lambda z: z / 100 + 0.5), nn.BCELoss(), YES, ERROR, "no-probabilities"),
    # shapes
    "column against row, mse": (ends_in(outputs=1), MSE, Z[:, 0], ERROR, "shapes-broadcast"),
    "column against row, l1": (ends_in(outputs=1), nn.L1Loss(), Z[:, 0], ERROR, "shapes-broadcast"),
    "column against row, huber": (ends_in(outputs=1), nn.HuberLoss(), Z[:, 0], ERROR, "shapes-broadcast"),
    "column against row, smooth l1": (ends_in(outputs=1), F.smooth_l1_loss, Z[:, 0], ERROR, "shapes-broadcast"),
    "column against row, poisson": (ends_in(outputs=1), nn.PoissonNLLLoss(), YES[:, 0], ERROR, "shapes-broadcast"),
    "column against row, ours": (ends_in(outputs=1), losses.Huber(), Z[:, 0], ERROR, "shapes-broadcast"),
    "column against row, bce": (ends_in(outputs=1), BCE, YES[:, 0], ERROR, "shapes-broadcast"),
    "column against row, by hand": (ends_in(outputs=1), by_hand, Z[:, 0], ERROR, "shapes-broadcast"),
    "row against column, by hand": (ends_in(nn.Flatten(0), outputs=1), by_hand, Z[:, :1], ERROR, "shapes-broadcast"),
    "outputs against one target": (ends_in(), MSE, Z[:, :1], ERROR, "shapes-broadcast"),
    "outputs against others": (ends_in(), MSE, Z[:, :3], ERROR, "shapes-broadcast"),
    # class indices
    "index out of range": (ends_in(outputs=3), CE, LABELS, ERROR, "index-out-of-range"),
    "counted from 1": (ends_in(), CE, LABELS + 1, ERROR, "index-out-of-range"),
    "counted from -1": (ends_in(nn.LogSoftmax(1)), NLL, LABELS - 1, ERROR, "index-out-of-range"),
    "out of range, focal": (ends_in(), losses.Focal(), LABELS - 1, ERROR, "index-out-of-range"),
    "out of range, margin": (ends_in(), nn.MultiMarginLoss(), LABELS + 1, ERROR, "index-out-of-range"),
    "out of range, by hand": (
        ends_in(), lambda o, t: F.cross_entropy(o * 2, t), LABELS + 1, ERROR, "index-out-of-range"),
    "float index": (ends_in(), CE, LABELS.float(), ERROR, "index-float"),
    "int32 index": (ends_in(), CE, LABELS.int(), ERROR, "index-dtype"),
    "int32 index, ours": (ends_in(), losses.CrossEntropy(), LABELS.int(), ERROR, "index-dtype"),
    "index column": (ends_in(), CE, LABELS[:, None], ERROR, "index-column"),
    "one-hot integers": (ends_in(), CE, HOT, ERROR, "one-hot-integers"),
    "one-hot integers, ours": (ends_in(), losses.CrossEntropy(), HOT, ERROR, "one-hot-integers"),
    "one-hot for nll": (ends_in(nn.LogSoftmax(1)), NLL, HOT.float(), ERROR, "one-hot-for-indices"),
    "one logit": (ends_in(outputs=1), CE, LABELS * 0, ERROR, "one-logit"),
    "one logit, labels of two": (ends_in(outputs=1), CE, LABELS % 2, ERROR, "one-logit"),
    "one logit, ours": (ends_in(outputs=1), losses.CrossEntropy(), YES[:, :1], ERROR, "one-logit"),
    "all ignored": (ends_in(), CE, LABELS * 0 - 100, ERROR, "all-ignored"),
    "all of weight 0": (
        ends_in(), nn.CrossEntropyLoss(torch.tensor([0.0, 1, 1, 1, 1])), LABELS * 0, ERROR, "all-ignored"),
    # probabilities and labels
    "soft targets of percent": (ends_in(), CE, PERCENT, ERROR, "targets-not-probabilities"),
    "some soft targets": (ends_in(), CE, HALF, WARNING, "targets-not-probabilities"),
    "soft targets, kl": (ends_in(), losses.KLDiv(), PERCENT, ERROR, "targets-not-probabilities"),
    "negative soft targets": (ends_in(), CE, SOFT - 0.2, ERROR, "targets-negative"),
    "scores as soft targets": (
        ends_in(nn.LogSoftmax(1)), nn.KLDivLoss(reduction="batchmean"), Z, ERROR, "targets-negative"),
    "±1 for bce": (ends_in(), BCE, 2 * YES - 1, ERROR, "plus-minus-one-targets"),
    "±1 for bce of probabilities": (ends_in(nn.Sigmoid()), nn.BCELoss(), 2 * YES - 1, ERROR, "plus-minus-one-targets"),
    "±1 for our bce": (ends_in(), losses.BCE(), 2 * YES - 1, ERROR, "plus-minus-one-targets"),
    "1 and 2 for bce": (ends_in(), BCE, YES + 1, ERROR, "labels-outside-0-1"),
    "0 and 1 for soft margin": (ends_in(), nn.SoftMarginLoss(), YES, ERROR, "zero-one-targets"),
    "0 and 1 for hinge": (ends_in(), nn.HingeEmbeddingLoss(), YES, ERROR, "zero-one-targets"),
    "standardised counts": (ends_in(), nn.PoissonNLLLoss(), Z, ERROR, "counts-negative"),
    "negative rates": (ends_in(), nn.PoissonNLLLoss(log_input=False), YES, ERROR, "rates-negative"),
    "NaN in targets": (ends_in(), MSE, NANS, ERROR, "targets-not-finite"),
    # values
    "targets of thousands": (ends_in(outputs=1), MSE, 2000 + 300 * Z[:, :1], WARNING, "targets-not-standardised"),
    "targets of thousands, ours": (
        ends_in(outputs=1), losses.MSE(), 300 * Z[:, :1], WARNING, "targets-not-standardised"),
    "targets of thousands, by hand": (ends_in(outputs=1), by_hand, 300 * Z[:, :1], WARNING, "targets-not-standardised"),
    "negative values of a relu": (ends_in(nn.ReLU(), outputs=1), MSE, Z[:, :1], ERROR, "targets-out-of-reach"),
    "large values of a tanh": (ends_in(nn.Tanh()), losses.Huber(), 3 * Z, ERROR, "targets-out-of-reach"),
    "large values of a sigmoid": (Ends(torch.sigmoid), nn.L1Loss(), Z, ERROR, "targets-out-of-reach"),
    # settings
    "weights and smoothing": (
        ends_in(), nn.CrossEntropyLoss(UNBALANCED, label_smoothing=0.1), LABELS, ERROR, "weights-with-smoothing"),
    "mild weights and smoothing": (
        ends_in(), losses.CrossEntropy(UNEVEN, label_smoothing=0.1), LABELS, WARNING, "weights-with-smoothing"),
    "weights and smoothing, function": (
        ends_in(), partial(F.cross_entropy, weight=UNEVEN, label_smoothing=0.1), LABELS, WARNING,
        "weights-with-smoothing"),
    # the network
    "dead": (dead(), CE, LABELS, ERROR, "dead-network"),
    "softmax of one": (Ends(partial(torch.softmax, dim=1), 1), nn.BCELoss(), YES[:, :1], ERROR, "dead-network"),
    "frozen": (frozen(), CE, LABELS, ERROR, "frozen"),
    "detached": (Ends(torch.Tensor.detach), CE, LABELS, ERROR, "detached"),
    "decided": (Ends(lambda z: z.argmax(1).float()), MSE, LABELS.float(), ERROR, "detached"),
    "detached in the loss": (ends_in(), lambda o, t: CE(o.detach(), t), LABELS, ERROR, "detached"),
    "a new tensor in the loss": (
        ends_in(), lambda o, t: torch.tensor(float(CE(o, t)), requires_grad=True), LABELS, ERROR, "detached"),
    "rounded": (Ends(torch.round), MSE, Z, ERROR, "gradient-zero"),
    "partly unused": (half_used(), CE, LABELS, WARNING, "unused-parameters"),
    "mixed examples": (Ends(lambda z: z + z.mean(0)), CE, LABELS, WARNING, "examples-mixed"),
    "random in evaluation": (Ends(F.dropout), CE, LABELS, WARNING, "outputs-random"),
    "layers in a list": (InList(), CE, LABELS, WARNING, "unregistered-parameters"),
    "inputs in place": (InPlace(), CE, LABELS, WARNING, "inputs-changed"),
    "squeezed": (Ends(torch.squeeze), CE, LABELS, WARNING, "squeezed-example"),
    "sure and wrong": (sure(), CE, LABELS, WARNING, "initial-loss"),
    "infinite outputs": (Ends(lambda z: z / 0), CE, LABELS, ERROR, "outputs-not-finite"),
    # the loss
    "a number": (ends_in(), lambda o, t: F.cross_entropy(o, t).item(), LABELS, ERROR, "loss-no-tensor"),
    "not reduced": (ends_in(), nn.CrossEntropyLoss(reduction="none"), LABELS, ERROR, "loss-not-one-number"),
    "NaN": (ends_in(), lambda o, _: (o.abs().sum() * -1).log(), LABELS, ERROR, "loss-not-finite"),
    "a root at 0": (Ends(lambda z: z * 0), lambda o, _: 1 + o.square().sum().sqrt(), Z, ERROR, "gradient-not-finite"),
    "integers for bce": (ends_in(), BCE, HOT, ERROR, "loss-raises"),
    "three arguments": (ends_in(), nn.GaussianNLLLoss(), Z, ERROR, "loss-raises"),
    "weights of other classes": (ends_in(), nn.CrossEntropyLoss(torch.ones(3)), LABELS, ERROR, "loss-raises"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_setup_has_exactly_one_finding(wrong):
    network, loss, target, severity, name = WRONG[wrong]
    found = examine(network, loss, (X, target))
    assert [(finding.severity, finding.name) for finding in found] == [(severity, name)], report(found)
    assert found[0].problem
    assert found[0].why
    assert found[0].fix


def test_interrupted_gradient_names_the_part_that_interrupts_it():
    def new_tensor(outputs, target):
        return torch.tensor(float(CE(outputs, target)), requires_grad=True)

    assert "search the loss for .detach()" in examine(ends_in(), new_tensor, (X, LABELS))[0].fix
    assert "search the network for .detach()" in examine(Ends(torch.Tensor.detach), CE, (X, LABELS))[0].fix

"""Normalised losses: nce and nfl."""

import math

import mpmath as mp
import pytest
import torch
import torch.nn.functional as F
from exact import check, softmax

from losslab.errors import LabError
from losslab.losses import NCE, NFL, CrossEntropy, Focal

Z = 3 * torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 4, 2, 1, 1, 3, 0, 2])


def share(gamma):
    def formula(logits):
        p = softmax(logits)
        # 1 - p is computed as the sum of the others, so that no digits cancel.
        focal = [mp.fsum(p[:k] + p[k + 1 :]) ** mp.mpf(gamma) * -mp.log(p[k]) for k in range(len(p))]
        return focal[0] / mp.fsum(focal)

    return formula


@pytest.mark.parametrize(
    ("loss", "formula"),
    [(NCE(), share(0)), (NFL(0.0), share(0)), (NFL(0.5), share(0.5)), (NFL(5.0), share(5)), (NFL(500.0), share(500))],
)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 5e-4), (torch.float64, 1e-9)])
def test_value_and_gradient_are_exact_at_all_confidences(loss, formula, dtype, rtol):
    check(loss, formula, dtype, rtol)


@pytest.mark.parametrize("loss", [NCE(), NFL(0.5), NFL(5.0)])
def test_loss_at_uniform_logits_of_ten_classes_is_a_tenth_and_all_wrong_classes_have_the_same_gradient(loss):
    outputs = torch.zeros(1, 10, requires_grad=True)
    value = loss(outputs, torch.tensor([3]))
    assert value.item() == pytest.approx(0.1)
    value.backward()
    others = torch.cat([outputs.grad[0, :3], outputs.grad[0, 4:]])
    torch.testing.assert_close(others, torch.full((9,), -outputs.grad[0, 3].item() / 9))


def test_gradient_of_nce_at_uniform_logits_is_1_over_k_log_k():
    # The derivative of log p_y / S by z_y, with S = Σ_k log p_k, is (1 - 1/K) / S, because that of S is 0.
    outputs = torch.zeros(1, 10, requires_grad=True)
    NCE()(outputs, torch.tensor([3])).backward()
    assert outputs.grad[0, 3].item() == pytest.approx(-0.9 / (10 * math.log(10)))


@pytest.mark.parametrize(("ours", "plain"), [(NCE(), CrossEntropy()), (NFL(2.0), Focal(2.0))])
def test_normalised_loss_is_the_loss_divided_by_its_sum_over_classes(ours, plain):
    each = plain.classwise(Z)
    torch.testing.assert_close(ours.per_example(Z, Y), plain.per_example(Z, Y) / each.sum(1))


def test_nfl_with_gamma_0_is_nce():
    torch.testing.assert_close(NFL(0.0).per_example(Z, Y), NCE().per_example(Z, Y))


@pytest.mark.parametrize("loss", [NCE(), NFL(0.5), NFL(5.0)])
def test_normalised_losses_sum_to_1_over_the_classes(loss):
    torch.testing.assert_close(loss.classwise(Z).sum(1), torch.ones(8, dtype=torch.float64))


def published_nfl(outputs, target, gamma):
    """Return the loss as in the code of Ma et al. 2020, which detaches p in (1 - p)^γ."""
    log_p = F.log_softmax(outputs, dim=1)
    focal = -((1 - log_p.detach().exp()) ** gamma) * log_p
    return (focal.gather(1, target[:, None]).squeeze(1) / focal.sum(1)).mean()


def test_detach_focus_gives_the_update_of_the_published_code():
    ours, theirs, true = (Z.clone().requires_grad_() for _ in range(3))
    published_nfl(theirs, Y, 0.5).backward()
    NFL(0.5, detach_focus=True)(ours, Y).backward()
    NFL(0.5)(true, Y).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(NFL(0.5, detach_focus=True)(Z, Y), NFL(0.5)(Z, Y))
    assert torch.autograd.gradcheck(lambda z: NFL(0.5)(z, Y), (true,))
    assert (ours.grad - true.grad).norm() > 0.1 * true.grad.norm()


def test_detach_focus_changes_nothing_at_gamma_0():
    ours, theirs = ((20 * Z).clone().requires_grad_() for _ in range(2))
    NFL(0.0, detach_focus=True).per_example(ours, Z.argmax(1)).sum().backward()
    NCE().per_example(theirs, Z.argmax(1)).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=0)


def test_a_negative_gamma_is_rejected():
    with pytest.raises(LabError, match="must be a number in"):
        NFL(-0.5)

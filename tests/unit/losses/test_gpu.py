"""On a GPU every loss has the values and gradients of the CPU, and does not synchronize with the device."""

import pytest
import torch

from losslab.losses import catalog
from losslab.losses.contract.sample_inputs import sample_outputs, sample_target, with_class_counts

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


def value_and_gradient(loss, outputs, target):
    leaf = outputs.clone().requires_grad_()
    value = loss(leaf, target)
    value.backward()
    return value.detach(), leaf.grad


@pytest.mark.parametrize("name", catalog.names())
def test_a_loss_is_the_same_on_a_gpu_and_never_synchronizes(name):
    loss = with_class_counts(catalog.make(name))
    outputs, target = sample_outputs(loss, 64), sample_target(loss.wants[0], 64)
    value, gradient = value_and_gradient(loss, outputs, target)
    there, outputs, target = loss.cuda(), outputs.cuda(), target.cuda()
    value_and_gradient(there, outputs, target)  # the first call may synchronize to compile or allocate
    torch.cuda.set_sync_debug_mode("error")
    try:
        found, slope = value_and_gradient(there, outputs, target)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.cpu(), value, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(slope.cpu(), gradient, rtol=1e-7, atol=1e-10)

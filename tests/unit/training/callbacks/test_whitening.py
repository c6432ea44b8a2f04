import pytest
import torch
from lightning import Callback

from losslab.errors import LabError
from losslab.training import experiment as lab
from losslab.training.callbacks.whitening import Whitening, second_moments, whitening

QUICK = (
    "model=airbench", "model.widths=[8,8,8]", "data=digits", "data.size=16", "trainer.max_epochs=1", "logger=none",
    "test=false",
)  # fmt: skip


class RecordLayer(Callback):
    """Records the layer before the first step, and whether its bias is trained."""

    def __init__(self):
        self.weight, self.learns = None, []

    def on_train_batch_start(self, trainer, pl_module, *_):
        if self.weight is None:
            self.weight = pl_module.network.whiten.weight.detach().clone()
        if trainer.global_step % trainer.num_training_batches == 0:
            self.learns.append(pl_module.network.whiten.bias.requires_grad)


def run(build, *overrides):
    experiment, record = build(*QUICK, *overrides), RecordLayer()
    experiment.trainer.callbacks.append(record)
    lab.run(experiment)
    return experiment, record


def test_whitened_patches_are_uncorrelated_with_equal_variance():
    random = torch.Generator().manual_seed(0)
    images = torch.nn.functional.avg_pool2d(torch.randn(600, 3, 18, 18, generator=random), 3, 1).permute(0, 2, 3, 1)
    moments = second_moments(images, lambda part: part.permute(0, 3, 1, 2), (2, 2))
    patches = torch.nn.functional.unfold(images.permute(0, 3, 1, 2), 2).transpose(1, 2).flatten(0, 1).double()
    torch.testing.assert_close(moments, patches.T @ patches / len(patches))
    rows = whitening(moments, eps=0.0)
    outputs = patches @ rows[:12].T
    torch.testing.assert_close(outputs.T @ outputs / len(outputs), torch.eye(12).double())
    assert torch.equal(rows[12:], -rows[:12])


def test_layer_is_set_before_the_first_step_and_not_trained(build):
    experiment, record = run(build)
    layer, data = experiment.learner.network.whiten, experiment.data
    moments = second_moments(data.splits["train"].inputs, data.transform, (2, 2))
    torch.testing.assert_close(record.weight, whitening(moments, 5e-4).float().view_as(record.weight))
    assert torch.equal(layer.weight, record.weight)
    assert layer.bias.abs().max() > 0


def test_layer_does_not_depend_on_the_seed(build):
    first, second = run(build)[1].weight, run(build, "seed=1")[1].weight
    assert torch.equal(first, second)


def test_bias_is_trained_for_bias_epochs(build):
    _, record = run(build, "trainer.max_epochs=3", "callbacks.whitening.bias_epochs=2")
    assert record.learns == [True, True, False]


def test_every_rank_gets_the_layer_of_rank_0(build, monkeypatch):
    experiment = build(*QUICK)
    sent = torch.full((24, 12), 0.5)
    monkeypatch.setattr(experiment.trainer.strategy, "broadcast", lambda _: sent)
    lab.run(experiment)
    assert torch.equal(experiment.learner.network.whiten.weight, sent.view(24, 3, 2, 2))


@pytest.mark.parametrize("layer", ["nothing", "blocks.0.0"])
def test_layer_that_cannot_whiten_is_an_error(build, layer):
    experiment = build(*QUICK, f"callbacks.whitening.layer={layer}")
    with pytest.raises(LabError, match=f"layer={layer} is not a convolution of this network with twice as many"):
        lab.run(experiment)


def test_whitening_is_a_callback():
    assert isinstance(Whitening(), Callback)

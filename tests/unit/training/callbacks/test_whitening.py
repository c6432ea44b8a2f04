import pytest
import torch
from lightning import Callback

from losslab.errors import LabError
from losslab.training import experiment as lab
from losslab.training.callbacks.whitening import Whitening, covariance, whitening

QUICK = (
    "model=airbench", "model.widths=[8,8,8]", "data=digits", "data.size=16", "trainer.max_epochs=1", "logger=none",
    "test=false",
)  # fmt: skip


class Look(Callback):
    """Keeps the layer as it was before the first step, and says when its bias learns."""

    def __init__(self):
        self.weight, self.learns = None, []

    def on_train_batch_start(self, trainer, pl_module, *_):
        if self.weight is None:
            self.weight = pl_module.network.whiten.weight.detach().clone()
        if trainer.global_step % trainer.num_training_batches == 0:
            self.learns.append(pl_module.network.whiten.bias.requires_grad)


def run(build, *overrides):
    experiment, look = build(*QUICK, *overrides), Look()
    experiment.trainer.callbacks.append(look)
    lab.run(experiment)
    return experiment, look


def test_patches_come_out_uncorrelated_with_equal_variance():
    random = torch.Generator().manual_seed(0)
    images = torch.nn.functional.avg_pool2d(torch.randn(600, 3, 18, 18, generator=random), 3, 1).permute(0, 2, 3, 1)
    moments = covariance(images, lambda part: part.permute(0, 3, 1, 2), (2, 2))
    patches = torch.nn.functional.unfold(images.permute(0, 3, 1, 2), 2).transpose(1, 2).flatten(0, 1).double()
    torch.testing.assert_close(moments, patches.T @ patches / len(patches))
    rows = whitening(moments, eps=0.0)
    outputs = patches @ rows[:12].T
    torch.testing.assert_close(outputs.T @ outputs / len(outputs), torch.eye(12).double())
    assert torch.equal(rows[12:], -rows[:12])


def test_the_layer_is_set_before_the_first_step_and_does_not_learn(build):
    experiment, look = run(build)
    layer, data = experiment.learner.network.whiten, experiment.data
    moments = covariance(data.splits["train"].inputs, data.transform, (2, 2))
    torch.testing.assert_close(look.weight, whitening(moments, 5e-4).float().view_as(look.weight))
    assert torch.equal(layer.weight, look.weight)
    assert layer.bias.abs().max() > 0


def test_runs_of_one_seed_and_of_two_get_the_same_layer(build):
    first, second = run(build)[1].weight, run(build, "seed=1")[1].weight
    assert torch.equal(first, second)


def test_the_bias_learns_for_some_epochs_only(build):
    _, look = run(build, "trainer.max_epochs=3", "callbacks.whitening.bias_epochs=2")
    assert look.learns == [True, True, False]


def test_every_process_gets_the_layer_of_the_first(build, monkeypatch):
    experiment = build(*QUICK)
    sent = torch.full((24, 12), 0.5)
    monkeypatch.setattr(experiment.trainer.strategy, "broadcast", lambda _: sent)
    lab.run(experiment)
    assert torch.equal(experiment.learner.network.whiten.weight, sent.view(24, 3, 2, 2))


@pytest.mark.parametrize("layer", ["nothing", "blocks.0.0"])
def test_a_layer_that_cannot_whiten_is_refused(build, layer):
    experiment = build(*QUICK, f"callbacks.whitening.layer={layer}")
    with pytest.raises(LabError, match=f"layer={layer} names no convolution that can whiten"):
        lab.run(experiment)


def test_is_a_callback_like_any_other():
    assert isinstance(Whitening(), Callback)

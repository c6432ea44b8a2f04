import logging

import pytest
import torch
from lightning import Callback
from torch import nn

from losslab.training.callbacks.gradient_norms import AsyncHostCopy, GradientNorms, layer_norms

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("gpu", marks=[pytest.mark.gpu, GPU])]


def test_gradient_norm_of_a_layer_covers_all_its_parameters():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    network(torch.ones(2, 3)).sum().backward()
    norms = layer_norms(network)
    assert list(norms) == ["0", "2"]
    norm, count = norms["0"]
    flat = torch.cat([p.grad.flatten() for p in network[0].parameters()])
    assert norm.item() == pytest.approx(flat.norm().item(), rel=1e-6)
    assert count == 16


def test_vanishing_gradients_are_reported_with_their_layer(train, caplog):
    with caplog.at_level(logging.WARNING):
        train(
            "model=mlp",
            "data=diabetes",
            "model.hidden=[16,16,16,16,16,16,16,16]",
            "model.activation=sigmoid",
            "trainer.max_epochs=1",
        )
    assert "gradients vanish: at step 1 the gradient of layer 1 is" in caplog.text


def test_exploding_gradients_are_reported_with_their_layer(build, caplog):
    experiment = build(
        "model=mlp", "data=diabetes", "trainer.max_epochs=1", "logger=none", "callbacks.finite_guard=null"
    )
    experiment.learner.network[5].weight.data.mul_(1e6)
    with caplog.at_level(logging.WARNING):
        experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    assert "gradients explode: at step 1 the gradient of layer 1 is" in caplog.text


def test_convergence_is_not_reported_as_vanishing(train, caplog):
    with caplog.at_level(logging.WARNING):
        _, results = train(
            "model=mlp", "model.activation=none", "model.hidden=[4]", "data=line", "optimizer=sgd", "optimizer.lr=0.02",
            "trainer.precision=64-true", "trainer.max_epochs=600", "trainer.check_val_every_n_epoch=100",
        )  # fmt: skip
    assert results["train/loss"] < 1e-6
    assert "gradients" not in caplog.text


def test_infinite_gradient_is_not_reported_as_exploding(build, caplog):
    experiment = build(
        "model=mlp",
        "data=diabetes",
        "trainer.max_epochs=1",
        "callbacks.finite_guard=null",
        "callbacks.checkpoints=null",
    )
    experiment.learner.on_after_backward = lambda: experiment.learner.network[1].weight.grad.fill_(torch.inf)
    with caplog.at_level(logging.WARNING):
        experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    assert "gradients" not in caplog.text


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, GPU])])
def test_async_host_copy_is_not_changed_by_later_writes_to_the_tensor(device):
    values = torch.arange(5.0, device=device)
    copied = AsyncHostCopy(values)
    values.zero_()
    assert copied.read().tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("device", DEVICES)
def test_gradient_norms_are_logged_once_with_their_step(build, device, monkeypatch):
    experiment = build(
        f"trainer={device}", "model=mlp", "data=diabetes", "trainer.max_epochs=2", "trainer.log_every_n_steps=3",
        "logger=none",
    )  # fmt: skip
    reported = []
    monkeypatch.setattr(GradientNorms, "_compare", lambda _, norms, step: reported.append((step, len(norms))))
    experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    assert reported == [(step, 3) for step in range(0, experiment.trainer.global_step, 3)]


class Unwaiting(Callback):
    """Raises an error if anything waits for the GPU between the first and the last batch of an epoch."""

    batches = 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):  # noqa: ARG002
        torch.cuda.set_sync_debug_mode("default" if trainer.is_last_batch else "error")
        self.batches += batch_idx > 0


@pytest.mark.gpu
@GPU
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "mse"])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_training_never_waits_for_the_gpu_within_an_epoch(build, precision, loss, optimizer):
    experiment = build(
        "trainer=gpu", "model=cifar_cnn", "data=digits", "data.crop=2", "data.cutout=4", f"loss={loss}",
        f"optimizer={optimizer}", f"trainer.precision={precision}", "trainer.max_epochs=2",
        "trainer.log_every_n_steps=5", "trainer.gradient_clip_val=1",
    )  # fmt: skip
    watch = Unwaiting()
    experiment.trainer.callbacks.append(watch)
    try:
        experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watch.batches == 2 * (experiment.trainer.num_training_batches - 1) > 50

import pytest
import torch
from lightning import Callback

from losslab.training.callbacks.async_copy import AsyncHostCopy
from losslab.training.callbacks.gradient_norms import GradientNorms

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("gpu", marks=[pytest.mark.gpu, GPU])]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, GPU])])
def test_copy_is_not_changed_by_later_writes(device):
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
    """From the first batch of an epoch to its last, whatever waits for the GPU is an error."""

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
def test_training_never_synchronizes_within_an_epoch(build, precision, loss, optimizer):
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

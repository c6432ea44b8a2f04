"""Mixup and cutmix: torchvision's, keyed by (seed, epoch, batch), the same for one process or several."""

import pytest
import torch
from torchvision.transforms import v2

from losslab.data import random_keys
from losslab.errors import LabError

COMMON = ("model=cifar_cnn", "data=digits", "data.size=16", "trainer.max_epochs=1", "logger=none")


def batches(experiment, epoch=0, rank=0, world_size=1):
    experiment.data.setup()
    loader = experiment.data.train_dataloader()
    if world_size > 1:
        loader = type(loader)(
            loader.examples, loader.batch_size, seed=0, shuffle=True, transform=loader.transform, mix=loader.mix,
            rank=rank, world_size=world_size,
        )  # fmt: skip
    loader.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize(("name", "transform"), [("mixup", v2.MixUp(alpha=0.2)), ("cutmix", v2.CutMix(alpha=1.0))])
def test_a_batch_is_mixed_as_torchvision_does(build, name, transform):
    plain = batches(build(*COMMON))[2]
    mixed = batches(build(*COMMON, f"mix={name}"))[2]
    torch.default_generator.manual_seed(random_keys.key(0, random_keys.MIXING, 0, 2))
    inputs, target = transform(plain.inputs, torch.eye(10)[plain.target])
    torch.testing.assert_close(mixed.inputs, inputs)
    torch.testing.assert_close(mixed.target, target)
    assert torch.equal(mixed.truth, plain.truth)
    torch.testing.assert_close(mixed.target.sum(1), torch.ones(len(target)))


def test_each_batch_of_each_epoch_is_mixed_by_its_own_draws_and_always_the_same(build):
    experiment = build(*COMMON, "mix=mixup")
    state = torch.get_rng_state()
    first, again, later = batches(experiment), batches(experiment), batches(experiment, epoch=1)
    assert torch.equal(torch.get_rng_state(), state), "the global generator must not be touched"
    assert all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.target, b.target) for a, b in zip(first, again, strict=True)
    )
    shares = {float(batch.target.max(1).values.min()) for batch in (*first, *later)}
    assert len(shares) > len(first)


def test_processes_share_the_mixed_batches_of_one(build):
    experiment = build(*COMMON, "mix=cutmix")
    whole = batches(experiment)
    shares = [batches(experiment, rank=rank, world_size=2) for rank in range(2)]
    for number, batch in enumerate(whole):
        for rank in range(2):
            assert torch.equal(shares[rank][number].inputs, batch.inputs[rank::2])
            assert torch.equal(shares[rank][number].target, batch.target[rank::2])


def test_validation_is_not_mixed(build):
    experiment = build(*COMMON, "mix=mixup")
    experiment.data.setup()
    for batch in experiment.data.val_dataloader():
        assert torch.equal(batch.target, torch.eye(10)[batch.truth])


@pytest.mark.parametrize(
    "loss", ["cross_entropy", *(pytest.param(loss, marks=pytest.mark.slow) for loss in ("kl_div", "focal", "bce"))]
)
def test_a_loss_on_probabilities_learns_from_mixed_batches(train, loss):
    _, results = train("model=mlp", "data=digits", "trainer.max_epochs=4", "logger=none", f"loss={loss}", "mix=mixup")
    assert results["test/accuracy"] > 0.6


def test_what_has_no_images_is_not_mixed(build):
    with pytest.raises(LabError, match="these data have none"):
        build("model=linear", "mix=mixup")
    with pytest.raises(LabError, match=r"mix\.alpha must be a number above 0, got 0"):
        build(*COMMON, "mix=mixup", "mix.alpha=0")

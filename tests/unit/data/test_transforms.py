"""Augmentation, normalisation, MixUp and CutMix, and random shifts."""

import hashlib
from collections import Counter

import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from losslab.data import random_keys
from losslab.data.transforms import Augment, Normalise, RandomShift
from losslab.errors import LabError
from losslab.training import experiment


def pattern(*shape: int) -> torch.Tensor:
    """A deterministic uint8 pattern without 0 in which no two windows are equal."""
    return (torch.arange(torch.Size(shape).numel()) * 7919 % 251 + 1).byte().view(shape)


IMAGES = pattern(64, 12, 12, 3)


def draws(augment: Augment, seed: int = 0, count: int = 64, height: int = 12, width: int = 12) -> torch.Tensor:
    return augment.draw(count, height, width, torch.Generator().manual_seed(seed))


def test_default_augmentation_changes_nothing():
    augment = Augment()
    assert torch.equal(augment(IMAGES, draws(augment)), IMAGES)


@pytest.mark.parametrize(
    ("count", "height", "width", "channels"), [(64, 12, 12, 3), (9, 32, 32, 3), (7, 5, 11, 1), (1, 8, 5, 3)]
)
@pytest.mark.parametrize("crop", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_crop_and_flip_equal_torchvisions(count, height, width, channels, crop, flip):
    images = pattern(count, height, width, channels)
    augment = Augment(crop, flip=flip)
    chosen = draws(augment, 0, count, height, width)
    ours = augment(images, chosen)
    for image, (top, left, flipped, _, _), got in zip(images, chosen.tolist(), ours, strict=True):
        expected = tv.crop(tv.pad(image.permute(2, 0, 1), [crop]), top, left, height, width)
        expected = tv.horizontal_flip(expected) if flipped else expected
        assert torch.equal(got.permute(2, 0, 1), expected)


def test_an_empty_shard_can_be_augmented():
    augment = Augment(crop=4, flip=True, cutout=3)
    assert augment(IMAGES[:0], draws(augment)[:0]).shape == (0, 12, 12, 3)


def test_crop_and_flip_are_distributed_as_in_torchvision():
    padding, n = 2, 6_000
    image = pattern(32, 32, 3)
    # All possible results: 5 × 5 windows, each plain and mirrored.
    padded = tv.pad(image.permute(2, 0, 1), [padding])
    windows = [tv.crop(padded, top, left, 32, 32) for top in range(5) for left in range(5)]
    possible = [view.permute(1, 2, 0) for window in windows for view in (window, tv.horizontal_flip(window))]
    names = {view.numpy().tobytes(): number for number, view in enumerate(possible)}
    assert len(names) == 50

    augment = Augment(crop=padding, flip=True)
    made = augment(image.expand(n, 32, 32, 3).contiguous(), draws(augment, 0, n, 32, 32))
    ours = Counter(names[view.numpy().tobytes()] for view in made)

    torch.manual_seed(0)  # torchvision draws from the global generator
    theirs_of = transforms.Compose([transforms.RandomCrop(32, padding=padding), transforms.RandomHorizontalFlip()])
    picture = Image.fromarray(image.numpy())
    theirs = Counter(names[theirs_of(picture).tobytes()] for _ in range(n))

    assert set(ours) == set(theirs) == set(range(50))
    counts = [[frequencies[number] for number in range(50)] for frequencies in (ours, theirs)]
    assert stats.chi2_contingency(counts).pvalue > 0.01
    assert stats.chisquare(counts[0]).pvalue > 0.01, "all fifty are equally likely"


def test_draws_are_independent():
    chosen = Augment(crop=1, flip=True).draw(9_000, 12, 12, torch.Generator().manual_seed(0))
    place = chosen[:, 0] * 6 + chosen[:, 1] * 2 + chosen[:, 2]
    pairs = torch.bincount(place[:-1] * 18 + place[1:], minlength=18 * 18).view(18, 18)
    assert stats.chi2_contingency(pairs.numpy()).pvalue > 0.01


def test_augmentation_is_a_function_of_the_seed():
    augment = Augment(crop=4, flip=True, cutout=5)
    assert torch.equal(augment(IMAGES, draws(augment, 1)), augment(IMAGES, draws(augment, 1)))
    assert not torch.equal(augment(IMAGES, draws(augment, 1)), augment(IMAGES, draws(augment, 2)))


def test_the_augmentation_of_one_key_is_pinned():
    augment = Augment(crop=4, flip=True, cutout=5)
    chosen = augment.draw(64, 12, 12, random_keys.generator(7, random_keys.AUGMENTATION, 3, 11))
    assert chosen[:3].tolist() == [[2, 0, 0, 0, 4], [1, 5, 0, 3, 10], [0, 2, 0, 3, 8]]
    digest = hashlib.sha256(augment(IMAGES, chosen).numpy().tobytes()).hexdigest()
    assert digest == "cbdc8129f9c8a6c052f3e22f0c2e1be5814ef1032c99e00d7f7da6e116a597a3"


def test_cutout_greys_a_square_around_its_centre():
    augment = Augment(cutout=4)
    chosen = draws(augment)
    ours = augment(IMAGES, chosen)
    for image, (_, _, _, y, x), got in zip(IMAGES, chosen.tolist(), ours, strict=True):
        expected = image.clone()
        expected[max(0, y - 2) : y + 2, max(0, x - 2) : x + 2] = 127
        assert torch.equal(got, expected)


def test_a_negative_crop_is_refused():
    with pytest.raises(LabError, match="0 or more"):
        Augment(crop=-1)


def test_reflect_padding_equals_torchs():
    augment = Augment(crop=3, reflect=True)
    chosen = draws(augment)
    padded = torch.nn.functional.pad(IMAGES.permute(0, 3, 1, 2).float(), (3, 3, 3, 3), mode="reflect").byte()
    for image, (top, left, *_), got in zip(padded, chosen.tolist(), augment(IMAGES, chosen), strict=True):
        assert torch.equal(got.permute(2, 0, 1), image[:, top : top + 12, left : left + 12])


@pytest.mark.parametrize("options", [{"crop": 12}, {"crop": 12, "reflect": True}, {"cutout": 12}])
def test_an_augmentation_as_large_as_the_image_is_refused(options):
    name = next(iter(options))
    with pytest.raises(LabError, match=rf"^data.{name}=12 can erase whole images of 12×16 pixels: .* 11 or less$"):
        Augment(**options).check(12, 16)
    with pytest.raises(LabError, match=rf"data.{name}=12 can erase"):
        draws(Augment(**options))
    Augment(**options | {name: 11}).check(12, 16)


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ("digits", ["data.size=8", "data.crop=8"]),
        ("digits", ["data.cutout=40"]),
        ("cifar10", ["data.cutout=32"]),
        ("cifar10", ["data.crop=32"]),
    ],
)
def test_an_augmentation_as_large_as_the_images_is_refused_before_the_data_are_read(build, tmp_path, data, options):
    made = build("model=mlp", f"data={data}", "loss=cross_entropy", f"run_dir={tmp_path / 'run'}", *options)
    with pytest.raises(LabError, match=r"can erase whole images of \d+×\d+ pixels: set it to"):
        experiment.run(made)
    assert not made.data.splits
    assert not (tmp_path / "run").exists()


def test_alternate_without_flip_is_refused():
    with pytest.raises(LabError, match="set flip=true too"):
        Augment(alternate=True)


def test_normalised_images_are_channels_last_with_mean_0_and_std_1():
    images = torch.randint(256, (50, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = images.float()
    batch = Normalise(pixels.mean((0, 1, 2)), pixels.std((0, 1, 2)))(images)
    assert batch.shape == (50, 3, 8, 8)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.std((0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)


def test_normalisation_statistics_are_exact_and_the_same_for_any_order_of_images():
    pixels = torch.randint(256, (700, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normalise = Normalise.from_images(pixels)
    std, mean = torch.std_mean(pixels.double(), dim=(0, 1, 2), correction=0)
    torch.testing.assert_close(normalise.scale, 1 / std, rtol=1e-12, atol=0)
    torch.testing.assert_close(normalise.shift, -mean / std, rtol=1e-12, atol=0)
    again = Normalise.from_images(pixels[torch.randperm(700, generator=torch.Generator().manual_seed(0))])
    assert torch.equal(again.scale, normalise.scale)
    assert torch.equal(again.shift, normalise.shift)


def test_a_constant_channel_becomes_0():
    white = torch.full((300, 4, 4, 3), 255, dtype=torch.uint8)
    assert torch.equal(Normalise.from_images(white)(white), torch.zeros(300, 3, 4, 4))


MIX_RUN = ("model=cifar_cnn", "data=digits", "data.size=16", "trainer.max_epochs=1", "logger=none")


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
def test_a_mixed_batch_equals_torchvisions(build, name, transform):
    plain = batches(build(*MIX_RUN))[2]
    mixed = batches(build(*MIX_RUN, f"mix={name}"))[2]
    torch.default_generator.manual_seed(random_keys.key(0, random_keys.MIXING, 0, 2))
    inputs, target = transform(plain.inputs, torch.eye(10)[plain.target])
    torch.testing.assert_close(mixed.inputs, inputs)
    torch.testing.assert_close(mixed.target, target)
    assert torch.equal(mixed.truth, plain.truth)
    torch.testing.assert_close(mixed.target.sum(1), torch.ones(len(target)))


def test_mixing_is_a_function_of_epoch_and_batch(build):
    experiment = build(*MIX_RUN, "mix=mixup")
    state = torch.get_rng_state()
    first, again, later = batches(experiment), batches(experiment), batches(experiment, epoch=1)
    assert torch.equal(torch.get_rng_state(), state), "the global generator must not be touched"
    assert all(
        torch.equal(a.inputs, b.inputs) and torch.equal(a.target, b.target) for a, b in zip(first, again, strict=True)
    )
    shares = {float(batch.target.max(1).values.min()) for batch in (*first, *later)}
    assert len(shares) > len(first)


def test_ranks_share_the_mixed_batches_of_one_process(build):
    experiment = build(*MIX_RUN, "mix=cutmix")
    whole = batches(experiment)
    shares = [batches(experiment, rank=rank, world_size=2) for rank in range(2)]
    for number, batch in enumerate(whole):
        for rank in range(2):
            assert torch.equal(shares[rank][number].inputs, batch.inputs[rank::2])
            assert torch.equal(shares[rank][number].target, batch.target[rank::2])


def test_validation_is_not_mixed(build):
    experiment = build(*MIX_RUN, "mix=mixup")
    experiment.data.setup()
    for batch in experiment.data.val_dataloader():
        assert torch.equal(batch.target, torch.eye(10)[batch.truth])


@pytest.mark.parametrize(
    "loss", ["cross_entropy", *(pytest.param(loss, marks=pytest.mark.slow) for loss in ("kl_div", "focal", "bce"))]
)
def test_a_loss_on_probabilities_learns_from_mixed_batches(train, loss):
    _, results = train("model=mlp", "data=digits", "trainer.max_epochs=4", "logger=none", f"loss={loss}", "mix=mixup")
    assert results["test/accuracy"] > 0.6


def test_mixing_needs_images_and_a_positive_alpha(build):
    with pytest.raises(LabError, match="mix= needs images with class indices"):
        build("model=linear", "mix=mixup")
    with pytest.raises(LabError, match=r"mix\.alpha must be a number from 1e-6 to 1e6, got 0"):
        build(*MIX_RUN, "mix=mixup", "mix.alpha=0")
    with pytest.raises(LabError, match=r"mix\.alpha must be a number from 1e-6 to 1e6, got 1e-300"):
        build(*MIX_RUN, "mix=mixup", "mix.alpha=1e-300")


FLOAT_IMAGES = torch.arange(2 * 3 * 6 * 5, dtype=torch.float32).view(2, 3, 6, 5)


def test_a_shift_of_0_pixels_changes_nothing():
    torch.testing.assert_close(RandomShift(0)(FLOAT_IMAGES), FLOAT_IMAGES)


def test_shifted_images_are_the_windows_of_the_reflected_image():
    images = FLOAT_IMAGES[:1].expand(200, -1, -1, -1)
    moved = RandomShift(2)(images)
    padded = torch.nn.functional.pad(images[:1], (2, 2, 2, 2), mode="reflect")[0]
    windows = [padded[:, y : y + 6, x : x + 5] for y in range(5) for x in range(5)]
    places = [next(i for i, window in enumerate(windows) if torch.equal(image, window)) for image in moved]
    assert set(places) == set(range(25))


def test_flip_mirrors_half_of_the_images():
    images = FLOAT_IMAGES[:1].expand(400, -1, -1, -1)
    moved = RandomShift(0, flip=True)(images)
    mirrored = (moved == images.flip(3)).flatten(1).all(1)
    assert torch.equal(moved[~mirrored], images[~mirrored])
    assert 120 < mirrored.sum() < 280


def test_views_are_a_function_of_torchs_seed():
    torch.manual_seed(3)
    first = RandomShift(2, flip=True)(FLOAT_IMAGES)
    torch.manual_seed(3)
    assert torch.equal(RandomShift(2, flip=True)(FLOAT_IMAGES), first)
    assert not torch.equal(RandomShift(2, flip=True)(FLOAT_IMAGES), first)


def test_a_view_as_large_as_the_images_is_refused_before_the_data_are_read(build, tmp_path):
    options = ("loss=gjs", "data.size=2", f"run_dir={tmp_path / 'run'}")
    made = build("model=mlp", "data=digits", *options)
    with pytest.raises(LabError, match=r"more than 2 pixels a side, got inputs of shape \(3, 2, 2\): choose another"):
        experiment.run(made)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("inputs", [torch.zeros(3, 10), torch.zeros(3, 1, 2, 2)])
def test_shift_refuses_inputs_that_are_not_images_or_too_small(inputs):
    with pytest.raises(LabError, match="RandomShift needs images"):
        RandomShift(2)(inputs)


def test_a_negative_shift_is_refused():
    with pytest.raises(LabError, match="0 or more"):
        RandomShift(-1)

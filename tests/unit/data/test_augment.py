import hashlib
from collections import Counter

import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision import transforms
from torchvision.transforms.v2 import functional as tv

from losslab.data import random_keys
from losslab.data.transforms import Augment
from losslab.errors import LabError


def pattern(*shape: int) -> torch.Tensor:
    """Bytes without 0, in which no two windows are alike; the same on any machine."""
    return (torch.arange(torch.Size(shape).numel()) * 7919 % 251 + 1).byte().view(shape)


IMAGES = pattern(64, 12, 12, 3)


def draws(augment: Augment, seed: int = 0, count: int = 64, height: int = 12, width: int = 12) -> torch.Tensor:
    return augment.draw(count, height, width, torch.Generator().manual_seed(seed))


def test_nothing_asked_for_changes_nothing():
    augment = Augment()
    assert torch.equal(augment(IMAGES, draws(augment)), IMAGES)


@pytest.mark.parametrize(
    ("count", "height", "width", "channels"), [(64, 12, 12, 3), (9, 32, 32, 3), (7, 5, 11, 1), (1, 8, 3, 3)]
)
@pytest.mark.parametrize("crop", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_each_image_is_the_window_and_mirror_image_that_torchvision_would_cut(
    count, height, width, channels, crop, flip
):
    images = pattern(count, height, width, channels)
    augment = Augment(crop, flip=flip)
    chosen = draws(augment, 0, count, height, width)
    ours = augment(images, chosen)
    for image, (top, left, flipped, _, _), got in zip(images, chosen.tolist(), ours, strict=True):
        expected = tv.crop(tv.pad(image.permute(2, 0, 1), [crop]), top, left, height, width)
        expected = tv.horizontal_flip(expected) if flipped else expected
        assert torch.equal(got.permute(2, 0, 1), expected)


def test_a_rank_without_a_share_of_the_batch_has_nothing_to_augment():
    augment = Augment(crop=4, flip=True, cutout=3)
    assert augment(IMAGES[:0], draws(augment)[:0]).shape == (0, 12, 12, 3)


def test_an_image_is_turned_into_the_same_set_of_images_and_as_often_as_by_torchvision():
    padding, n = 2, 6_000
    image = pattern(32, 32, 3)
    # All that can come of it: 5 × 5 windows, each as it is and mirrored.
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


def test_what_is_drawn_for_one_image_says_nothing_of_another_or_of_itself():
    chosen = Augment(crop=1, flip=True).draw(9_000, 12, 12, torch.Generator().manual_seed(0))
    place = chosen[:, 0] * 6 + chosen[:, 1] * 2 + chosen[:, 2]
    pairs = torch.bincount(place[:-1] * 18 + place[1:], minlength=18 * 18).view(18, 18)
    assert stats.chi2_contingency(pairs.numpy()).pvalue > 0.01


def test_a_key_gives_its_result_again_and_another_key_another():
    augment = Augment(crop=4, flip=True, cutout=5)
    assert torch.equal(augment(IMAGES, draws(augment, 1)), augment(IMAGES, draws(augment, 1)))
    assert not torch.equal(augment(IMAGES, draws(augment, 1)), augment(IMAGES, draws(augment, 2)))


def test_a_key_gives_this_result_on_every_machine_and_in_every_version():
    augment = Augment(crop=4, flip=True, cutout=5)
    chosen = augment.draw(64, 12, 12, random_keys.generator(7, random_keys.AUGMENTATION, 3, 11))
    assert chosen[:3].tolist() == [[2, 0, 0, 0, 4], [1, 5, 0, 3, 10], [0, 2, 0, 3, 8]]
    digest = hashlib.sha256(augment(IMAGES, chosen).numpy().tobytes()).hexdigest()
    assert digest == "cbdc8129f9c8a6c052f3e22f0c2e1be5814ef1032c99e00d7f7da6e116a597a3"


def test_cutout_greys_a_square_around_a_centre_anywhere_in_the_image():
    augment = Augment(cutout=4)
    chosen = draws(augment)
    ours = augment(IMAGES, chosen)
    for image, (_, _, _, y, x), got in zip(IMAGES, chosen.tolist(), ours, strict=True):
        expected = image.clone()
        expected[max(0, y - 2) : y + 2, max(0, x - 2) : x + 2] = 127
        assert torch.equal(got, expected)


def test_a_negative_size_is_refused():
    with pytest.raises(LabError, match="0 or more"):
        Augment(crop=-1)


def test_a_reflecting_border_is_torchs():
    augment = Augment(crop=3, reflect=True)
    chosen = draws(augment)
    padded = torch.nn.functional.pad(IMAGES.permute(0, 3, 1, 2).float(), (3, 3, 3, 3), mode="reflect").byte()
    for image, (top, left, *_), got in zip(padded, chosen.tolist(), augment(IMAGES, chosen), strict=True):
        assert torch.equal(got.permute(2, 0, 1), image[:, top : top + 12, left : left + 12])


def test_a_border_that_the_image_is_too_small_to_reflect_is_refused():
    augment = Augment(crop=12, reflect=True)
    with pytest.raises(LabError, match="smaller than the image"):
        augment(IMAGES, draws(augment))


def test_alternating_without_flipping_is_refused():
    with pytest.raises(LabError, match="set flip=true too"):
        Augment(alternate=True)

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as tv

from losslab.data.augment import Augment
from losslab.errors import LabError

IMAGES = torch.randint(1, 256, (64, 12, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def draws(augment: Augment, seed: int = 0) -> torch.Tensor:
    return augment.draw(len(IMAGES), 12, 12, torch.Generator().manual_seed(seed))


def test_nothing_asked_for_changes_nothing():
    augment = Augment()
    assert torch.equal(augment(IMAGES, draws(augment)), IMAGES)


def test_each_image_is_the_window_and_mirror_image_that_torchvision_would_cut():
    augment = Augment(crop=4, flip=True)
    chosen = draws(augment)
    ours = augment(IMAGES, chosen)
    for image, (top, left, flipped, _, _), got in zip(IMAGES, chosen.tolist(), ours, strict=True):
        expected = tv.crop(tv.pad(image.permute(2, 0, 1), [4]), top, left, 12, 12)
        expected = tv.horizontal_flip(expected) if flipped else expected
        assert torch.equal(got.permute(2, 0, 1), expected)


def test_windows_and_flips_are_as_frequent_as_torchvisions():
    torch.manual_seed(0)
    n, padding = 20_000, 1
    chosen = Augment(crop=padding, flip=True).draw(n, 12, 12, torch.Generator().manual_seed(0))
    ours = torch.bincount(chosen[:, 0] * 6 + chosen[:, 1] * 2 + chosen[:, 2], minlength=18) / n
    crop = v2.RandomCrop(12, padding=padding)
    frame = [crop.make_params([torch.zeros(3, 12, 12)]) for _ in range(n)]
    theirs = torch.tensor([frame_["top"] * 3 + frame_["left"] for frame_ in frame])
    theirs = torch.bincount(theirs, minlength=9).repeat_interleave(2) / (2 * n)
    # The standard deviation of a frequency of 1/18 over 20,000 draws is 0.0016.
    torch.testing.assert_close(ours, theirs, atol=0.008, rtol=0)


def test_a_key_gives_its_result_again_and_another_key_another():
    augment = Augment(crop=4, flip=True, cutout=5)
    assert torch.equal(augment(IMAGES, draws(augment, 1)), augment(IMAGES, draws(augment, 1)))
    assert not torch.equal(augment(IMAGES, draws(augment, 1)), augment(IMAGES, draws(augment, 2)))


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

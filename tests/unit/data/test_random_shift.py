import pytest
import torch

from losslab.data.transforms import RandomShift
from losslab.errors import LabError

IMAGES = torch.arange(2 * 3 * 6 * 5, dtype=torch.float32).view(2, 3, 6, 5)


def test_a_shift_of_0_pixels_changes_nothing():
    torch.testing.assert_close(RandomShift(0)(IMAGES), IMAGES)


def test_each_image_is_a_window_of_itself_continued_by_its_mirror_image():
    images = IMAGES[:1].expand(200, -1, -1, -1)
    moved = RandomShift(2)(images)
    padded = torch.nn.functional.pad(images[:1], (2, 2, 2, 2), mode="reflect")[0]
    windows = [padded[:, y : y + 6, x : x + 5] for y in range(5) for x in range(5)]
    places = [next(i for i, window in enumerate(windows) if torch.equal(image, window)) for image in moved]
    assert set(places) == set(range(25))


def test_half_of_the_images_are_mirrored_if_asked():
    images = IMAGES[:1].expand(400, -1, -1, -1)
    moved = RandomShift(0, flip=True)(images)
    mirrored = (moved == images.flip(3)).flatten(1).all(1)
    assert torch.equal(moved[~mirrored], images[~mirrored])
    assert 120 < mirrored.sum() < 280


def test_torchs_seed_decides_the_views():
    torch.manual_seed(3)
    first = RandomShift(2, flip=True)(IMAGES)
    torch.manual_seed(3)
    assert torch.equal(RandomShift(2, flip=True)(IMAGES), first)
    assert not torch.equal(RandomShift(2, flip=True)(IMAGES), first)


@pytest.mark.parametrize("inputs", [torch.zeros(3, 10), torch.zeros(3, 1, 2, 2)])
def test_inputs_that_cannot_be_moved_are_refused(inputs):
    with pytest.raises(LabError, match="moves images"):
        RandomShift(2)(inputs)


def test_a_negative_shift_is_refused():
    with pytest.raises(LabError, match="0 or more"):
        RandomShift(-1)

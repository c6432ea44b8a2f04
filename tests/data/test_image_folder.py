import pytest
import torch
from PIL import Image

from losslab.data.image_folder import ImageFolder
from losslab.errors import LabError

COLOURS = {"blue": (0, 0, 255), "red": (255, 0, 0)}


@pytest.fixture
def folder(tmp_path):
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        for name, colour in COLOURS.items():
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (40 + number, 20), colour).save(tmp_path / split / name / f"{number}.png")
    return tmp_path


def test_reads_resizes_and_labels_by_folder(folder):
    data = ImageFolder(folder, size=16)
    data.setup()
    assert data.facts.class_names == ("blue", "red")
    assert data.facts.input_shape == (3, 16, 16)
    test = data.splits["test"]
    assert test.inputs.shape == (6, 16, 16, 3)
    assert test.target.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.inputs[0, 0, 0].tolist() == [0, 0, 255]


def test_grey_and_transparent_images_become_colour(folder):
    Image.new("L", (20, 20), 100).save(folder / "test" / "red" / "grey.png")
    Image.new("RGBA", (20, 20), (1, 2, 3, 4)).save(folder / "test" / "red" / "rgba.png")
    data = ImageFolder(folder, size=8)
    data.setup()
    assert len(data.splits["test"].inputs) == 8


def test_normalisation_is_that_of_all_training_pixels(folder):
    data = ImageFolder(folder, size=8, crop=0, flip=False, batch_size=None)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    torch.testing.assert_close(batch.inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "train").rename(f / "training"), "train is no folder"),
        (lambda f: (f / "test" / "green").mkdir(), "green has no counterpart"),
        (lambda f: (f / "test" / "red" / "0.png").write_bytes(b"no image"), "cannot read the image"),
        (lambda f: [p.unlink() for p in (f / "val").rglob("*.png")], "no images in"),
    ],
)
def test_what_does_not_fit_is_named(folder, damage, message):
    damage(folder)
    with pytest.raises(LabError, match=message):
        ImageFolder(folder).setup()

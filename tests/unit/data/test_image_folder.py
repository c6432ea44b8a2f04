import numpy as np
import pytest
import torch
from PIL import Image

from losslab.data import image_folder
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


def test_images_are_read_resized_and_labelled_by_folder(folder):
    data = ImageFolder(folder, size=16)
    data.setup()
    assert data.spec.class_names == ("blue", "red")
    assert data.spec.input_shape == (3, 16, 16)
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


def test_normalisation_uses_all_training_pixels(folder):
    data = ImageFolder(folder, size=8, crop=0, flip=False, batch_size=None)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    torch.testing.assert_close(batch.inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "train").rename(f / "training"), "train is not a folder"),
        (lambda f: (f / "test" / "green").mkdir(), "green has no counterpart"),
        (lambda f: (f / "train" / "green").mkdir(), "train contains no images of green: put images into the folder"),
        (lambda f: (f / "test" / "red" / "0.png").write_bytes(b"no image"), "cannot read the image"),
        (lambda f: [p.unlink() for p in (f / "val").rglob("*.png")], "no images in"),
    ],
)
def test_error_names_the_invalid_folder_or_file(folder, damage, message):
    damage(folder)
    with pytest.raises(LabError, match=message):
        ImageFolder(folder).setup()


def test_names_that_begin_with_a_dot_are_ignored(folder):
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / "red" / ".ipynb_checkpoints").mkdir()
    Image.new("RGB", (20, 20)).save(folder / "train" / "red" / ".ipynb_checkpoints" / "0.png")
    (folder / "train" / "red" / "._0.png").write_bytes(b"what a Mac leaves there")
    (folder / "train" / "red" / "more").mkdir()
    Image.new("RGB", (20, 20)).save(folder / "train" / "red" / "more" / "5.PNG")
    data = ImageFolder(folder, size=8)
    data.setup()
    assert data.spec.class_names == ("blue", "red")
    assert data.splits["train"].size == 11


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_images_are_scaled_and_not_clipped(tmp_path, ending):
    wide = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    Image.fromarray(wide).save(tmp_path / f"grey.{ending}")
    pixels = image_folder.decode(tmp_path / f"grey.{ending}", 8)
    assert np.array_equal(pixels[..., 0].numpy(), wide >> 8)
    assert torch.equal(pixels[..., 0], pixels[..., 2])


def test_a_float_image_is_refused(tmp_path):
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(LabError, match=r"float.tif \(mode F does not define which value is white"):
        image_folder.decode(tmp_path / "float.tif", 8)


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "tif", "webp"])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_image_is_named_in_one_line(tmp_path, ending, damage):
    path = tmp_path / f"image.{ending}"
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    noise = random.integers(0, 256, len(whole) - 12, dtype=np.uint8).tobytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "noise": whole[:12] + noise, "empty": b""}[damage])
    with pytest.raises(LabError, match=rf"^cannot read the image .*image\.{ending} \(.*\): repair or remove it$"):
        image_folder.decode(path, 8)


def test_large_images_are_read_without_a_warning_and_too_large_ones_are_named(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 20)  # the images of the folder have up to 44 × 20
    data = ImageFolder(folder, size=8)
    data.setup()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 21 * 20)
    with pytest.raises(LabError, match=r"cannot read the image .*exceeds limit"):
        ImageFolder(folder, size=8).setup()


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, 8, 4))
    turned = image.getexif()
    turned[0x0112] = 3  # by 180 degrees
    image.save(tmp_path / "turned.png", exif=turned)
    pixels = image_folder.decode(tmp_path / "turned.png", 8)
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[7, 7].tolist() == [0, 0, 255]

import re

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
        (
            lambda f: [p.rename(p.with_suffix(".heic")) for p in (f / "val").rglob("*.png")],
            r"\(passed over: 4 .heic\)$",
        ),
        (
            lambda f: [p.rename(p.with_suffix(".heic")) for p in (f / "train" / "red").iterdir()],
            r"train contains no images of red \(passed over: 5 .heic\): put",
        ),
        (lambda f: (f / "train" / "all").symlink_to(f), "all is a link to .*, a folder around it: remove it"),
        (lambda f: (f / "val" / "white").symlink_to("gone"), "white is a link to gone, which does not exist: repair"),
        (
            lambda f: (
                [p.rename(f / f"{p.parent.name}{p.name}") for p in (f / "train").rglob("*.png")],
                [p.rmdir() for p in (f / "train").iterdir()],
                (f / "blue0.png").rename(f / "train" / "0.png"),
            ),
            r"train contains no folders, but 1 .png outside of the class folders: put a folder",
        ),
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


def test_large_images_are_read_without_a_warning_and_too_large_ones_are_named(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 20)  # the images of the folder have up to 44 × 20
    data = ImageFolder(folder, size=8)
    data.setup()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 21 * 20)
    with pytest.raises(LabError, match=r"cannot read the image .*exceeds limit"):
        ImageFolder(folder, size=8).setup()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f / "train", r"train/train is not a folder: .* it contains blue/, red/; set data.dir=.*[^/]$"),
        (lambda f: f / "train" / "red", r"it contains 0.png, 1.png, 2.png, 3.png, 4.png; set data.dir=.*[^d]$"),
        (lambda f: f.parent, r"; it contains .*; set data.dir=.*"),
        (
            lambda f: f / "gone",
            r"gone/train is not a folder, as .*gone does not exist: data.dir must contain train/, val/",
        ),
        (lambda f: f / "train" / "red" / "0.png", r"0.png/train is not a folder, as .*0.png is a file: data.dir must"),
        (
            lambda f: (f / "val").rename(f / "valid").parent,
            r"it contains test/, train/, valid/; rename valid/ to val/$",
        ),
        (lambda f: (f / "train").rename(f / "Training").parent, r"rename Training/ to train/$"),
        (lambda f: (f / "val").rename(f / "dev").parent, r"val is not a folder: .*; it contains dev/, test/, train/$"),
    ],
)
def test_another_folder_is_refused_with_what_it_contains(folder, change, message):
    with pytest.raises(LabError, match=message) as error:
        ImageFolder(change(folder))
    assert "\n" not in str(error.value)


def test_files_that_are_passed_over_are_counted_for_each_split(folder, caplog):
    (folder / "train" / "red" / "a.heic").touch()
    (folder / "train" / "blue" / "b.HEIC").touch()
    (folder / "train" / "labels.csv").touch()
    (folder / "test" / "blue" / ".DS_Store").touch()
    ImageFolder(folder, size=8).setup()
    lines = [record.getMessage() for record in caplog.records if "passed over" in record.getMessage()]
    assert lines == [f"{folder / 'train'}: passed over 2 .heic, 1 .csv outside of the class folders"]


def test_one_folder_around_the_classes_is_mentioned(folder, caplog):
    for split in ("train", "val", "test"):
        (folder / split).rename(folder / "classes")
        (folder / split).mkdir()
        (folder / "classes").rename(folder / split / "photos")
    ImageFolder(folder)
    assert f"{folder / 'train'} contains one class, photos: move blue, red ... up if these are" in caplog.text


def test_images_in_linked_folders_and_classes_are_read(folder, tmp_path):
    (folder / "train" / "red").rename(tmp_path / "elsewhere")
    (folder / "train" / "red").symlink_to(tmp_path / "elsewhere")
    (folder / "train" / "blue" / "more").symlink_to(folder / "test" / "blue")
    data = ImageFolder(folder, size=8)
    data.setup()
    assert data.splits["train"].target.tolist() == [0] * 8 + [1] * 5


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    ("background", "message"),
    [
        ("white", r"^1 of .* have transparent parts, laid over RGB 255, 255, 255 \(data.background\)$"),
        (None, r"^1 of .* have transparent parts; the network gets their hidden colours \(data.background=null\)$"),
    ],
)
def test_transparent_images_are_counted_and_laid_over_the_background(folder, caplog, in_memory, background, message):
    Image.new("RGBA", (20, 20), (*COLOURS["red"], 0)).save(folder / "train" / "red" / "0.png")
    caplog.set_level("INFO")
    data = ImageFolder(folder, size=8, background=background, in_memory=in_memory, workers=0)
    data.setup()
    image = data.splits["train"].take(torch.tensor([5])).inputs[0]
    assert image[0, 0].tolist() == [255, 0, 0] if background is None else [255, 255, 255]
    assert any(re.search(message, record.getMessage()) for record in caplog.records)
    assert data.metadata.background == (None if background is None else (255, 255, 255))


def test_the_background_is_part_of_the_configuration(build, folder):
    run = ("model=mlp", "data=image_folder", f"data.dir={folder}", "loss=cross_entropy")
    assert build(*run).data.background == (255, 255, 255)
    assert build(*run, "data.background=[1,2,3]").data.background == (1, 2, 3)
    assert build(*run, "data.background=null").data.background is None
    with pytest.raises(LabError, match=r"data\.background must be a colour such as white"):
        build(*run, "data.background=whitish")

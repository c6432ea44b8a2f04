import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from losslab.data import image_files
from losslab.data.image_files import decode, describe_passed_over, find_images, parse_background
from losslab.errors import LabError

RED, GREEN, BLUE = (255, 0, 0), (0, 128, 0), (0, 0, 255)


def half_transparent(mode: str) -> Image.Image:
    """An image of 8×8 pixels: the left half is black and opaque, the right half is black under full transparency."""
    alpha = Image.new("L", (8, 8), 255)
    alpha.paste(0, (4, 0, 8, 8))
    grey = Image.merge("LA", (Image.new("L", (8, 8)), alpha))
    return grey if mode == "LA" else grey.convert("RGBA").convert(mode)


def png(depth: int, colour_type: int, line: bytes, transparent: bytes) -> bytes:
    """A PNG file of one line, with a tRNS chunk. PIL cannot write some of its modes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    width = {1: 8, 2: 4, 4: 2}.get(depth, 2)
    header = struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(6)) if colour_type == 3 else b""
    chunks = chunk(b"IHDR", header) + palette + chunk(b"tRNS", transparent)
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", zlib.compress(b"\0" + line)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("RGBA", "png"), ("RGBA", "webp"), ("RGBA", "avif"), ("RGBA", "tif"), ("RGBA", "ico"), ("RGBA", "tga"),
     ("RGBA", "jp2"), ("RGBA", "qoi"), ("RGBA", "gif"), ("LA", "png"), ("LA", "tif"), ("LA", "jp2"), ("PA", "tif")],
)  # fmt: skip
def test_transparent_parts_are_laid_over_the_background(tmp_path, mode, ending):
    path = tmp_path / f"icon.{ending}"
    half_transparent(mode.replace("PA", "P") if mode != "PA" else "RGBA").convert(mode).save(path, lossless=True)
    for background in (image_files.WHITE, GREEN):
        pixels, transparent = decode(path, 8, background)
        assert transparent
        assert np.abs(pixels[:, :3].numpy().astype(int)).max() <= 3
        assert np.abs(pixels[:, 5:].numpy().astype(int) - background).max() <= 3
    assert decode(path, 8, None).pixels.max() <= 3


@pytest.mark.parametrize(
    ("content", "visible"),
    [
        pytest.param(png(1, 0, b"\xf0", b"\0\0"), [255] * 8, id="1 bit"),
        pytest.param(png(2, 0, b"\x1b", b"\0\0"), [255, 85, 170, 255], id="2 bits"),
        pytest.param(png(4, 0, b"\x3c", b"\0\x03"), [255, 204], id="4 bits"),
        pytest.param(png(8, 0, b"\x3c\xc0", b"\0\x3c"), [255, 192], id="8 bits"),
        pytest.param(png(16, 0, b"\x3c\1\x3c\2", b"\x3c\1"), [255, 60], id="16 bits"),
        pytest.param(png(8, 2, b"\x11\x11\x11\x22\x22\x22", b"\0\x11" * 3), [255, 34], id="RGB"),
        pytest.param(png(16, 2, b"\x11\0" * 3 + b"\x22\0" * 3, b"\x11\0" * 3), [255, 34], id="RGB 16 bits"),
        pytest.param(png(8, 3, b"\0\1", b"\0"), [255, 0], id="palette index"),
        pytest.param(png(8, 3, b"\0\1", b"\x80\xff"), [127, 0], id="palette bytes"),
    ],
)
def test_the_transparent_colour_of_a_png_is_laid_over_white(tmp_path, content, visible):
    path = tmp_path / "icon.png"
    path.write_bytes(content)
    assert decode(path, 1).transparent
    assert _line(path) == visible


def test_an_opaque_alpha_channel_changes_nothing(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.putalpha(255)
    image.save(tmp_path / "opaque.png")
    decoded, transparent = decode(tmp_path / "opaque.png", 8, GREEN)
    assert not transparent
    assert np.array_equal(decoded.numpy(), pixels)


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_the_first_image_of_an_animation_is_decoded(tmp_path, ending):
    frames = [half_transparent("RGBA"), Image.new("RGBA", (8, 8), (*RED, 100))]
    frames[0].save(tmp_path / f"icon.{ending}", save_all=True, append_images=frames[1:], lossless=True)
    pixels, transparent = decode(tmp_path / f"icon.{ending}", 8)
    assert transparent
    assert (pixels[0, 0].tolist(), pixels[0, 7].tolist()) == ([0, 0, 0], [255, 255, 255])


def test_wide_grey_values_of_other_files_are_scaled(tmp_path):
    (tmp_path / "wide.pgm").write_bytes(b"P5 2 1 65535\n\x80\0\xff\xff")
    assert _line(tmp_path / "wide.pgm") == [128, 255]
    (tmp_path / "twelve.pgm").write_bytes(b"P5 2 1 4095\n\x08\0\x0f\xff")
    assert _line(tmp_path / "twelve.pgm") == [128, 255]
    (tmp_path / "negative.tif").write_bytes(tiff(16, 0, b"\0\0\xff\xff"))
    assert _line(tmp_path / "negative.tif") == [255, 0]
    (tmp_path / "twelve.tif").write_bytes(tiff(12, 1, b"\x80\x0f\xff"))
    assert _line(tmp_path / "twelve.tif") == [128, 255]


def tiff(depth: int, white_is: int, line: bytes) -> bytes:
    """A TIFF file of one line of two grey pixels. `white_is` is 0 if white is zero."""
    tags = {256: 2, 257: 1, 258: depth, 259: 1, 262: white_is, 273: 122, 277: 1, 278: 1, 279: len(line)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + line


def _line(path):
    with Image.open(path) as image:
        return list(image_files._to_rgb(image, image_files.WHITE)[0].getchannel(0).tobytes())


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("1", 1, 255), ("L", 100, 100), ("P", 0, 0), ("CMYK", (0, 0, 0, 155), 100), ("YCbCr", (100, 128, 128), 100)],
)
@pytest.mark.parametrize("ending", ["tif", "jpg", "png"])
def test_other_modes_show_the_same_colour(tmp_path, mode, colour, expected, ending):
    try:
        Image.new(mode, (8, 8), colour).save(tmp_path / f"image.{ending}", quality=100)
    except OSError:
        pytest.skip("the format has no such mode")
    assert (decode(tmp_path / f"image.{ending}", 8).pixels.int() - expected).abs().max() <= 2


def test_damaged_exif_data_are_ignored_without_a_warning(tmp_path, recwarn):
    Image.new("RGB", (8, 8), RED).save(tmp_path / "photo.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\1")
    with image_files.suppress_warnings():
        assert decode(tmp_path / "photo.jpg", 8).pixels[0, 0, 0] > 250
    assert not recwarn.list


def test_a_long_thin_image_is_refused(tmp_path):
    Image.new("1", (60_000, 1)).save(tmp_path / "line.png")
    with pytest.raises(LabError, match=r"line.png \(60000×1 pixels with the shorter side resized to 224 become"):
        decode(tmp_path / "line.png", 224)


@pytest.mark.parametrize(
    ("background", "expected"),
    [("white", (255, 255, 255)), ("#f80", (255, 136, 0)), ("rgb(1, 2, 3)", (1, 2, 3)), ([1, 2, 3], (1, 2, 3)),
     (None, None)],
)  # fmt: skip
def test_a_background_is_a_colour_or_three_numbers(background, expected):
    assert parse_background(background) == expected


@pytest.mark.parametrize(
    "background", ["whitish", "", "#ff8000ff", [1, 2], [1, 2, 256], [-1, 2, 3], [1.0, 2, 3], [True, 2, 3], 7]
)
def test_another_background_is_refused(background):
    with pytest.raises(LabError, match=r"^data.background must be a colour such as white or '#ff8000', three numbers"):
        parse_background(background)


def test_files_that_pil_decodes_are_found_and_others_are_counted_by_ending(tmp_path):
    images = ["a.jfif", "b.JPE", "c.avif", "d.jp2", "e.apng", "f.TIFF", "deep/er/g.pgm", "h.tga"]
    others = ["i.heic", "j.HEIC", "k.svg", "l", "page.eps", "film.mpg", "data.h5"]
    hidden = [".DS_Store", "._a.png", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/a.png"]
    for name in images + others + hidden:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    found, passed_over = find_images(tmp_path)
    assert found == sorted(images)
    assert describe_passed_over(passed_over, "({})") == (
        "(4 hidden, 2 .heic, 1 .eps, 1 .h5, 1 .mpg, 1 .svg, 1 broken link, 1 pipe, socket or device, "
        "1 without an ending)"
    )


def test_only_hidden_files_are_not_worth_a_line(tmp_path):
    (tmp_path / ".DS_Store").touch()
    assert describe_passed_over(find_images(tmp_path).passed_over, "({})") == ""


def test_links_are_followed_and_loops_end(tmp_path):
    (tmp_path / "store" / "sub").mkdir(parents=True)
    (tmp_path / "class").mkdir()
    (tmp_path / "store" / "sub" / "a.png").touch()
    (tmp_path / "class" / "b.png").symlink_to(tmp_path / "store" / "sub" / "a.png")
    (tmp_path / "class" / "more").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "store")
    (tmp_path / "class" / "up").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "class")
    for folder in ("class", "linked"):
        found, passed_over = find_images(tmp_path / folder)
        assert found == ["b.png", "more/sub/a.png"]
        assert passed_over == {"link to a folder around it": 2}


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(LabError, match=r"^cannot read the folder .* \(Permission denied\)$"):
        find_images(tmp_path)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bit_images_are_scaled_and_not_clipped(tmp_path, ending):
    wide = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    Image.fromarray(wide).save(tmp_path / f"grey.{ending}")
    pixels = decode(tmp_path / f"grey.{ending}", 8).pixels
    assert np.array_equal(pixels[..., 0].numpy(), wide >> 8)
    assert torch.equal(pixels[..., 0], pixels[..., 2])


def test_a_float_image_is_refused(tmp_path):
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(LabError, match=r"float.tif \(mode F does not define which value is white"):
        decode(tmp_path / "float.tif", 8)


@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "tif", "webp", "avif", "jp2", "tga", "ico"])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty"])
def test_a_damaged_image_is_named_in_one_line(tmp_path, ending, damage):
    path = tmp_path / f"image.{ending}"
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    noise = random.integers(0, 256, len(whole) - 12, dtype=np.uint8).tobytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "noise": whole[:12] + noise, "empty": b""}[damage])
    with pytest.raises(
        LabError, match=rf"^cannot read the image .*image\.{ending} \(.*\): (convert, )?repair or remove it$"
    ):
        decode(path, 8)


def test_exif_orientation_is_applied(tmp_path):
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    image.paste((0, 0, 255), (0, 0, 8, 4))
    turned = image.getexif()
    turned[0x0112] = 3  # by 180 degrees
    image.save(tmp_path / "turned.png", exif=turned)
    pixels = decode(tmp_path / "turned.png", 8).pixels
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[7, 7].tolist() == [0, 0, 255]


def test_premultiplied_grey_is_laid_over_the_background():
    image, transparent = image_files._to_rgb(half_transparent("LA").convert("La"), GREEN)
    assert transparent
    assert (image.getpixel((0, 0)), image.getpixel((7, 0))) == ((0, 0, 0), GREEN)

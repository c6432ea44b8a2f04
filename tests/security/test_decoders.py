"""The decoders of images and labels refuse other formats."""

import subprocess
import zipfile

import pytest
import torch
from PIL import Image

from losslab.data import image_files
from losslab.data.corruption import label_noise
from losslab.errors import LabError


def test_image_of_another_format_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "check_call", lambda *_: pytest.fail("a program is called"))
    Image.new("RGB", (8, 8)).save(tmp_path / "page.eps")
    (tmp_path / "page.eps").rename(tmp_path / "page.png")
    with pytest.raises(
        LabError, match=r"cannot read the image .*page\.png \(PIL decodes no such format\): convert, repair"
    ):
        image_files.decode(tmp_path / "page.png", 8)


def test_compressed_labels_are_refused(tmp_path):
    torch.save({"aggre_label": torch.zeros(9)}, tmp_path / "stored.pt")
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as stored,
        zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    with pytest.raises(LabError, match="is compressed, or its members exceed the file size"):
        label_noise.read_arrays(tmp_path / "packed.pt", ["aggre_label"])

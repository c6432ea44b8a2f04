"""CIFAR-10 with small random batches in its format, an archive of them, and a local HTTP server."""

import hashlib
import http.server
import os
import pickle
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import cifar

from losslab.data import cifar10
from losslab.data.cifar10 import CIFAR10
from losslab.errors import LabError

SIZE = 20
REQUESTS = 2
"""torchvision sends two requests for a download: one follows redirects, one reads."""


def write_batches(folder: Path) -> None:
    batches = folder / cifar10.FOLDER
    batches.mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in (*cifar10.TRAIN, *cifar10.TEST):
        data = random.integers(0, 256, (SIZE, 3072), dtype=np.uint8)
        labels = random.integers(0, 10, SIZE).tolist()
        batch = {b"data": data, b"labels": labels, b"batch_label": b"x", b"filenames": [b"a.png"] * SIZE}
        (batches / name).write_bytes(pickle.dumps(batch, protocol=2))


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A folder of batches that have the expected checksums, and an archive of it."""
    source = tmp_path / "official"
    write_batches(source)
    sums = {
        p.name: hashlib.md5(p.read_bytes(), usedforsecurity=False).hexdigest()
        for p in (source / cifar10.FOLDER).iterdir()
    }
    monkeypatch.setattr(cifar.CIFAR10, "train_list", [[name, sums[name]] for name in cifar10.TRAIN])
    monkeypatch.setattr(cifar.CIFAR10, "test_list", [[name, sums[name]] for name in cifar10.TEST])
    archive = source / cifar10.ARCHIVE
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source / cifar10.FOLDER, cifar10.FOLDER)
    monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(archive.read_bytes()).hexdigest())
    return source


@pytest.fixture
def server(official):
    """Serves the archive and records the requests."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(official))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/{cifar10.ARCHIVE}", asked
        running.shutdown()


def ready(folder: Path, **options) -> CIFAR10:
    data = CIFAR10(dir=folder, val_size=10, **options)
    data.prepare_data()
    data.setup()
    return data


def test_cifar10_is_downloaded_verified_and_unpacked_once(server, tmp_path):
    url, asked = server
    ready(tmp_path / "data", url=url)
    ready(tmp_path / "data", url=url)
    assert len(asked) == REQUESTS
    left = {path.name for path in (tmp_path / "data").iterdir() if path.suffix != ".lock"}
    assert left == {cifar10.FOLDER, cifar10.ARCHIVE}


def test_an_unpacked_folder_needs_no_download(official):
    data = ready(official)
    assert {name: len(split.inputs) for name, split in data.splits.items()} == {"train": 90, "val": 10, "test": 20}


def test_images_and_labels_keep_the_order_of_the_batches(official):
    images, labels = cifar10.read_batches(official, cifar10.TEST, verify=True)
    batch = pickle.loads((official / cifar10.FOLDER / "test_batch").read_bytes())
    expected = torch.from_numpy(batch[b"data"]).view(-1, 3, 32, 32).permute(0, 2, 3, 1)
    assert torch.equal(images, expected)
    assert labels.tolist() == batch[b"labels"]


def test_an_existing_archive_is_unpacked_without_a_network(official, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / cifar10.ARCHIVE).write_bytes((official / cifar10.ARCHIVE).read_bytes())
    ready(folder, url="http://127.0.0.1:9/nothing-listens-here")


def test_a_damaged_archive_is_refused_and_kept(official, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    whole = (official / cifar10.ARCHIVE).read_bytes()
    (folder / cifar10.ARCHIVE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LabError, match=r"damaged or is not the official .* delete it and run again"):
        ready(folder)
    with pytest.raises(LabError, match=r"damaged .*delete it and run again, or put"):
        ready(folder, verify=False)
    assert not (folder / cifar10.FOLDER).exists()
    assert (folder / cifar10.ARCHIVE).read_bytes() == whole[: len(whole) // 2]


def test_a_wrong_download_never_gets_the_final_name(server, tmp_path, monkeypatch):
    url, _ = server
    monkeypatch.setattr(cifar10, "SHA256", "0" * 64)
    with pytest.raises(LabError, match="not the official CIFAR-10"):
        ready(tmp_path / "data", url=url)
    assert not (tmp_path / "data" / cifar10.ARCHIVE).exists()


def test_a_failed_download_names_the_file_and_the_folder(tmp_path):
    with pytest.raises(LabError, match=r"cannot download .* put cifar-10-python.tar.gz or .* \(data.dir\)") as error:
        ready(tmp_path / "data", url="http://127.0.0.1:9/cifar-10-python.tar.gz")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["", cifar10.FOLDER, cifar10.ARCHIVE])
def test_the_folder_of_batches_and_the_archive_may_be_given_themselves(official, name):
    data = CIFAR10(official / name, url="http://127.0.0.1:9/nothing", val_size=10)
    data.prepare_data()
    data.setup()
    assert data.splits["train"].size == 5 * SIZE - 10
    assert not (official / cifar10.FOLDER / cifar10.FOLDER).exists()


def test_a_folder_near_the_batches_is_refused_with_what_to_set(official):
    with pytest.raises(LabError, match=rf"not in data.dir={official.parent}, .*: set data.dir={official}$"):
        CIFAR10(official.parent)
    (official / "notes.txt").touch()
    with pytest.raises(
        LabError, match=r"notes.txt is a file: set it to the folder that contains cifar-10-batches-py or"
    ):
        CIFAR10(official / "notes.txt")
    renamed = (official / cifar10.FOLDER).rename(official / "batches")
    with pytest.raises(
        LabError, match=r"batches contains batches of CIFAR-10: rename this folder to cifar-10-batches-"
    ):
        CIFAR10(renamed)


def test_a_re_encoded_copy_needs_verify_false_and_warns(official, caplog):
    cifar10._warn_unverified.cache_clear()
    path = official / cifar10.FOLDER / "data_batch_3"
    batch = pickle.loads(path.read_bytes())
    batch[b"data"][0] ^= 1
    path.write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(LabError, match=r"not the official file .* data.verify=false"):
        ready(official)
    ready(official, verify=False)
    assert "not compared with the official files" in caplog.text


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile-was-here",)


class LyingType:
    """A dtype whose pickled state claims that its bytes are object pointers: NumPy would crash on them."""

    def __reduce__(self):
        state = (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0)
        return np.dtype, ("V8", False, True), state


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Hostile()),
        b"no pickle",
        b"",
        pickle.dumps({b"data": 1, b"labels": [1]}),
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": LyingType(), b"labels": [1]}, protocol=2),
    ],
    ids=["hostile", "text", "empty", "wrong types", "wrong shape", "lying dtype"],
)
def test_nothing_but_a_batch_is_unpickled(official, content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (official / cifar10.FOLDER / "test_batch").write_bytes(content)
    with pytest.raises(LabError, match="run again"):
        ready(official, verify=False)
    assert not Path("hostile-was-here").exists()


def test_labels_outside_the_classes_are_refused(official):
    path = official / cifar10.FOLDER / "test_batch"
    batch = pickle.loads(path.read_bytes())
    batch[b"labels"][0] = 10
    path.write_bytes(pickle.dumps(batch))
    with pytest.raises(LabError, match="labels 0-9"):
        ready(official, verify=False)


def test_a_missing_file_is_named(official):
    (official / cifar10.FOLDER / "data_batch_2").unlink()
    with pytest.raises(LabError, match=r"cannot read .*data_batch_2"):
        ready(official)


def test_the_subset_shrinks_training_and_keeps_validation(official):
    whole, part = ready(official), ready(official, subset=30)
    assert len(part.splits["train"].inputs) == 30
    assert set(part.splits["train"].index.tolist()) <= set(whole.splits["train"].index.tolist())
    assert torch.equal(part.splits["val"].index, whole.splits["val"].index)
    with pytest.raises(LabError, match="1 to 90"):
        ready(official, subset=91)


def test_training_validation_and_test_share_no_image(official):
    data = ready(official)
    train, val = (set(data.splits[name].index.tolist()) for name in ("train", "val"))
    assert not train & val
    assert len(train | val) == 100


@pytest.mark.slow
def test_concurrent_processes_download_once(server, tmp_path):
    url, asked = server
    folder = str(tmp_path / "data")
    ask = f"from losslab.data import cifar10 as c; c.ensure_downloaded(c.Path({folder!r}), {url!r}, verify=False)"
    children = [subprocess.Popen([sys.executable, "-c", ask]) for _ in range(2)]
    assert [child.wait(120) for child in children] == [0, 0]
    assert len(asked) == REQUESTS
    cifar10.read_batches(tmp_path / "data", cifar10.TEST, verify=False)


def test_the_real_cifar_10_is_read_in_its_official_order(real_cifar):
    images, labels = cifar10.read_batches(real_cifar, cifar10.TEST, verify=False)
    assert images.shape == (10_000, 32, 32, 3)
    assert labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    assert torch.bincount(labels).tolist() == [1000] * 10

"""Image folders that are decoded during training, by worker processes, give the batches of memory."""

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from losslab.data import image_folder
from losslab.data.image_folder import ImageFolder
from losslab.data.loader import Loader
from losslab.errors import LabError

EVERY_OTHER = ((1, 1), (1, 2), (1, 3), (2, 1), (2, 3))
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")  # Python 3.12's, about torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, count in (("train", 11), ("val", 4), ("test", 3)):
        for name in ("cat", "dog"):
            (path / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (10 + number, 14, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path / split / name / f"{number}.png")
    return path


def loaded(folder, *, in_memory: bool, **options: object) -> ImageFolder:
    data = ImageFolder(folder, size=8, crop=2, cutout=3, in_memory=in_memory, batch_size=5, seed=3, **options)
    data.setup()
    return data


def loader(data: ImageFolder, workers: int = 0, rank: int = 0, world_size: int = 1) -> Loader:
    options = {"augment": data.augment, "transform": data.transform, "rank": rank, "world_size": world_size}
    return Loader(data.splits["train"], 5, seed=3, shuffle=True, workers=workers, **options)


def pids(streaming: Loader) -> list[int]:
    return [worker.pid for worker in streaming._prefetcher._loader._iterator._workers]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.inputs.is_contiguous(memory_format=torch.channels_last)
        for tensor, expected in zip(mine, other, strict=True):
            assert tensor.dtype == expected.dtype
            assert torch.equal(tensor, expected)


@pytest.mark.parametrize(
    ("workers", "world_size"),
    [(0, 1), (0, 2), (0, 3), (2, 2), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in EVERY_OTHER)],
)
def test_batches_from_disk_equal_those_from_memory(folder, workers, world_size):
    held, read = loaded(folder, in_memory=True), loaded(folder, in_memory=False)
    for rank in range(world_size):
        of_memory, of_files = loader(held, 0, rank, world_size), loader(read, workers, rank, world_size)
        for epoch in range(2):
            of_memory.set_epoch(epoch)
            batches = iter(of_files)
            of_files.set_epoch(epoch)  # after iter(), as Lightning does it in the first epoch
            assert_same(batches, of_memory)
        of_files.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_an_interrupted_epoch_resumes_after_the_last_used_batch(folder, workers, stop):
    read = loaded(folder, in_memory=False)
    whole = list(loader(loaded(folder, in_memory=True)))
    first = loader(read, workers)
    batches = iter(first)
    head = [next(batches) for _ in range(stop)]
    second = loader(read, workers)
    second.load_state_dict(first.state_dict())
    assert_same([*head, *second], whole)
    assert_same(second, whole)
    assert_same(first, whole)  # an abandoned pass and its prefetched batches have no effect
    first.close()
    second.close()


def test_validation_and_test_are_complete_and_in_order(folder):
    held, read = loaded(folder, in_memory=True), loaded(folder, in_memory=False, workers=1)
    assert_same(read.val_dataloader(), held.val_dataloader())
    assert_same(read.test_dataloader(), held.test_dataloader())
    read.teardown()


def test_a_run_from_disk_is_identical_and_leaves_no_process_behind(folder, train, monkeypatch):
    seen = []

    def note(self, close=Loader.close):
        if self._prefetcher._loader._iterator is not None:  # not of the batch that is examined before training
            seen.extend(pids(self))
        close(self)

    monkeypatch.setattr(Loader, "close", note)

    def history(*overrides):
        common = ("model=cifar_cnn", "data=image_folder", f"data.dir={folder}", "data.batch_size=5", "logger=none")
        experiment, _ = train(*common, "trainer.max_epochs=3", *overrides)
        return experiment.folder.history.read_bytes()

    of_files = history("data.in_memory=false", "data.workers=2")
    assert len(set(seen)) >= 4  # of training, validation and test
    assert gone(seen)
    monkeypatch.undo()
    assert of_files == history("data.in_memory=true")


def test_workers_persist_over_epochs_and_draw_no_random_numbers(folder):
    streaming = loader(loaded(folder, in_memory=False), workers=2)
    before = torch.get_rng_state()
    list(streaming)
    workers = pids(streaming)
    streaming.set_epoch(1)
    list(streaming)
    assert pids(streaming) == workers
    assert torch.equal(torch.get_rng_state(), before)
    streaming.close()
    assert gone(workers)
    list(streaming)
    assert pids(streaming) != workers
    streaming.close()


@pytest.mark.slow
def test_workers_die_with_a_parent_that_is_killed(folder):
    script = f"""
import os, signal
from losslab.data.image_folder import ImageFolder
data = ImageFolder({str(folder)!r}, size=8, in_memory=False, workers=2, batch_size=2)
data.setup()
loader = data.train_dataloader()
batches = iter(loader)
next(batches)
print(*(worker.pid for worker in loader._prefetcher._loader._iterator._workers), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    workers = [int(pid) for pid in done.stdout.split()]
    assert len(workers) == 2
    assert gone(workers, seconds=2)  # torch's own watchdog takes five


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_is_named_in_one_line_by_a_worker(folder, tmp_path, workers):
    for split in ("train", "val", "test"):
        (tmp_path / split).symlink_to(folder / split)
    streaming = loader(loaded(tmp_path, in_memory=False), workers)
    bad = folder / "train" / "dog" / "3.png"
    good = bad.read_bytes()
    bad.write_bytes(good[: len(good) // 2])
    try:
        with pytest.raises(LabError, match=r"^cannot read the image .*train/dog/3\.png \(.*\): repair or remove it$"):
            list(streaming)
    finally:
        bad.write_bytes(good)
        streaming.close()


def test_a_killed_worker_is_reported_in_one_line(folder, monkeypatch):
    streaming = loader(loaded(folder, in_memory=False), workers=1)
    monkeypatch.setattr(image_folder, "decode", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(LabError, match=r"^a data worker process died .*data\.workers=0") as error:
        list(streaming)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("free", "options", "held", "said"),
    [
        (2 * 36 * 8 * 8 * 3, {}, True, "36 images are held in memory (0.0 MiB needed, 0.0 MiB free)"),
        (2 * 36 * 8 * 8 * 3 - 1, {}, False, "36 images are decoded during training by 2 workers ("),
        (0, {"workers": 0}, False, "36 images are decoded during training by the main process ("),
        (0, {"in_memory": True}, True, "data.in_memory=true"),
        (2**40, {"in_memory": False}, False, "1024.0 GiB free, data.in_memory=false"),
    ],
)
def test_images_are_in_memory_if_they_take_at_most_half_of_it(folder, monkeypatch, caplog, free, options, held, said):
    monkeypatch.setattr(image_folder, "available_memory", lambda: free)
    caplog.set_level(logging.INFO)
    data = ImageFolder(folder, size=8, **{"workers": 2, **options})
    data.setup()
    assert hasattr(data.splits["train"], "inputs") is held
    assert len(caplog.messages) == 1
    assert said in caplog.messages[0]


@pytest.mark.parametrize("options", [{"in_memory": "no"}, {"workers": -1}, {"workers": 1.5}])
def test_invalid_options_are_refused(folder, options):
    with pytest.raises(LabError, match=r"data\.in_memory must be true, false or null, and data\.workers"):
        ImageFolder(folder, **options)

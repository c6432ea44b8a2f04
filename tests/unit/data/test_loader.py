import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from losslab.data.batch import Examples
from losslab.data.loader import Loader
from losslab.data.transforms import Augment, Normalise

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def examples(n: int) -> Examples:
    return Examples.of(torch.arange(n).float()[:, None], torch.arange(n) % 3)


def drawn(loader: Loader, epoch: int = 0) -> list[list[int]]:
    iterator = iter(loader)
    loader.set_epoch(epoch)  # after iter(), as Lightning does it in the first epoch
    return [batch.index.tolist() for batch in iterator]


@pytest.mark.parametrize("n", [1, 7, 16, 101])
@pytest.mark.parametrize("batch_size", [1, 7, 16, 200])
def test_every_example_comes_exactly_once_an_epoch(n, batch_size):
    loader = Loader(examples(n), batch_size, shuffle=True)
    batches = drawn(loader)
    assert len(batches) == len(loader)
    assert sorted(itertools.chain(*batches)) == list(range(n))


def test_the_order_is_a_function_of_seed_and_epoch():
    loader = Loader(examples(50), 8, seed=3, shuffle=True)
    assert drawn(loader, 1) == drawn(Loader(examples(50), 8, seed=3, shuffle=True), 1)
    assert drawn(loader, 1) != drawn(loader, 2)
    assert drawn(loader, 1) != drawn(Loader(examples(50), 8, seed=4, shuffle=True), 1)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_each_batch_of_one_process_and_take_equally_many_steps(world_size):
    alone = drawn(Loader(examples(17), 4, seed=1, shuffle=True))
    ranks = [
        drawn(Loader(examples(17), 4, seed=1, shuffle=True, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert {len(rank) for rank in ranks} == {len(alone)}
    for step, whole in enumerate(alone):
        assert sorted(itertools.chain(*(rank[step] for rank in ranks))) == sorted(whole)


def test_augmentation_does_not_depend_on_world_size():
    images = torch.randint(256, (10, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Examples.of(images, torch.arange(10))

    def seen(world_size: int) -> dict[int, torch.Tensor]:
        augment = Augment(crop=2, flip=True, cutout=3)
        loaders = [
            Loader(data, 4, shuffle=True, augment=augment, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        batches = itertools.chain(*loaders)
        return {int(i): image for batch in batches for i, image in zip(batch.index, batch.inputs, strict=True)}

    alone, shared = seen(1), seen(3)
    assert all(torch.equal(alone[i], shared[i]) for i in range(10))


def test_alternate_flip_shows_both_sides_of_each_image_in_two_epochs():
    images = torch.randint(256, (101, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    augment = Augment(flip=True, alternate=True)

    def mirrored(epoch: int, world_size: int = 1) -> list[bool]:
        found = {}
        for rank in range(world_size):
            loader = Loader(
                Examples.of(images, torch.arange(101)),
                16,
                shuffle=True,
                augment=augment,
                rank=rank,
                world_size=world_size,
            )
            loader.set_epoch(epoch)
            for batch in loader:
                for i, image in zip(batch.index.tolist(), batch.inputs, strict=True):
                    assert torch.equal(image, images[i]) or torch.equal(image, images[i].flip(1))
                    found[i] = not torch.equal(image, images[i])
        return [found[i] for i in range(101)]

    first = mirrored(0)
    assert 30 < sum(first) < 71
    assert mirrored(1) == [not side for side in first]
    assert mirrored(2, world_size=3) == first


@pytest.mark.parametrize("stop", range(5))
def test_an_interrupted_epoch_resumes_where_it_stopped(stop):
    whole = drawn(Loader(examples(18), 4, shuffle=True))
    first = Loader(examples(18), 4, shuffle=True)
    iterator = iter(first)
    head = [next(iterator).index.tolist() for _ in range(stop)]
    second = Loader(examples(18), 4, shuffle=True)
    second.load_state_dict(first.state_dict())
    assert head + drawn(second) == whole
    assert drawn(second) == whole, "only the interrupted epoch is shortened"


def test_an_abandoned_iterator_does_not_affect_the_next():
    loader = Loader(examples(18), 4, shuffle=True)
    whole = drawn(loader)
    iterator = iter(loader)
    next(iterator)
    next(iterator)
    assert drawn(loader) == whole


def images(n: int = 18) -> Examples:
    pixels = torch.randint(256, (n, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Examples.of(pixels, torch.arange(n) % 3)


def augmenting(data: Examples, **options: object) -> Loader:
    transform = Normalise(torch.full((3,), 120.0), torch.full((3,), 60.0))
    return Loader(data, 4, shuffle=True, augment=Augment(2, flip=True, cutout=3), transform=transform, **options)


@pytest.mark.parametrize("stop", range(5))
def test_an_interrupted_epoch_resumes_with_the_same_augmentations(stop):
    whole = [batch.inputs for batch in augmenting(images())]
    second = augmenting(images())
    second.load_state_dict({"epoch": 0, "next": stop})
    for expected, got in zip(whole[stop:], second, strict=True):
        assert torch.equal(got.inputs, expected)


def test_the_epoch_after_an_interrupted_one_has_all_its_batches():
    loader = augmenting(images())
    next(iter(loader))
    other = augmenting(images())
    other.load_state_dict(loader.state_dict())
    other.set_epoch(1)
    assert len(list(other)) == len(other)


def test_a_batch_is_a_function_of_epoch_and_number():
    loader = augmenting(images(), rank=1, world_size=3)
    loader.set_epoch(2)
    plan = loader.plan
    for number, batch in enumerate(loader):
        rows = plan.shard_rows(plan.order(2), number)
        draws = plan.draws(2, number, rows)
        assert torch.equal(batch.index, rows)
        assert torch.equal(batch.inputs, loader.transform(plan.augment(images().inputs[rows], draws)))


class Transfers(TorchDispatchMode):
    """Counts copies from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device.type != "cpu":
            self.count += any(isinstance(arg, torch.Tensor) and arg.device.type == "cpu" for arg in args)
        return result


@pytest.mark.parametrize("device", ["meta", pytest.param("cuda", marks=[pytest.mark.gpu, GPU])])
def test_copies_to_the_device_happen_only_at_the_start_of_an_epoch(device):
    loader = augmenting(images().to(torch.device(device)))
    for epoch in range(2):
        loader.set_epoch(epoch)
        with Transfers() as transfers:
            iterator = iter(loader)
            next(iterator)
            at_start = transfers.count
            assert len(list(iterator)) == 4
        assert transfers.count == at_start
        # The order and the draws; the first time also the scale and the shift of the pixels.
        assert at_start == (2 if epoch else 4)


@pytest.mark.gpu
@GPU
def test_batches_on_a_gpu_equal_those_on_a_cpu():
    for transform, tolerance in ((None, 0.0), (Normalise(torch.full((3,), 120.0), torch.full((3,), 60.0)), 1e-6)):
        on_cpu, on_gpu = augmenting(images()), augmenting(images().to(torch.device("cuda")))
        on_cpu.transform = on_gpu.transform = transform
        for epoch in range(2):
            for loader in (on_cpu, on_gpu):
                loader.set_epoch(epoch)
            for expected, got in zip(on_cpu, on_gpu, strict=True):
                assert {tensor.device.type for tensor in got} == {"cuda"}
                for theirs, ours in zip(expected, got, strict=True):
                    torch.testing.assert_close(ours.cpu(), theirs, atol=tolerance, rtol=0)


@pytest.mark.gpu
@GPU
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_batches_do_not_synchronise_with_the_gpu():
    loader = augmenting(images().to(torch.device("cuda")))
    iterator = iter(loader)
    next(iterator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(iterator)) == 4
    finally:
        torch.cuda.set_sync_debug_mode("default")

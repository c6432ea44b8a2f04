import itertools

import pytest
import torch

from losslab.data.augment import Augment
from losslab.data.batch import Examples
from losslab.data.loader import Loader, Normalise


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


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_ranks_share_each_batch_of_one_process_and_take_equally_many_steps(world):
    alone = drawn(Loader(examples(17), 4, seed=1, shuffle=True))
    ranks = [drawn(Loader(examples(17), 4, seed=1, shuffle=True, rank=rank, world=world)) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(alone)}
    for step, whole in enumerate(alone):
        assert sorted(itertools.chain(*(rank[step] for rank in ranks))) == sorted(whole)


def test_augmentation_is_drawn_for_the_whole_batch_whatever_the_number_of_ranks():
    images = torch.randint(256, (10, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Examples.of(images, torch.arange(10))

    def seen(world: int) -> dict[int, torch.Tensor]:
        augment = Augment(crop=2, flip=True, cutout=3)
        loaders = [Loader(data, 4, shuffle=True, augment=augment, rank=rank, world=world) for rank in range(world)]
        batches = itertools.chain(*loaders)
        return {int(i): image for batch in batches for i, image in zip(batch.index, batch.inputs, strict=True)}

    alone, shared = seen(1), seen(3)
    assert all(torch.equal(alone[i], shared[i]) for i in range(10))


@pytest.mark.parametrize("stop", range(5))
def test_an_interrupted_epoch_goes_on_where_it_stopped(stop):
    whole = drawn(Loader(examples(18), 4, shuffle=True))
    first = Loader(examples(18), 4, shuffle=True)
    iterator = iter(first)
    head = [next(iterator).index.tolist() for _ in range(stop)]
    second = Loader(examples(18), 4, shuffle=True)
    second.load_state_dict(first.state_dict())
    assert head + drawn(second) == whole
    assert drawn(second) == whole, "only the interrupted epoch is shortened"


def test_normalised_images_are_channels_last_with_mean_0_and_deviation_1():
    images = torch.randint(256, (50, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = images.float()
    batch = Normalise(pixels.mean((0, 1, 2)), pixels.std((0, 1, 2)))(images)
    assert batch.shape == (50, 3, 8, 8)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.std((0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)


def test_a_pass_that_was_given_up_leaves_no_trace_in_the_next():
    loader = Loader(examples(18), 4, shuffle=True)
    whole = drawn(loader)
    iterator = iter(loader)
    next(iterator)
    next(iterator)
    assert drawn(loader) == whole

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from losslab.errors import LabError
from losslab.models.airbench import Airbench, ScaledBias

SHAPE = (3, 32, 32)


def small(**options):
    torch.manual_seed(0)
    return Airbench(SHAPE, 10, widths=[8, 16, 16], **options)


def images(n=4):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_airbench_has_as_many_parameters_as_the_original():
    network = Airbench(SHAPE, 10)
    assert sum(p.numel() for p in network.parameters()) == 1_971_640
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 1_971_640 - 24 * 12
    assert network(images()).shape == (4, 10)


def test_dirac_initialisation_copies_the_input_channels():
    layer = Airbench(SHAPE, 10).blocks[1][0]
    inputs = torch.randn(2, 64, 5, 5)
    torch.testing.assert_close(layer(inputs)[:, :64], inputs)


@pytest.mark.parametrize(("mirror", "shift", "views"), [(False, 0, 1), (True, 0, 2), (False, 1, 3), (True, 2, 6)])
def test_views_are_averaged_in_eval_mode_only(mirror, shift, views):
    network = small(mirror=mirror, shift=shift)
    seen = []
    network.whiten.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    for mode in (True, False):
        assert network.train(mode)(images()).shape == (4, 10)
    assert seen == [4, 4 * views]


def test_the_views_are_weighted_as_in_the_paper():
    network, inputs = small().eval(), images()
    once = small(mirror=False, shift=0).eval()
    once.load_state_dict(network.state_dict())

    def both_sides(one):
        return (once(one) + once(one.flip(3))) / 2

    padded = F.pad(inputs, (1, 1, 1, 1), mode="reflect")
    moved = (both_sides(padded[..., :32, :32]) + both_sides(padded[..., 2:, 2:])) / 2
    torch.testing.assert_close(network(inputs), (both_sides(inputs) + moved) / 2)
    mirrored = small(shift=0).eval()
    mirrored.load_state_dict(network.state_dict())
    torch.testing.assert_close(mirrored(inputs), both_sides(inputs))


def test_a_scaled_bias_under_sgd_is_a_bias_with_its_own_rate_and_decay():
    scaled, plain, scale = ScaledBias(3, 64.0), nn.Parameter(torch.zeros(3)), 64.0
    inputs = torch.randn(5, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    options = {"momentum": 0.85, "nesterov": True}
    ours = torch.optim.SGD(scaled.parameters(), lr=0.01, weight_decay=0.1, **options)
    theirs = torch.optim.SGD([plain], lr=0.01 * scale, weight_decay=0.1 / scale, **options)
    for _ in range(10):
        for optimizer, outputs in ((ours, scaled(inputs)), (theirs, inputs + plain[:, None, None])):
            optimizer.zero_grad()
            (outputs - 1).square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(scaled(inputs), inputs + plain[:, None, None])
    assert plain.abs().min() > 0.1


@pytest.mark.parametrize("training", [True, False])
def test_airbench_compiles_into_one_graph(training):
    torch.compiler.reset()
    network, twin = small().train(training), small().train(training)
    compiled = torch.compile(network, fullgraph=True, backend="eager", dynamic=False)
    torch.testing.assert_close(compiled(images()), twin(images()))


@pytest.mark.parametrize("training", [True, False])
def test_airbench_takes_bfloat16_and_channels_last(training):
    network = small().train(training).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = network(images().contiguous(memory_format=torch.channels_last))
    # The average over views is in float32.
    assert outputs.dtype == (torch.bfloat16 if training else torch.float32)
    torch.testing.assert_close(outputs.float(), small().train(training)(images()), atol=0.03, rtol=0.05)


@pytest.mark.parametrize("side", [9, 20, 33])
def test_airbench_takes_images_of_any_size_and_number_of_channels(side):
    assert Airbench((1, side, side + 3), 4, widths=[4, 4, 4])(torch.randn(2, 1, side, side + 3)).shape == (2, 4)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((10,), {}, "needs images"),
        ((3, 8, 8), {}, "at least 9 pixels"),
        (SHAPE, {"widths": []}, "at least one width"),
        (SHAPE, {"shift": -1}, "shift ≥ 0"),
        (SHAPE, {"bias_scale": 0}, "bias_scale > 0"),
    ],
)
def test_invalid_shapes_and_parameters_are_refused(shape, options, message):
    with pytest.raises(LabError, match=message):
        Airbench(shape, 10, **options)

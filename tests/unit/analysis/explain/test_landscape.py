"""Explanation `landscape`: its scores are those of the network under the same weights; its figure and CSV file."""

import csv
from itertools import pairwise

import pytest
import torch
from torch import nn

from losslab.analysis.explain import LandscapeOptions, barrier, landscape
from losslab.analysis.explain.forward_passes import ForwardPasses
from losslab.analysis.explain.landscape import compute_landscape, draw, filter_normalised
from losslab.analysis.explain.solution import load_batches, load_solutions
from losslab.analysis.outputs import collect_outputs


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_filters_move_by_their_own_length_and_nothing_else_moves():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    network[0].weight.data[1] *= 100
    direction = filter_normalised(network, generator())
    for name in ("0.weight", "3.weight"):
        own = dict(network.named_parameters())[name].flatten(1).norm(dim=1)
        assert direction[name].flatten(1).norm(dim=1).tolist() == pytest.approx(own.tolist(), rel=1e-5)
    for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
        assert not direction[name].any(), name
    assert not filter_normalised(network, generator(), frozen={"0.weight"})["0.weight"].any()


def test_a_filter_of_zeros_does_not_move():
    network = nn.Linear(3, 2)
    network.weight.data[0] = 0
    assert filter_normalised(network, generator())["weight"][0].tolist() == [0, 0, 0]


def test_rescaled_weights_have_the_same_landscape(folders):
    """Scaling a ReLU network up in one layer and down in the next does not change it."""
    (solution,) = load_solutions(folders[:1], "best")
    batches = load_batches(solution, "train", 200, 0)
    before = compute_landscape(ForwardPasses(solution, batches), 3, 0)
    first, second = [module for module in solution.learner.network if isinstance(module, nn.Linear)][:2]
    for values in (first.weight, first.bias):
        values.data *= 10
    second.weight.data /= 10
    after = compute_landscape(ForwardPasses(solution, batches), 3, 0)
    # Biases do not move, so a line is not the same to the last digit, but the plane is of the same size.
    assert after.plane == pytest.approx(before.plane, rel=1e-3)


def test_the_centre_has_the_loss_and_error_rate_of_the_run(folders):
    (solution,) = load_solutions(folders[:1], "best")
    passes = ForwardPasses(solution, load_batches(solution, "train", None, 0))
    result = compute_landscape(passes, 3, 0)
    every = collect_outputs(solution.experiment, "train")
    wrong = (every.outputs.argmax(1) != every.truth).double().mean()
    for score in (result.score_at(0), passes.score({}), passes.score(passes.solution.weights)):
        assert score.loss == pytest.approx(every.mean_loss, rel=1e-5)
        assert score.metric == pytest.approx(float(wrong), abs=1e-9)
    assert passes.examples == len(every.truth)


def test_a_point_of_the_plane_has_the_loss_of_a_network_with_those_weights(folders):
    (solution,) = load_solutions(folders[:1], "best")
    batches = load_batches(solution, "val", 100, 0)
    result = compute_landscape(ForwardPasses(solution, batches), 3, 5)
    network, loss = solution.learner.network, solution.learner.loss
    steps = [filter_normalised(network, generator(2 * 5 + number)) for number in (0, 1)]
    for name, weight in network.named_parameters():
        weight.data += 1.0 * steps[0][name] - 1.0 * steps[1][name]
    alone = loss(
        network(torch.cat([batch.inputs for batch in batches])), torch.cat([batch.target for batch in batches])
    )
    assert result.plane_axis.tolist() == [-1, 0, 1]
    assert result.plane[0, 2, 0] == pytest.approx(float(alone), rel=1e-5), "x is 1 and y is -1"
    assert result.lines[0, ::2] == pytest.approx(result.plane[1])
    assert result.lines[1, ::2] == pytest.approx(result.plane[:, 1])


def test_figures_are_written_with_csv_files(folders, tmp_path, caplog):
    with caplog.at_level("INFO"):
        (surface,) = landscape.explain(folders, tmp_path, LandscapeOptions(points=3, examples=100))
        (line,) = barrier.explain(folders, tmp_path, LandscapeOptions(points=5, examples=100))
    assert surface.is_file()
    assert line.is_file()
    messages = [record.getMessage() for record in caplog.records]
    assert "38 forward passes over 100 examples, about" in messages[0]
    assert "cross_entropy, seed 0: half a filter length away, the error rate goes from" in messages[1]
    assert "cross_entropy, seed 1: half a filter length away, the error rate goes from" in messages[2]
    with (tmp_path / "landscape.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Each run's plane, and of its lines what is not in the plane.
    assert len(rows) == 2 * (9 + 2 * 2)
    with (tmp_path / "barrier.csv").open() as file:
        assert [float(row["share"]) for row in csv.DictReader(file)] == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("mix=mixup", "loss=cross_entropy", "model=cifar_cnn"),
        ("loss=distillation",),
        (
            "loss=custom",
            "loss._target_=pytorch_metric_learning.losses.ArcFaceLoss",
            "trust=[pytorch_metric_learning]",
            "+loss.embedding_size=8",
            "+loss.num_classes=10",
        ),
        ("data=diabetes", "loss=gaussian_nll"),
        ("data=breast_cancer", "loss=bce"),
    ],
    ids=lambda options: "-".join(options[:2]),
)
def test_every_kind_of_run_has_a_landscape_and_a_barrier(train, digits, folders, tmp_path, options):
    chosen = dict(option.split("=", 1) for option in (*digits, *options))
    if chosen["data"] != "digits":
        chosen.pop("data.size")
    if chosen["loss"] == "distillation":
        chosen["teacher"] = str(folders[0].path)
    common = [f"{key}={value}" for key, value in chosen.items() if key != "seed"]
    runs = [
        train(*common, f"seed={seed}", "trainer.max_epochs=1", "trainer.limit_train_batches=5")[0].folder
        for seed in (0, 1)
    ]
    assert landscape.explain(runs[:1], None, LandscapeOptions(points=3, examples=40, ckpt="last"))[0].is_file()
    assert barrier.explain(runs, tmp_path, LandscapeOptions(points=3, examples=40, ckpt="last"))[0].is_file()


def test_panels_have_the_same_height_and_ticks_do_not_overlap(folders):
    (solution,) = load_solutions(folders[:1], "last")
    passes = ForwardPasses(solution, load_batches(solution, "train", 40, 0))
    figure = draw([compute_landscape(passes, 3, 0)], "a note")
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if "filter lengths" in axes.get_xlabel()]
    heights = [axes.get_window_extent().height for axes in panels]
    assert heights == pytest.approx([heights[0]] * 3, rel=1e-3)
    for axes in panels:
        boxes = sorted((tick.label1.get_window_extent() for tick in axes.xaxis.get_major_ticks()), key=lambda b: b.x0)
        assert all(one.x1 < other.x0 for one, other in pairwise(boxes))

"""What is said of the loss around and between solutions is what the networks say under those weights."""

import csv
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from losslab.analysis.explain import barrier, landscape
from losslab.analysis.explain.barrier import Line, between, mixed
from losslab.analysis.explain.landscape.forward_passes import Passes, filter_normalised
from losslab.analysis.explain.landscape.plane import passes_needed, survey
from losslab.analysis.explain.options import Sight
from losslab.analysis.explain.solution import batches, solutions
from losslab.analysis.outputs import collect_outputs
from losslab.errors import LabError
from losslab.runs import trust

DIGITS = (
    "model=mlp",
    "data=digits",
    "data.size=8",
    "logger=none",
    "test=false",
    "examine=false",
    "trainer.max_epochs=2",
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def folders(train):
    return [train(*DIGITS, "loss=cross_entropy", f"seed={seed}")[0].folder for seed in (0, 1)]


def test_every_filter_moves_by_its_own_length_and_nothing_else_moves():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    network[0].weight.data[1] *= 100
    direction = filter_normalised(network, generator())
    for name in ("0.weight", "3.weight"):
        own = dict(network.named_parameters())[name].flatten(1).norm(dim=1)
        assert direction[name].flatten(1).norm(dim=1).tolist() == pytest.approx(own.tolist(), rel=1e-5)
    for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
        assert not direction[name].any(), name
    assert not filter_normalised(network, generator(), fixed={"0.weight"})["0.weight"].any()


def test_a_filter_of_zeros_stays_where_it_is():
    network = nn.Linear(3, 2)
    network.weight.data[0] = 0
    assert filter_normalised(network, generator())["weight"][0].tolist() == [0, 0, 0]


def test_the_same_network_in_larger_weights_has_the_same_landscape(folders):
    """ReLU networks may be scaled up in one layer and down in the next: the reason for filter normalisation."""
    (solution,) = solutions(folders[:1], "best")
    seen = batches(solution, "train", 200, 0)
    before = survey(solution, Passes(solution, seen), 3, 0, lambda: None)
    first, second = [module for module in solution.learner.network if isinstance(module, nn.Linear)][:2]
    for values in (first.weight, first.bias):
        values.data *= 10
    second.weight.data /= 10
    after = survey(solution, Passes(solution, seen), 3, 0, lambda: None)
    # Biases do not move, so a line is not the same to the last digit, but the plane is of the same size.
    assert after.plane == pytest.approx(before.plane, rel=1e-3)


def test_the_solution_itself_has_the_loss_and_the_error_of_its_run(folders):
    (solution,) = solutions(folders[:1], "best")
    passes = Passes(solution, batches(solution, "train", None, 0))
    found = survey(solution, passes, 3, 0, lambda: None)
    every = collect_outputs(solution.experiment, "train")
    wrong = (every.outputs.argmax(1) != every.truth).double().mean()
    for score in (found.centre, passes.at({}), passes.at(passes.weights)):
        assert score.loss == pytest.approx(every.mean_loss, rel=1e-5)
        assert score.metric == pytest.approx(float(wrong), abs=1e-9)
    assert passes.examples == len(every.truth)


def test_a_place_in_the_plane_has_the_loss_of_a_network_with_those_weights(folders):
    (solution,) = solutions(folders[:1], "best")
    seen = batches(solution, "val", 100, 0)
    found = survey(solution, Passes(solution, seen), 3, 5, lambda: None)
    network, loss = solution.learner.network, solution.learner.loss
    steps = [filter_normalised(network, generator(2 * 5 + number)) for number in (0, 1)]
    for name, weight in network.named_parameters():
        weight.data += 1.0 * steps[0][name] - 1.0 * steps[1][name]
    alone = loss(network(torch.cat([batch.inputs for batch in seen])), torch.cat([batch.target for batch in seen]))
    assert found.side.tolist() == [-1, 0, 1]
    assert found.plane[0, 2, 0] == pytest.approx(float(alone), rel=1e-5), "x is 1 and y is -1"
    assert found.lines[0, ::2] == pytest.approx(found.plane[1])
    assert found.lines[1, ::2] == pytest.approx(found.plane[:, 1])


def test_nothing_of_the_learner_changes(folders):
    (solution,) = solutions(folders[:1], "best")
    before = {name: value.clone() for name, value in solution.learner.state_dict().items()}
    done = []
    survey(solution, Passes(solution, batches(solution, "train", 50, 0), recompute=True), 3, 0, lambda: done.append(1))
    assert len(done) == passes_needed(3) == 9 + 2 * 5
    assert all(torch.equal(value, before[name]) for name, value in solution.learner.state_dict().items())


def test_examples_are_drawn_by_their_seed_and_the_split_stays_whole(folders):
    (solution,) = solutions(folders[:1], "best")
    first, same, other = (
        torch.cat([batch.index for batch in batches(solution, "train", 60, seed)]) for seed in (0, 0, 1)
    )
    assert first.tolist() == same.tolist() != other.tolist()
    assert len(set(first.tolist())) == 60
    assert solution.experiment.data.splits["train"].size == 1257


@pytest.fixture(scope="module")
def resnet(train):
    options = ("data=digits", "data.size=8", "data.eval_batch_size=40", "logger=none", "test=false", "examine=false")
    limits = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1")
    folder = train("model=resnet18", *options, *limits)[0].folder
    return solutions([folder], "last")[0]


def test_statistics_are_taken_anew_from_the_examples_and_kept_otherwise(resnet):
    seen = batches(resnet, "train", 80, 0)
    network = resnet.learner.network
    kept = {name: value.clone() for name, value in network.named_buffers()}
    fresh = Passes(resnet, seen, recompute=True)
    assert fresh.normalised
    assert Passes(resnet, seen).at({}) != fresh.at({})
    assert all(torch.equal(value, kept[name]) for name, value in network.named_buffers())
    assert not network.training
    assert network.bn1.momentum == 0.1
    with torch.no_grad():
        stem = torch.stack([network.conv1(batch.inputs).mean((0, 2, 3)) for batch in seen]).mean(0)
    assert fresh._statistics({})["network.bn1.running_mean"].tolist() == pytest.approx(stem.tolist(), abs=1e-5)


def test_new_statistics_undo_a_scale_that_old_ones_do_not(resnet):
    """BatchNorm divides by what it sees: under new statistics a stem of double weights means the same."""
    seen = batches(resnet, "train", 80, 0)
    doubled = {"network.conv1.weight": 2 * resnet.learner.network.conv1.weight}
    fresh, old = Passes(resnet, seen, recompute=True), Passes(resnet, seen)
    assert fresh.at(doubled).loss == pytest.approx(fresh.at({}).loss, rel=1e-3)
    assert abs(old.at(doubled).loss / old.at({}).loss - 1) > 1e-3


def test_the_ends_of_a_line_are_the_solutions(folders):
    first, second = solutions(folders, "best")
    seen = batches(first, "train", 300, 0)
    line = between(first, second, first, Passes(first, seen), 3, lambda: None)
    for solution, score in ((first, line.scores[0]), (second, line.scores[-1])):
        assert tuple(score) == pytest.approx(Passes(solution, seen).at({}), rel=1e-6)
    assert line.barriers[0] > 0.01, "two seeds, two valleys"


def test_a_barrier_is_the_height_above_the_straight_line_between_the_ends():
    share = np.linspace(0, 1, 5)
    hill = np.stack([1 + 2 * share + np.array([0, 0.5, 3, 0.5, 0]), share * 0], axis=1)
    valley = np.stack([(share - 0.5) ** 2, share], axis=1)
    assert Line(None, None, None, share, hill).barriers == pytest.approx((3, 0))
    assert Line(None, None, None, share, valley).barriers == pytest.approx((0, 0))


def test_the_middle_of_two_sets_of_weights_is_their_mean():
    start, stop = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 2.0])}
    assert [mixed(start, stop, share)["w"].tolist() for share in (0.0, 0.5, 1.0)] == [[0, 2], [2, 2], [4, 2]]


def test_figures_come_with_their_numbers(folders, tmp_path, caplog):
    with caplog.at_level("INFO"):
        (surface,) = landscape.explain(folders, tmp_path, Sight(points=3, examples=100))
        (line,) = barrier.explain(folders, tmp_path, Sight(points=5, examples=100))
    assert surface.is_file()
    assert line.is_file()
    said = [record.getMessage() for record in caplog.records]
    assert "38 forward passes over 100 examples, about" in said[0]
    assert "cross_entropy, seed 0: half a filter's length away the error rate goes from" in said[1]
    assert "cross_entropy, seed 1: half a filter's length away the error rate goes from" in said[2]
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
            "+loss.embedding_size=8",
            "+loss.num_classes=10",
        ),
        ("data=diabetes", "loss=gaussian_nll"),
        ("data=breast_cancer", "loss=bce"),
    ],
    ids=lambda options: "-".join(options[:2]),
)
def test_every_kind_of_run_has_a_landscape_and_a_line(train, folders, tmp_path, options, monkeypatch):
    monkeypatch.setattr(trust, "_own", {"pytorch_metric_learning"})
    chosen = dict(option.split("=", 1) for option in (*DIGITS, *options))
    if chosen["data"] != "digits":
        chosen.pop("data.size")
    if chosen["loss"] == "distillation":
        chosen["teacher"] = str(folders[0].path)
    common = [f"{key}={value}" for key, value in chosen.items() if key != "seed"]
    runs = [
        train(*common, f"seed={seed}", "trainer.max_epochs=1", "trainer.limit_train_batches=5")[0].folder
        for seed in (0, 1)
    ]
    assert landscape.explain(runs[:1], None, Sight(points=3, examples=40, ckpt="last"))[0].is_file()
    assert barrier.explain(runs, tmp_path, Sight(points=3, examples=40, ckpt="last"))[0].is_file()


def test_what_no_line_can_join_is_refused_in_one_line(folders, train, tmp_path):
    wide = train(*DIGITS, "model.hidden=[8]", "loss=cross_entropy")[0].folder
    split = train(*DIGITS, "data.split_seed=1", "loss=cross_entropy")[0].folder
    with pytest.raises(LabError, match="two ends"):
        barrier.explain(folders[:1], tmp_path)
    with pytest.raises(LabError, match="different networks"):
        barrier.explain([folders[0], wide], tmp_path)
    with pytest.raises(LabError, match=r"different data: data\.split_seed differs"):
        barrier.explain([folders[0], split], tmp_path)


NOISY = (*DIGITS, "loss=cross_entropy", "noise=symmetric", "trainer.max_epochs=1")


def test_runs_of_other_noise_are_not_joined_and_of_another_draw_the_figure_says_whose_it_is(
    folders, train, tmp_path, monkeypatch, caplog
):
    from losslab.analysis.explain import barrier

    few = Sight(points=3, examples=40)
    noisy = [train(*NOISY, f"seed={seed}")[0].folder for seed in (0, 1, 2)]
    more = train(*NOISY, "noise.rate=0.1")[0].folder
    rare = train(*DIGITS, "loss=cross_entropy", "imbalance=long_tail", "trainer.max_epochs=1")[0].folder
    for other, key in ((folders[0], "noise"), (more, r"noise\.rate"), (rare, "imbalance")):
        with pytest.raises(LabError, match=f"different data: {key}.* differs"):
            barrier.explain([noisy[0], other], tmp_path, few)
    with pytest.raises(LabError, match=r"different data: imbalance.* differs"):
        barrier.explain([folders[0], rare], tmp_path, few)
    notes = []
    draw = barrier.draw
    monkeypatch.setattr(barrier, "draw", lambda lines, note: notes.append(note) or draw(lines, note))
    with caplog.at_level("INFO"):
        barrier.explain(noisy, tmp_path, few)
    assert "with the noise and the imbalance that cross_entropy, seed 0 learnt from" in notes[0]
    assert "the lowest and the highest of 3: all are in barrier.csv" in caplog.messages[-1]
    barrier.explain(folders, tmp_path, few)
    assert "noise" not in notes[1]


def test_the_panels_of_one_run_are_of_one_height_and_their_ticks_apart(folders):
    from losslab.analysis.explain.landscape import drawing

    (solution,) = solutions(folders[:1], "last")
    passes = Passes(solution, batches(solution, "train", 40, 0))
    figure = drawing.draw([survey(solution, passes, 3, 0, lambda: None)], "a note")
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if "filter lengths" in axes.get_xlabel()]
    heights = [axes.get_window_extent().height for axes in panels]
    assert heights == pytest.approx([heights[0]] * 3, rel=1e-3)
    for axes in panels:
        boxes = sorted((tick.label1.get_window_extent() for tick in axes.xaxis.get_major_ticks()), key=lambda b: b.x0)
        assert all(one.x1 < other.x0 for one, other in pairwise(boxes))

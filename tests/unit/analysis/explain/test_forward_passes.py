"""Forward passes under given weights: BatchNorm statistics, and that the learner does not change."""

import pytest
import torch

from losslab.analysis.explain.forward_passes import ForwardPasses
from losslab.analysis.explain.landscape import compute_landscape, count_passes
from losslab.analysis.explain.solution import load_batches, load_solutions


@pytest.fixture(scope="module")
def resnet(train):
    options = ("data=digits", "data.size=8", "data.eval_batch_size=40", "logger=none", "test=false", "examine=false")
    limits = ("trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1")
    folder = train("model=resnet18", *options, *limits)[0].folder
    return load_solutions([folder], "last")[0]


def test_batch_norm_statistics_are_recomputed_only_on_request(resnet):
    batches = load_batches(resnet, "train", 80, 0)
    network = resnet.learner.network
    kept = {name: value.clone() for name, value in network.named_buffers()}
    recomputed = ForwardPasses(resnet, batches, recompute=True)
    assert recomputed.has_batch_norm
    assert ForwardPasses(resnet, batches).score({}) != recomputed.score({})
    assert all(torch.equal(value, kept[name]) for name, value in network.named_buffers())
    assert not network.training
    assert network.bn1.momentum == 0.1
    with torch.no_grad():
        stem = torch.stack([network.conv1(batch.inputs).mean((0, 2, 3)) for batch in batches]).mean(0)
    assert recomputed._batch_norm_statistics({})["network.bn1.running_mean"].tolist() == pytest.approx(
        stem.tolist(), abs=1e-5
    )


def test_recomputed_statistics_undo_a_scale(resnet):
    """BatchNorm cancels the scale of the weights before it, but only if its statistics are recomputed."""
    batches = load_batches(resnet, "train", 80, 0)
    doubled = {"network.conv1.weight": 2 * resnet.learner.network.conv1.weight}
    recomputed, old = ForwardPasses(resnet, batches, recompute=True), ForwardPasses(resnet, batches)
    assert recomputed.score(doubled).loss == pytest.approx(recomputed.score({}).loss, rel=1e-3)
    assert abs(old.score(doubled).loss / old.score({}).loss - 1) > 1e-3


def test_parameters_of_the_loss_are_substituted(folders, monkeypatch):
    """A foreign criterion can have learned parameters, and use them for losses and for predictions."""
    (solution,) = load_solutions(folders[:1], "best")
    loss, passes = solution.learner.loss, ForwardPasses(solution, load_batches(solution, "train", 50, 0))
    total, to_predictions = loss.total, loss.to_predictions
    loss.scale = torch.nn.Parameter(torch.tensor(1.0))
    monkeypatch.setattr(loss, "total", lambda outputs, target: total(loss.scale * outputs, target))
    monkeypatch.setattr(loss, "to_predictions", lambda outputs: to_predictions(loss.scale * outputs))
    score = passes.score({"loss.scale": torch.tensor(-2.0)})
    assert passes.score({}) != score
    loss.scale.data.fill_(-2)
    assert passes.score({}) == score


def test_computing_a_landscape_does_not_change_the_learner(folders):
    (solution,) = load_solutions(folders[:1], "best")
    before = {name: value.clone() for name, value in solution.learner.state_dict().items()}
    done = []
    passes = ForwardPasses(solution, load_batches(solution, "train", 50, 0), recompute=True)
    passes.on_pass = lambda: done.append(1)
    compute_landscape(passes, 3, 0)
    assert len(done) == count_passes(3) == 9 + 2 * 5
    assert all(torch.equal(value, before[name]) for name, value in solution.learner.state_dict().items())


def test_the_seed_determines_the_examples_and_the_split_does_not_change(folders):
    (solution,) = load_solutions(folders[:1], "best")
    first, same, other = (
        torch.cat([batch.index for batch in load_batches(solution, "train", 60, seed)]) for seed in (0, 0, 1)
    )
    assert first.tolist() == same.tolist() != other.tolist()
    assert len(set(first.tolist())) == 60
    assert solution.experiment.data.splits["train"].size == 1257

import logging

import pytest
import torch
from torch import nn

from losslab.training.callbacks.gradient_norms import layer_norms


def test_layer_norm_covers_all_parameters_of_the_layer():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    network(torch.ones(2, 3)).sum().backward()
    norms = layer_norms(network)
    assert list(norms) == ["0", "2"]
    norm, count = norms["0"]
    flat = torch.cat([p.grad.flatten() for p in network[0].parameters()])
    assert norm.item() == pytest.approx(flat.norm().item(), rel=1e-6)
    assert count == 16


def test_vanishing_gradients_are_reported_with_their_layer(train, caplog):
    with caplog.at_level(logging.WARNING):
        train(
            "model=mlp",
            "data=diabetes",
            "model.hidden=[16,16,16,16,16,16,16,16]",
            "model.activation=sigmoid",
            "trainer.max_epochs=1",
        )
    assert "gradients vanish: at step 1 the gradient of layer 1 is" in caplog.text


def test_exploding_gradients_are_reported_with_their_layer(build, caplog):
    experiment = build(
        "model=mlp", "data=diabetes", "trainer.max_epochs=1", "logger=none", "callbacks.finite_guard=null"
    )
    experiment.learner.network[5].weight.data.mul_(1e6)
    with caplog.at_level(logging.WARNING):
        experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    assert "gradients explode: at step 1 the gradient of layer 1 is" in caplog.text


def test_convergence_is_not_reported_as_vanishing(train, caplog):
    with caplog.at_level(logging.WARNING):
        _, results = train(
            "model=mlp", "model.activation=none", "model.hidden=[4]", "data=line", "optimizer=sgd", "optimizer.lr=0.02",
            "trainer.precision=64-true", "trainer.max_epochs=600", "trainer.check_val_every_n_epoch=100",
        )  # fmt: skip
    assert results["train/loss"] < 1e-6
    assert "gradients" not in caplog.text


def test_infinite_gradient_is_not_reported_as_exploding(build, caplog):
    experiment = build(
        "model=mlp",
        "data=diabetes",
        "trainer.max_epochs=1",
        "callbacks.finite_guard=null",
        "callbacks.checkpoints=null",
    )
    experiment.learner.on_after_backward = lambda: experiment.learner.network[1].weight.grad.fill_(torch.inf)
    with caplog.at_level(logging.WARNING):
        experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    assert "gradients" not in caplog.text

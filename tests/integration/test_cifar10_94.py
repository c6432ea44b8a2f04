"""experiment=cifar10_94 composes the recipe of airbench94, also with other losses, and reaches 94 % on CIFAR-10."""

from itertools import pairwise

import pytest
import torch

from losslab.training import experiment as lab


def names(experiment):
    return {type(callback).__name__ for callback in experiment.trainer.callbacks}


def test_experiment_cifar10_94_is_the_recipe_of_the_paper(build):
    experiment = build("experiment=cifar10_94", "loss.label_smoothing=0.2")
    assert type(experiment.learner.network).__name__ == "Airbench"
    assert experiment.learner.loss.label_smoothing == 0.2
    assert {"Whitening", "Lookahead"} <= names(experiment)
    assert experiment.trainer.precision == "bf16-mixed"
    augment = experiment.data.augment
    assert (augment.crop, augment.flip, augment.reflect, augment.alternate) == (2, True, True, True)
    optimizer = experiment.learner.optimizer(experiment.learner.parameters())
    # Jordan 2024's 11.5 and 0.0153 per 1024 examples, converted to torch's definitions.
    per_step = 1 + 1 / (1 - 0.85)
    options = optimizer.param_groups[0]
    assert options["lr"] == pytest.approx(11.5 / per_step, rel=0.01)
    assert options["weight_decay"] * options["lr"] == pytest.approx(0.0153 / per_step, rel=0.01)
    assert (options["momentum"], options["nesterov"], experiment.data.batch_size) == (0.85, True, 1024)


def test_learning_rate_is_a_triangle(build):
    experiment = build("experiment=cifar10_94")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.5)
    scheduler = experiment.learner.scheduler(optimizer, total_steps=101)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"] / 1.5)
        optimizer.step()
        if len(rates) < 101:
            scheduler.step()
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == pytest.approx(1, abs=0.02)
    assert rates.index(max(rates)) in (22, 23)
    assert rates[-1] == pytest.approx(0.07)
    falls = [a - b for a, b in pairwise(rates[24:])]
    assert falls == pytest.approx([falls[0]] * len(falls))


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "bce", "mse", "kl_div"])
def test_experiment_takes_any_loss_for_classes(build, loss):
    experiment = build("experiment=cifar10_94", f"loss={loss}")
    assert experiment.config["choices"]["loss"] == loss
    assert {"Whitening", "Lookahead"} <= names(experiment)


def test_experiment_takes_other_optimizers_and_schedulers(build):
    experiment = build("experiment=cifar10_94", "optimizer=adamw", "scheduler=cosine")
    assert experiment.learner.optimizer(experiment.learner.parameters()).param_groups[0]["lr"] == 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["label_smoothing", "focal"])
def test_a_small_version_learns_from_two_thousand_images(train, real_cifar, loss):
    _, results = train(
        "experiment=cifar10_94", f"loss={loss}", f"data.dir={real_cifar}", "data.verify=false", "data.subset=2048",
        "data.batch_size=256", "model.widths=[16,32,32]", "trainer.max_epochs=4", "trainer.limit_test_batches=1",
        "trainer.precision=32-true", "logger=none",  # bfloat16 is slow on older CPUs
    )  # fmt: skip
    assert results["val/accuracy"] > 0.33


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_experiment_reaches_94_percent(build, real_cifar):
    recipe = ("experiment=cifar10_94", "loss.label_smoothing=0.2")
    experiment = build("trainer=gpu", *recipe, f"data.dir={real_cifar}", "logger=none")
    # Single runs differ by about 0.15 points.
    assert lab.run(experiment)["test/accuracy"] > 0.936

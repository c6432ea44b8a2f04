import math
from itertools import pairwise

import pytest
import torch
from lightning import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader

from losslab.data.batch import Batch, DataSpec
from losslab.errors import LabError
from losslab.losses import BCE, MSE, CrossEntropy
from losslab.models.learner import Classifier, Regressor
from losslab.targets import Kind, Task

CLASSES = DataSpec(Task.MULTICLASS, Kind.INDEX, (6,), 3, ("a", "b", "c"))


def eigenmodes(steps: int, weight: float, bias: float) -> tuple[float, float]:
    """w_k = w* + Σ (1 - 0.01 λ_i)^k v_i v_iᵀ (w_0 - w*) for x = [1, 2, 3], y = 2x, in float64."""
    x = torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]], dtype=torch.float64)
    hessian = 2 * x.T @ x / 3
    values, vectors = torch.linalg.eigh(hessian)
    optimum = torch.tensor([2.0, 0.0], dtype=torch.float64)
    start = torch.tensor([weight, bias], dtype=torch.float64) - optimum
    end = optimum + vectors @ ((1 - 0.01 * values) ** steps * (vectors.T @ start))
    return end[0].item(), end[1].item()


def test_the_hessian_of_the_three_points_has_known_eigenvalues():
    x = torch.tensor([[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]], dtype=torch.float64)
    slow, fast = torch.linalg.eigvalsh(2 * x.T @ x / 3).tolist()
    assert fast == pytest.approx(11.0929, abs=5e-5)
    assert slow == pytest.approx(0.2404, abs=5e-5)
    assert 2 / fast == pytest.approx(0.1803, abs=5e-5)
    assert (1 - 0.01 * slow) ** 1000 == pytest.approx(0.090, abs=5e-4)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [pytest.param("32-true", 1e-5, marks=pytest.mark.slow), ("64-true", 1e-10)]
)
def test_the_linear_run_equals_gradient_descent_in_closed_form(build, precision, tolerance):
    experiment = build(f"trainer.precision={precision}", "trainer.max_epochs=1000", "~callbacks", "logger=none")
    network = experiment.learner.network
    start = network.weight.item(), network.bias.item()
    seen = {}

    class Remember(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step % 100 == 0:
                seen[trainer.global_step] = network.weight.item(), network.bias.item()

    experiment.trainer.callbacks.append(Remember())
    experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
    assert list(seen) == list(range(100, 1001, 100))
    for steps, (weight, bias) in seen.items():
        expected = eigenmodes(steps, *start)
        assert weight == pytest.approx(expected[0], rel=tolerance)
        assert bias == pytest.approx(expected[1], rel=tolerance)


def learner(loss, spec=CLASSES, kind=Classifier, **options):
    torch.manual_seed(0)
    return kind(nn.Linear(6, spec.targets), loss, spec, **options)


def batch(n: int) -> Batch:
    random = torch.Generator().manual_seed(n)
    truth = torch.randint(3, (n,), generator=random)
    return Batch(torch.randn(n, 6, generator=random), truth, truth, torch.arange(n))


def test_a_loss_that_cannot_take_the_targets_is_refused():
    with pytest.raises(LabError, match="CrossEntropy takes index or probabilities targets, these data give values"):
        learner(CrossEntropy(), DataSpec(Task.REGRESSION, Kind.VALUES, (6,), 1), Regressor)


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(weight=[1.0, 5.0, 0.1]), MSE(), BCE()])
def test_the_logged_loss_is_the_mean_over_examples_not_over_batches(loss):
    model = learner(loss, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    parts = [batch(16), batch(16), batch(5)]
    loader = DataLoader(parts, batch_size=None)
    bare = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=1, **bare)
    trainer.fit(model, loader, loader)
    whole = Batch(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    total, weight = model.step(whole, "test")[1:]
    assert model.values["train/loss"] == pytest.approx((total / weight).item(), rel=1e-6)
    assert model.values["val/loss"] == pytest.approx((total / weight).item(), rel=1e-6)
    assert trainer.callback_metrics["val/accuracy"] == pytest.approx(model.values["val/accuracy"])


def test_bfloat16_outputs_are_measured_in_float32():
    model = learner(CrossEntropy())
    outputs = torch.randn(4, 3).bfloat16()
    assert model.probabilities(outputs).dtype == torch.float32


def test_dropout_is_a_function_of_seed_epoch_and_batch(build):
    def masks(seed: int, *, other_draws: int = 0) -> list[list[list[bool]]]:
        experiment = build(
            f"seed={seed}", "trainer.max_epochs=2", "data=diabetes", "~callbacks", "logger=none", "data.batch_size=100"
        )
        seen = []

        def remember(layer, _, output):
            if layer.training:
                seen.append((output == 0).tolist())
                torch.rand(other_draws)

        experiment.learner.network = nn.Sequential(nn.Dropout(0.5), experiment.learner.network)
        experiment.learner.network[0].register_forward_hook(remember)
        experiment.trainer.fit(experiment.learner, datamodule=experiment.data)
        return seen

    first = masks(0)
    assert first == masks(0, other_draws=7), "other random draws in between changed the dropout masks"
    assert first != masks(1)
    assert all(a != b for a, b in pairwise(first))


def test_uniform_outputs_start_classification_at_ln_10(build):
    experiment = build("model=cifar_cnn", "data=digits", "trainer.max_epochs=1")
    network = experiment.learner.network
    torch.nn.init.zeros_(network[-1].weight)
    torch.nn.init.zeros_(network[-1].bias)
    with torch.no_grad():
        experiment.data.setup()
        _, total, weight = experiment.learner.step(next(iter(experiment.data.val_dataloader())), "val")
    assert (total / weight).item() == pytest.approx(math.log(10), abs=1e-6)

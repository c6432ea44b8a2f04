"""Initial gradients of all losses for one untrained network and batch, and gradients of confident mistakes."""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from losslab.data.batch import Batch
from losslab.io.figures import GREY, loss_colour, new_figure, save_png
from losslab.io.tables import write_csv
from losslab.losses import BCE, Brier, CrossEntropy, Distillation, RescaledMSE, catalog
from losslab.losses.base import Loss
from losslab.losses.contract.sample_inputs import is_classification
from losslab.models.learner import Learner
from losslab.models.linear import mlp
from losslab.targets import encode
from losslab.training import experiment as lab
from losslab.training.config import compose
from losslab.training.preflight import first_batch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGINS = (0.0, -2.0, -5.0, -10.0)
_CLASSES = 10
_COMMON = ("model=mlp", "data.batch_size=null", "trainer=cpu", "trainer.precision=64-true")
_TITLES = {"digits": "classes (digits)", "diabetes": "values (diabetes)", "counts": "counts"}
_TICKS = (0.01, 0.1, 1, 10, 100)


@dataclass(frozen=True)
class Setting:
    """A data set on which the gradients of losses are compared, and the reference loss."""

    name: str
    overrides: tuple[str, ...]
    reference: str


DIGITS = Setting("digits", ("data=digits", "data.size=8"), "cross_entropy")
DIABETES = Setting("diabetes", ("data=diabetes",), "mse")
COUNTS = Setting("counts", ("data=counts",), "mse")


@dataclass(frozen=True)
class FirstGradient:
    """Initial gradient of one loss."""

    setting: str
    reference: str
    loss: str
    norm: float
    """L2 norm of the gradient of the mean training loss with respect to all parameters."""
    ratio: float
    """This norm divided by the norm under the reference loss."""


def measure() -> list[FirstGradient]:
    """Measure every loss of the catalog; each setting is sorted from the largest norm to the smallest."""
    losses: dict[Setting, dict[str, Any]] = {DIGITS: {}, DIABETES: {}, COUNTS: {}}
    for name in catalog.names():
        config = catalog.config(name)
        losses[_setting(instantiate(config))][name] = config
    return [gradient for setting, configs in losses.items() for gradient in _measure_setting(setting, configs)]


def _setting(loss: Loss) -> Setting:
    if is_classification(loss):
        return DIGITS
    outputs = torch.ones(1, loss.outputs(1))
    return DIABETES if torch.equal(loss.to_predictions(outputs), outputs[:, :1]) else COUNTS


def _measure_setting(setting: Setting, losses: dict[str, Any]) -> Iterator[FirstGradient]:
    config = compose([*_COMMON, *setting.overrides, f"loss={setting.reference}"], run_dir="nowhere")
    data = lab.build_on_any_machine(config).data
    data.setup()
    batch, counts, norms = first_batch(data), data.class_counts, {}
    for name, loss in ({setting.reference: config["loss"]} | losses).items():
        learner = lab.build_on_any_machine(config | {"loss": loss}).learner
        if counts is not None:
            learner.loss.set_class_counts(counts)
        norms[name] = _norm(learner, batch)
    for name in sorted(norms, key=lambda name: -norms[name]):
        yield FirstGradient(setting.name, setting.reference, name, norms[name], norms[name] / norms[setting.reference])


def _norm(learner: Learner, batch: Batch) -> float:
    """Compute ‖∂ mean loss / ∂ parameters‖."""
    inputs = batch.inputs.double()
    target = encode(batch.target, learner.spec.kind, learner.kind, learner.spec.targets, torch.float64)
    for module in learner.loss.modules():
        if isinstance(module, Distillation):
            module._teacher = (_teacher(inputs, batch.target),)  # noqa: SLF001 -- replaces the run folder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # fixes the views that gjs draws
        outputs = learner.loss.loss_inputs(learner.network(inputs), inputs, learner.network)
        gradients: Any = torch.autograd.grad(learner.loss(outputs, target), list(learner.network.parameters()))
    return float(torch.cat([gradient.flatten() for gradient in gradients]).norm())


def _teacher(inputs: Tensor, target: Tensor) -> nn.Module:
    """Train a teacher on the examples, because the gradient of distillation depends on what the teacher predicts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = mlp(tuple(inputs.shape[1:]), _CLASSES).double()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), target).backward()
        optimizer.step()
    return network.requires_grad_(requires_grad=False)


def confident_slopes() -> dict[str, list[float]]:
    """Compute ∂loss/∂z at each margin.

    z is the logit of the correct class, where the other nine logits are 0, or the single logit of a positive label.
    """
    positive, first = torch.ones(len(MARGINS), 1).double(), torch.zeros(len(MARGINS), dtype=torch.int64)
    cross_entropy, brier, squared, bce = CrossEntropy(), Brier(), RescaledMSE(), BCE()
    return {
        "cross_entropy (softmax): p − y": _slope(lambda z: cross_entropy.per_example(z, first), _CLASSES),
        "squared error on the softmax (brier)": _slope(lambda z: brier.per_example(z, first), _CLASSES),
        "squared error on the logits (rescaled_mse)": _slope(lambda z: squared.per_example(z, first), _CLASSES),
        "bce (sigmoid): p − y": _slope(lambda z: bce.per_example(z, positive), 1),
        "squared error on the sigmoid": _slope(lambda z: (z.sigmoid() - 1).square().squeeze(1), 1),
    }


def _slope(loss: Callable[[Tensor], Tensor], columns: int) -> list[float]:
    margins = torch.tensor(MARGINS, dtype=torch.float64, requires_grad=True)
    rest = torch.zeros(len(MARGINS), columns - 1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(loss(torch.cat([margins[:, None], rest], dim=1)).sum(), margins)
    return gradient.tolist()


def save(gradients: Sequence[FirstGradient], folder: Path) -> None:
    """Write initial_gradients.png and initial_gradients.csv."""
    save_png(draw(gradients), folder / "initial_gradients.png")
    rows = ((one.setting, one.reference, one.loss, f"{one.norm:.5g}", f"{one.ratio:.5g}") for one in gradients)
    write_csv(folder / "initial_gradients.csv", ["setting", "reference", "loss", "norm", "ratio"], rows)


def read(folder: Path) -> list[FirstGradient]:
    """Read the CSV file that `save` wrote."""
    with (folder / "initial_gradients.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    return [
        FirstGradient(setting, reference, loss, float(norm), float(ratio))
        for setting, reference, loss, norm, ratio in rows
    ]


def draw(gradients: Sequence[FirstGradient]) -> "Figure":
    """Draw a bar for each loss: the norm of its initial gradient relative to the reference, on a log axis."""
    panels = [[one for one in gradients if one.setting == name] for name in _TITLES]
    figure = new_figure(9.6, 9.2)
    figure.suptitle(_finding(gradients), fontsize="large")
    grid = figure.add_gridspec(2, 2, height_ratios=[len(panels[1]), len(panels[2]) + 1.5])
    for cell, panel in zip((grid[:, 0], grid[0, 1], grid[1, 1]), panels, strict=True):
        _draw_bars(figure.add_subplot(cell), panel)
    figure.supxlabel(
        "norm of the gradient of the mean training loss with respect to all weights (log axis)",
        fontsize="medium",
    )
    return figure


def _finding(gradients: Sequence[FirstGradient]) -> str:
    ratios = {one.loss: one.ratio for one in gradients if one.setting == "digits"}
    longest, shortest = max(ratios, key=ratios.__getitem__), min(ratios, key=ratios.__getitem__)
    times = f"{float(f'{ratios[longest] / ratios[shortest]:.2g}'):,.0f}"
    return (
        f"For the same untrained network and examples, the norm of the initial gradient\n"
        f"of {longest} is about {times} times that of {shortest}"
    )


def _draw_bars(axes: "Axes", panel: list[FirstGradient]) -> None:
    names, ratios, reference = [one.loss for one in panel], [one.ratio for one in panel], panel[0].reference
    colours = [loss_colour(name) for name in names]
    axes.barh(names, [ratio - 1 for ratio in ratios], left=1, color=colours, height=0.72)
    for row, ratio in enumerate(ratios):
        side, offset = ("left", 3) if ratio >= 1 else ("right", -3)
        axes.annotate(
            f"{ratio:.2g}" if ratio < 100 else f"{ratio:.0f}", (ratio, row), xytext=(offset, 0),
            textcoords="offset points", va="center", ha=side, fontsize="x-small",
        )  # fmt: skip
    axes.axvline(1, color=GREY, linewidth=1.2)
    axes.set_xscale("log")
    axes.set_xlim(min(*ratios, 0.2) / 4, max(max(ratios) * 2.5, 3))
    axes.set_xticks([tick for tick in _TICKS if axes.get_xlim()[0] < tick < axes.get_xlim()[1]])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.invert_yaxis()
    axes.get_yticklabels()[names.index(reference)].set_fontweight("bold")
    axes.margins(y=0.01)
    axes.tick_params(axis="y", labelsize="small", length=0)
    axes.set_title(f"{_TITLES[panel[0].setting]}: relative to {reference}", fontsize="medium")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)

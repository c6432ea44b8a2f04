"""The images that cost most."""

import numpy as np
import torch
from matplotlib.figure import Figure

from losslab.analysis.evaluate import metrics
from losslab.analysis.evaluate.figures import plural, short
from losslab.analysis.evaluate.predictions import Answers, Array
from losslab.data.batch import Examples, Source
from losslab.io.figures import COLOURS
from losslab.targets import Task

_COLUMNS = 5


def draw(answers: Answers, source: Source, rows: Array) -> Figure:
    """The images of these rows, each with truth, target, prediction and loss; framed where target is not truth."""
    images = pixels(source, answers.index[rows])
    height = -(-len(rows) // _COLUMNS)
    tall = 0.4 + 2.75 * height
    figure = Figure(figsize=(10.5, tall), dpi=120)
    # By hand: to have 25 captions laid out takes a second.
    place = {"left": 0.01, "right": 0.99, "bottom": 0.1 / tall, "top": 1 - 1.05 / tall, "wspace": 0.06, "hspace": 0.36}
    panel = list(figure.subplots(height, _COLUMNS, squeeze=False, gridspec_kw=place).flat)
    for axes in panel:
        axes.set_axis_off()
    for axes, row, image in zip(panel, rows, images, strict=False):
        axes.set_axis_on()
        axes.set_xticks([])
        axes.set_yticks([])
        axes.imshow(image, cmap="gray" if image.ndim == 2 else None, interpolation="nearest")
        wrong = bool(answers.mislabelled[row])
        for spine in axes.spines.values():
            spine.set(color=COLOURS[1] if wrong else "0.7", linewidth=3 if wrong else 0.8)
        axes.set_title(_caption(answers, row), fontsize=8, color=COLOURS[1] if wrong else "black", loc="left")
    noisy = int(answers.mislabelled[rows].sum())
    marked = f"; {noisy} with a target that is not the truth (framed)" if noisy else ""
    figure.suptitle(
        f"The {plural(len(rows), 'example')} of highest loss{marked}", fontsize=12, y=1 - 0.12 / tall, va="top"
    )
    return figure


def pixels(source: Source, index: Array) -> list[Array]:
    """The images of examples by their index: (H, W, 3) or (H, W), bytes or scaled to 0..1."""
    images = _taken(source, torch.from_numpy(index)).inputs.cpu()
    if images.dtype != torch.uint8:  # as the network sees them: (N, channels, H, W)
        images = images.permute(0, 2, 3, 1).double()
        low, high = (f(images, (1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
        images = (images - low) / (high - low).clamp(min=1e-12)
    return [np.squeeze(image, 2) if image.shape[2] == 1 else image for image in images.numpy()]


def _taken(source: Source, index: torch.Tensor) -> Examples:
    if not isinstance(source, Examples):
        return source.take(index)  # files are numbered by their place
    place = {number: row for row, number in enumerate(source.index.tolist())}
    rows = torch.tensor([place[number] for number in index.tolist()], dtype=torch.int64)
    return source.take(rows.to(source.device))


def _caption(answers: Answers, row: int) -> str:
    named = metrics.names(answers)

    def said(values: Array) -> str:
        if answers.facts.task is Task.REGRESSION:
            return ", ".join(f"{value:.3g}" for value in values[:3])
        if answers.facts.task is Task.MULTILABEL:
            return short(" ".join(name for name, value in zip(named, values, strict=True) if value > 0.5) or "none", 24)
        return short(named[int(np.ravel(values)[0])], 22)

    target = answers.target_class if answers.facts.task is Task.MULTICLASS else answers.target
    sure = ""
    if answers.facts.task in {Task.MULTICLASS, Task.BINARY}:
        sure = f" ({np.ravel(answers.confidence[row])[0]:.0%})"
    lines = [f"#{answers.index[row]}   loss {answers.loss[row]:.4g}", f"truth {said(answers.truth[row])}"]
    lines += [f"target {said(target[row])}"]
    lines += [f"predicted {said(answers.prediction[row])}{sure}"]
    return "\n".join(lines)

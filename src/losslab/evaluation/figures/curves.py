"""ROC and precision-recall curves."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from losslab.evaluation.answers import Answers
from losslab.evaluation.figures import STYLES, panels, short
from losslab.evaluation.measures import Curve, Curves
from losslab.targets import Task

_TOLD_APART = 12
"""Up to so many classes each curve has its own colour; of more, only the worst have."""
_WORST = 5
_AVERAGES: dict[str, dict[str, Any]] = {
    "micro": {"color": "#000000", "linestyle": (0, (1, 1)), "linewidth": 2.5},
    "macro": {"color": "#000000", "linestyle": "-", "linewidth": 2.5},
}


def draw(found: Curves, answers: Answers) -> Figure:
    """The curve of each class against the rest, and their averages; for a binary task one curve."""
    area = "AUC" if found.kind == "roc" else "AP"
    several = len(found.each) + len(found.missing) > 1
    figure, (axes,) = panels(8.0 if several else 5.4, 5.4)
    _chance(found, axes, answers)
    drawn: dict[str, Any] = {} if found.kind == "roc" else {"drawstyle": "steps-post"}
    for curve, style in _styled(found.each):
        label = None if style["color"] == "0.8" else f"{short(curve.name, 20)}  {curve.area:.4f}"
        axes.plot(curve.x, curve.y, label=label, **drawn, **style)
    for curve in found.averages:
        label = f"{curve.name} average  {curve.area:.4f}"
        axes.plot(curve.x, curve.y, label=label, **(drawn if curve.name == "micro" else {}), **_AVERAGES[curve.name])
    if found.kind == "roc":
        axes.set(xlabel="false-positive rate", ylabel="true-positive rate")
    else:
        axes.set(xlabel="recall", ylabel="precision")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title=_finding(found, area, answers))
    axes.set_aspect("equal")
    axes.grid(alpha=0.3)
    place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)} if several else {"loc": "lower right"}
    axes.legend(title=area, fontsize=9, **place)
    return figure


def _chance(found: Curves, axes: Axes, answers: Answers) -> None:
    if found.kind == "roc":
        axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1)
        axes.text(0.62, 0.58, "chance", color="0.45", rotation=45, rotation_mode="anchor", fontsize=9)
    elif answers.truth.ndim == 2 and answers.truth.shape[1] == 1:
        share = float(answers.truth.mean())
        axes.axhline(share, color="0.6", linestyle="--", linewidth=1)
        axes.text(0.02, share + 0.015, "chance", color="0.45", fontsize=9)


def _styled(each: list[Curve]) -> list[tuple[Curve, dict[str, Any]]]:
    """Curves in the order they are drawn, each with its style; grey ones first."""
    if len(each) <= _TOLD_APART:
        return [(curve, STYLES[place] | {"linewidth": 1.3}) for place, curve in enumerate(each)]
    by_area = sorted(each, key=lambda curve: curve.area)
    grey: dict[str, Any] = {"color": "0.8", "linestyle": "-", "linewidth": 0.8}
    coloured = [(curve, STYLES[place] | {"linewidth": 1.3}) for place, curve in enumerate(by_area[:_WORST])]
    return [(curve, grey) for curve in by_area[_WORST:]] + coloured


def _finding(found: Curves, area: str, answers: Answers) -> str:
    kind = "ROC" if found.kind == "roc" else "PR"
    if len(found.each) == 1:
        return f"{kind} of {short(found.each[0].name, 20)}: {area} {found.each[0].area:.4f}"
    worst = min(found.each, key=lambda curve: curve.area)
    macro = next(curve for curve in found.averages if curve.name == "macro")
    some = f"; {len(found.missing)} without a curve" if found.missing else ""
    unit = "class" if answers.facts.task is Task.MULTICLASS else "label"
    lowest = f"lowest: {unit} {short(worst.name, 20)}, {worst.area:.4f}"
    return f"{kind}: macro {area} {macro.area:.4f}; {lowest}{some}"

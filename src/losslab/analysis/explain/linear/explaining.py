"""Linear models: the loss surface with the way training took, and what outliers do to the solution."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from losslab.errors import LabError
from losslab.runs import RunFolder


def applies(config: dict[str, Any]) -> bool:
    """Whether a run trained the linear model."""
    return bool(config["model"]["_target_"] == "losslab.models.linear.linear")


def explain(runs: Sequence[RunFolder], output: Path | None) -> list[Path]:
    """Draw surface.png, and outliers.png where targets are not the truth → their paths.

    Raises:
        LabError: a run is not there or has nothing to show, or it has too many weights.
    """
    from losslab.analysis.explain.figures import keep, place  # noqa: PLC0415
    from losslab.analysis.explain.linear import outliers, surface  # noqa: PLC0415
    from losslab.analysis.explain.linear.case import Case  # noqa: PLC0415
    from losslab.analysis.explain.linear.surface import through  # noqa: PLC0415
    from losslab.analysis.explain.solution import solutions  # noqa: PLC0415

    place(runs, output)
    # The last weights and not the best: those were chosen by clean validation data, which hides what outliers do.
    cases = [Case.of(solution) for solution in solutions(runs, "last")]
    first = cases[0]
    if any(case.problem.names != first.problem.names for case in cases):
        raise LabError("linear models of different sizes have no weights in common: explain them one by one")
    origin = first.centre if len(cases) == 1 or first.problem.law is None else first.problem.law
    ways = [case.path.weights for case in cases if case.path is not None and len(case.path.steps) > 1]
    plane = through(origin, ways, first.problem.hessian(first.centre))
    drawn = [keep(surface.draw(cases, plane), "surface", runs, output, surface.findings(cases))]
    if outliers.share(first) > 0:
        shifts = [shift for case in cases if (shift := outliers.Shift.of(case)) is not None]
        if shifts:  # else there is no minimum that could be moved, as the surface says
            figure = outliers.draw(cases, shifts)
            drawn.append(keep(figure, "outliers", runs, output, [outliers.finding(cases, shifts)]))
    return drawn

"""Explanation `linear`: the loss surface of linear models, computed exactly, and the effect of outliers.

run          a run with its problem, its minimum and its recorded trajectory
problem      the training loss as a function of the weights, and its minimum
surface      surface.png
outliers     outliers.png
"""

from collections.abc import Sequence
from pathlib import Path

from losslab.analysis.explain.figures import figures_folder, save_figure
from losslab.analysis.explain.linear import outliers, surface
from losslab.analysis.explain.linear.run import LinearRun
from losslab.analysis.explain.solution import load_solutions
from losslab.errors import LabError
from losslab.runs import RunFolder

__all__ = ["explain"]


def explain(folders: Sequence[RunFolder], output: Path | None) -> list[Path]:
    """Draw surface.png, and outliers.png if some targets differ from the truth → their paths.

    Raises:
        LabError: a run does not exist, has too many weights, or the runs have models of different sizes.
    """
    figures_folder(folders, output)
    # The last weights, as the best were chosen on clean validation data, which hides the effect of outliers.
    runs = [LinearRun.of(solution) for solution in load_solutions(folders, "last")]
    first = runs[0]
    if any(run.problem.names != first.problem.names for run in runs):
        raise LabError("linear models of different sizes have no weights in common: explain them one by one")
    origin = first.centre if len(runs) == 1 or first.problem.true_weights is None else first.problem.true_weights
    paths = [run.trajectory.weights for run in runs if run.trajectory is not None and len(run.trajectory.steps) > 1]
    plane = surface.plane_through(origin, paths, first.problem.hessian(first.centre))
    written = [save_figure(surface.draw(runs, plane), "surface", folders, output, surface.findings(runs))]
    has_outliers = outliers.outlier_share(first) > 0
    shifts = [shift for run in runs if has_outliers and (shift := outliers.Shift.of(run)) is not None]
    if shifts:
        finding = outliers.finding(runs, shifts)
        written.append(save_figure(outliers.draw(runs, shifts), "outliers", folders, output, [finding]))
    return written

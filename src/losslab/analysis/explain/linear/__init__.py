"""Explanation `linear`: the exact loss surface of linear models, and the effect of outliers.

training_loss   the training loss as a function of the weights, and the search for its minimum
run             a run of the linear model, the minimum of its loss, and the recorded trajectory of its weights
figures         draws surface.png and outliers.png
"""

from collections.abc import Sequence
from pathlib import Path

from losslab.analysis.explain.figures import figures_folder, save_figure
from losslab.analysis.explain.linear import figures
from losslab.analysis.explain.linear.run import LinearRun
from losslab.analysis.explain.solution import load_solutions
from losslab.errors import LabError
from losslab.runs import RunFolder

__all__ = ["explain"]


def explain(folders: Sequence[RunFolder], output: Path | None) -> list[Path]:
    """Draw surface.png, and outliers.png if some targets differ from the truth, and return the paths of both.

    Raises:
        LabError: a run does not exist or has too many weights, or the runs have models of different sizes.
    """
    figures_folder(folders, output)
    # Validation data have no outliers. The best weights, which they select, would hide the effect of outliers.
    runs = [LinearRun.of(solution) for solution in load_solutions(folders, "last")]
    if any(run.loss.names != runs[0].loss.names for run in runs):
        raise LabError("the linear models have different weights: explain each run separately")
    figure, findings = figures.draw_surfaces(runs), figures.describe_ends(runs)
    written = [save_figure(figure, "surface", folders, output, findings)]
    if runs[0].outlier_share > 0:
        runs = [run for run in runs if run.minimum.reached and run.clean_minimum.reached]
        if runs:
            findings = [figures.describe_shifts(runs)]
            written.append(save_figure(figures.draw_outliers(runs), "outliers", folders, output, findings))
    return written

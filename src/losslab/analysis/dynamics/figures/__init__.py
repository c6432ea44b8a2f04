"""Figures of training dynamics, of one run or of several side by side. `draw_all` draws every figure that applies.

distributions   histograms of losses and of margins
gradients       gradient norms of examples and of layers
noise           examples with right and with wrong labels
style           what the figures share
"""

from losslab.analysis.dynamics.figures import distributions, gradients, noise
from losslab.analysis.dynamics.figures.style import DrawnFigure, Records
from losslab.errors import LabError

__all__ = ["DrawnFigure", "Records", "draw_all"]


def draw_all(records: Records) -> dict[str, DrawnFigure]:
    """Draw every figure that applies to these runs, by file name.

    Raises:
        LabError: the runs have different tasks, or every snapshot of a run has NaN or infinite values.
    """
    finite = {label: record.finite() for label, record in records.items()}
    kept = {label: record for label, record in finite.items() if record is not None}
    if len(kept) < len(records):
        label = next(label for label in records if label not in kept)
        raise LabError(f"{label}: every snapshot has NaN or infinite values, there is nothing to draw")
    tasks = {record.task for record in kept.values()}
    if len(tasks) > 1:
        raise LabError(f"runs of {' and '.join(sorted(tasks))} cannot share a figure: explain each by itself")
    margin = "dynamics_residual" if tasks == {"regression"} else "dynamics_margin"
    drawn = {
        "dynamics_loss": distributions.draw_losses(kept),
        margin: distributions.draw_margins(kept),
        "dynamics_gradient": gradients.draw_gradients(kept),
    }
    if any(record.has_noise for record in kept.values()):
        drawn["dynamics_noise"] = noise.draw(kept)
    if all(len(record.layers) > 1 for record in kept.values()):
        drawn["dynamics_layers"] = gradients.draw_layers(kept)
    return drawn

"""Figures of training dynamics, of one run or of several runs side by side. `draw_all` draws them.

distributions   histograms of losses and of margins
over_epochs     gradient norms of examples and of layers, and examples with wrong labels
style           titles and number formats
"""

import logging

from losslab.analysis.dynamics.figures import distributions, over_epochs
from losslab.analysis.dynamics.figures.style import DrawnFigure, Records
from losslab.analysis.dynamics.record import Record
from losslab.errors import LabError

__all__ = ["DrawnFigure", "Records", "draw_all"]

logger = logging.getLogger(__name__)


def draw_all(records: Records) -> dict[str, DrawnFigure]:
    """Draw all figures that apply to these runs, and return them by file name without suffix.

    Raises:
        LabError: the runs have different tasks, or all snapshots of a run have NaN or infinite values.
    """
    kept: dict[str, Record] = {}
    for label, record in records.items():
        finite = record.finite()
        if finite is None:
            raise LabError(f"{label}: every snapshot has NaN or infinite values, so there is nothing to draw")
        kept[label] = finite
    tasks = {record.task for record in kept.values()}
    if len(tasks) > 1:
        raise LabError(f"runs of {' and '.join(sorted(tasks))} cannot share a figure: explain each separately")
    margin = "dynamics_residual" if tasks == {"regression"} else "dynamics_margin"
    with_losses = {label: record for label, record in kept.items() if record.has_losses}
    for label in kept.keys() - with_losses.keys():
        logger.info("no figure of losses%s: the loss scores a batch as a whole", f" of {label}" * bool(label))
    drawn = {"dynamics_loss": distributions.draw_losses(with_losses)} if with_losses else {}
    drawn |= {margin: distributions.draw_margins(kept), "dynamics_gradient": over_epochs.draw_gradients(kept)}
    if any(record.has_noise for record in kept.values()):
        drawn["dynamics_noise"] = over_epochs.draw_noise(kept)
    if all(len(record.layers) > 1 for record in kept.values()):
        drawn["dynamics_layers"] = over_epochs.draw_layers(kept)
    return drawn

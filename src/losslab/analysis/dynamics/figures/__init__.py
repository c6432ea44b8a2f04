"""The figures of one run, or of several side by side."""

from losslab.analysis.dynamics.figures import gradients, losses, margins, noise
from losslab.analysis.dynamics.figures.style import Drawn, Records
from losslab.analysis.dynamics.record import Record
from losslab.errors import LabError

__all__ = ["Drawn", "Records", "pictures"]


def pictures(records: Records) -> dict[str, Drawn]:
    """Every figure that these runs have something for, by the name of its file.

    Raises:
        LabError: the runs have not the same task, so that they share no axis, or one has no finite number.
    """
    records = {label: _finite(label, record) for label, record in records.items()}
    tasks = {record.task for record in records.values()}
    if len(tasks) > 1:
        raise LabError(f"runs of {' and '.join(sorted(tasks))} share no figure: explain each by itself")
    margin = "dynamics_residual" if tasks == {"regression"} else "dynamics_margin"
    drawn = {
        "dynamics_loss": losses.draw(records),
        margin: margins.draw(records),
        "dynamics_gradient": gradients.draw_gradients(records),
    }
    if any(record.has_noise for record in records.values()):
        drawn["dynamics_noise"] = noise.draw(records)
    if all(len(record.layers) > 1 for record in records.values()):
        drawn["dynamics_layers"] = gradients.draw_layers(records)
    return drawn


def _finite(label: str, record: Record) -> Record:
    found = record.finite()
    if found is None:
        raise LabError(f"{label}: every look met a NaN or an infinity, there is nothing to draw")
    return found

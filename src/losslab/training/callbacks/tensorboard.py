"""The callback that writes the TensorBoard pages of custom scalars, hyperparameters and the network's graph."""

import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from losslab.doctor.probe import uncompiled
from losslab.models.learner import Learner

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class Dashboard(Callback):
    """Writes the custom scalars, hparams and graph pages of TensorBoard.

    Args:
        hparams: the hyperparameters by name; only numbers, strings and booleans are written. The hparams
            page shows them next to the final values of the run's curves.
        graph: whether to trace the network for the graph page.
    """

    def __init__(self, hparams: dict[str, Any] | None = None, *, graph: bool = True) -> None:
        self.hparams = {k: v for k, v in (hparams or {}).items() if isinstance(v, int | float | str)}
        self.graph = graph

    def on_fit_start(self, trainer: Trainer, pl_module: Learner) -> None:
        for writer in summary_writers(trainer):
            writer.add_custom_scalars(chart_layout(pl_module.epoch_metric_names))
            self._write_hparams(writer, start=True)
            if self.graph:
                _write_graph(writer, pl_module, trainer)

    def teardown(self, trainer: Trainer, pl_module: Learner, stage: str) -> None:
        if stage == "fit":
            for writer in summary_writers(trainer):
                self._write_hparams(writer, start=False)

    def _write_hparams(self, writer: "SummaryWriter", *, start: bool) -> None:
        from torch.utils.tensorboard.summary import hparams  # noqa: PLC0415

        # An experiment summary of the first run would determine the columns for all runs. Without one, TensorBoard
        # shows the hyperparameters of all runs, and takes the results from the curves.
        _, session_start, session_end = hparams(self.hparams, {})
        writer._get_file_writer().add_summary(session_start if start else session_end)  # noqa: SLF001


def summary_writers(trainer: Trainer) -> list["SummaryWriter"]:
    """Return the writers of the trainer's TensorBoard loggers; an empty list except on rank 0."""
    if not trainer.is_global_zero:
        return []
    return [board.experiment for board in trainer.loggers if isinstance(board, TensorBoardLogger)]


def add_png(trainer: Trainer, tag: str, png: bytes, shape: tuple[int, ...]) -> None:
    """Write an encoded image of this shape (height, width, channels) to the trainer's TensorBoard loggers."""
    for writer in summary_writers(trainer):
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415 -- only if there is a logger

        height, width, channels = shape
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png)
        # add_image would decode and encode the image again.
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        writer._get_file_writer().add_summary(summary, trainer.global_step)  # noqa: SLF001


def chart_layout(curves: list[str]) -> dict[str, dict[str, list[Any]]]:
    """Return the charts of the custom scalars page for curves such as train/loss and val/loss."""
    names = dict.fromkeys(curve.partition("/")[2] for curve in curves)
    splits = {name: [split for split in ("train", "val") if f"{split}/{name}" in curves] for name in names}
    charts = {name: ["Multiline", [f"{split}/{name}$" for split in splits[name]]] for name in names}
    return {
        "training and validation": {name: chart for name, chart in charts.items() if len(splits[name]) > 1},
        "validation only": {name: chart for name, chart in charts.items() if len(splits[name]) == 1},
        "optimisation": {"learning rate": ["Multiline", ["^lr$"]], "gradient norms": ["Multiline", ["grad_norm/.*"]]},
    }


def _write_graph(writer: "SummaryWriter", learner: Learner, trainer: Trainer) -> None:
    dtype = next(learner.parameters()).dtype
    example = torch.zeros(1, *learner.spec.input_shape, dtype=dtype, device=learner.device)
    was_training = learner.network.training
    learner.network.eval()  # a batch of one example has no batch statistics
    try:
        with warnings.catch_warnings(), trainer.precision_plugin.forward_context(), uncompiled(learner.network):
            warnings.simplefilter("ignore")  # add_graph calls torch.jit.trace, which is deprecated
            writer.add_graph(learner.network, example)
    except Exception as error:  # noqa: BLE001 -- any network may fail to be traced, and training needs no graph
        logger.warning("the graph page of TensorBoard stays empty: the network cannot be traced (%s)", error)
    learner.network.train(was_training)

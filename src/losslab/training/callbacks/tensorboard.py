"""What TensorBoard shows besides curves: charts side by side, hyper-parameters with results, the network's graph."""

import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from lightning import Trainer
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from losslab.models.learner import Learner, uncompiled

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


class Dashboard(Callback):
    """Lays out TensorBoard's custom scalars, and writes its hparams and graph pages.

    Args:
        hparams: name → number, string or boolean, for the table of hyper-parameters. Its results are the final
            values of the run's own curves.
        graph: whether to trace the network for the graph page.
    """

    def __init__(self, hparams: dict[str, Any] | None = None, *, graph: bool = True) -> None:
        self.hparams = {k: v for k, v in (hparams or {}).items() if isinstance(v, int | float | str)}
        self.graph = graph

    def on_fit_start(self, trainer: Trainer, pl_module: Learner) -> None:
        for writer in _writers(trainer):
            writer.add_custom_scalars(_layout(pl_module.epoch_metric_names))
            self._write_hparams(writer, start=True)
            if self.graph:
                _write_graph(writer, pl_module, trainer)

    def teardown(self, trainer: Trainer, pl_module: Learner, stage: str) -> None:
        if stage == "fit":
            for writer in _writers(trainer):
                self._write_hparams(writer, start=False)

    def _write_hparams(self, writer: "SummaryWriter", *, start: bool) -> None:
        from torch.utils.tensorboard.summary import hparams  # noqa: PLC0415

        # Without the experiment's own summary, which the first run would write for all: TensorBoard then makes
        # columns of every run's parameters, and takes the results from its curves.
        _, session_start, session_end = hparams(self.hparams, {})
        writer._get_file_writer().add_summary(session_start if start else session_end)  # noqa: SLF001


def _writers(trainer: Trainer) -> list["SummaryWriter"]:
    if not trainer.is_global_zero:
        return []
    return [item.experiment for item in trainer.loggers if isinstance(item, TensorBoardLogger)]


def _layout(curves: list[str]) -> dict[str, dict[str, list[Any]]]:
    names = dict.fromkeys(curve.partition("/")[2] for curve in curves)
    both = {name: [split for split in ("train", "val") if f"{split}/{name}" in curves] for name in names}
    charts = {name: ["Multiline", [f"{split}/{name}$" for split in splits]] for name, splits in both.items()}
    return {
        "training and validation": {name: chart for name, chart in charts.items() if len(both[name]) > 1},
        "validation only": {name: chart for name, chart in charts.items() if len(both[name]) == 1},
        "optimisation": {"learning rate": ["Multiline", ["^lr$"]], "gradient norms": ["Multiline", ["grad_norm/.*"]]},
    }


def _write_graph(writer: "SummaryWriter", learner: Learner, trainer: Trainer) -> None:
    dtype = next(learner.parameters()).dtype
    example = torch.zeros(1, *learner.facts.input_shape, dtype=dtype, device=learner.device)
    was_training = learner.network.training
    learner.network.eval()  # a batch of one has no batch statistics
    try:
        with warnings.catch_warnings(), trainer.precision_plugin.forward_context(), uncompiled(learner.network):
            warnings.simplefilter("ignore")  # add_graph traces with torch.jit.trace, which is deprecated
            writer.add_graph(learner.network, example)
    except Exception as error:  # noqa: BLE001 -- tracing runs any network's code; a missing picture stops no run
        logger.warning("TensorBoard's graph page stays empty: the network cannot be traced (%s)", error)
    learner.network.train(was_training)

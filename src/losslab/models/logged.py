"""The values that callbacks log with `pl_module.log`, beside the metrics that a `Learner` computes itself."""

import logging
from collections.abc import Iterable
from typing import Any

from lightning import Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync
from torch import Tensor, distributed

from losslab.errors import LabError

logger = logging.getLogger("losslab")

_COLUMNS = ("lr", "epoch", "step", "epochs", "steps", "best_epoch")
"""Names of values in history.csv and metrics.json that are not metrics."""
_SETTINGS = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx")


class LoggedValues:
    """Collects what was logged in the current epoch, and restores the sums of an interrupted epoch.

    Lightning keeps the newest value of each name in `trainer.callback_metrics`, also values of earlier epochs. Its sums
    of values logged with `on_epoch` are not part of its checkpoints.

    Args:
        own_names: names of the metrics that the learner computes itself.
    """

    def __init__(self, own_names: Iterable[str]) -> None:
        self._own_names = frozenset(own_names)
        self._left_out = self._own_names.union(_COLUMNS)
        self._earlier: dict[str, Any] = {}
        self._warned: set[str] = set()

    def check_name(self, name: str) -> None:
        """Raise a LabError if a callback would replace a metric that the learner computes itself.

        Log a warning if the value is left out because a column that is no metric has this name.
        """
        if name in self._own_names:
            raise LabError(f"a callback logs {name}, which losslab computes itself: log it under another name")
        if name in _COLUMNS and name not in self._warned:
            self._warned.add(name)
            logger.warning("a callback logs %s: history.csv and metrics.json contain losslab's own value instead", name)

    def start_epoch(self, trainer: Trainer) -> None:
        """Regard all values logged until now as those of an earlier epoch."""
        # The property callback_metrics would compute the metrics of unfinished epochs.
        self._earlier = dict(trainer._logger_connector._callback_metrics)  # noqa: SLF001

    def newest(self, trainer: Trainer) -> dict[str, float]:
        """Return the values of this epoch, sorted by name."""
        values = {name: value for name, value in trainer.callback_metrics.items() if name not in self._left_out}
        # A value that was logged again is another object.
        new = {name: value for name, value in values.items() if value is not self._earlier.get(name)}
        return {name: float(value) for name, value in sorted(new.items()) if _is_one(value)}

    def state(self, trainer: Trainer) -> dict[str, dict[str, Any]]:
        """Return the sums of the current epoch, and how they were logged. Sums of torchmetrics objects are left out."""
        results = trainer.fit_loop.epoch_loop._results  # noqa: SLF001
        return {
            key: {name: getattr(item.meta, name) for name in _SETTINGS}
            | {"reduce_fx": item.meta.reduce_fx.__name__, "sync": item.meta.sync.should}
            | {"rank_zero_only": item.meta.sync.rank_zero_only, "value": item.value.cpu()}
            | ({"weight": item.cumulated_batch_size.cpu()} if item.meta.is_mean_reduction else {})
            for key, item in results.items()
            if item.is_tensor and item.meta.on_epoch and not item.has_reset and item.meta.sync.group is None
        }

    def state_of_ranks(self, trainer: Trainer) -> list[dict[str, dict[str, Any]]]:
        """Return the `state` of each rank. All ranks must call this together."""
        states = [self.state(trainer)] * trainer.world_size
        if trainer.world_size > 1:
            distributed.all_gather_object(states, states[0])
        return states

    def restore(self, state: dict[str, dict[str, Any]], trainer: Trainer) -> None:
        """Continue the sums of an interrupted epoch. Call this in on_train_start."""
        results = trainer.fit_loop.epoch_loop._results  # noqa: SLF001
        for key, saved in state.items():
            meta = _Metadata(**{name: saved[name] for name in (*_SETTINGS, "reduce_fx")})
            sync = {"_should": saved["sync"], "rank_zero_only": saved["rank_zero_only"]}
            meta.sync = _Sync(fn=trainer.strategy.reduce, **sync)
            results[key] = _RestoredSum(meta, saved["value"], saved.get("weight")).to(trainer.strategy.root_device)

    def end_epoch(self, trainer: Trainer) -> None:
        """Let Lightning reset the restored sums."""
        for item in trainer.fit_loop.epoch_loop._results.values():  # noqa: SLF001
            if isinstance(item, _RestoredSum):
                item.keep = False


class _RestoredSum(_ResultMetric):
    """A sum of Lightning that is not reset before the first batch after a resume, which starts no epoch."""

    def __init__(self, meta: _Metadata, value: Tensor, weight: Tensor | None) -> None:
        super().__init__(meta, is_tensor=True)
        self.keep = True
        self.value = value
        if weight is not None:
            self.cumulated_batch_size = weight
        self._update_count = 1

    def reset(self) -> None:
        """Reset the sum, unless the interrupted epoch has not ended yet."""
        if not self.keep:
            super().reset()


def _is_one(value: Any) -> bool:
    return value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, int | float)

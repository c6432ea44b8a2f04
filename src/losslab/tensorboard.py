"""What a run writes for TensorBoard: one event file, flushed by time."""

from lightning.pytorch.loggers import TensorBoardLogger


class RunLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger, writing straight into the run folder.

    Lightning flushes to disk whenever it logs, which costs 1.5 ms an epoch; here the writer's own thread does it
    every `flush_secs`. There is no hparams.yaml either: the run folder has a config.json.

    Args:
        run_dir: the run folder, which is the log folder itself.
        flush_secs: the longest that TensorBoard waits for a value.
    """

    def __init__(self, run_dir: str, flush_secs: int = 5) -> None:
        super().__init__(run_dir, name="", version="", default_hp_metric=False, flush_secs=flush_secs)

    @property
    def log_dir(self) -> str:
        """The run folder."""
        return str(self.root_dir).rstrip("/")

    def save(self) -> None:
        """Nothing to do: the writer flushes by time, and `finalize` at the end."""

    def finalize(self, status: str) -> None:  # noqa: ARG002 -- Lightning's signature
        """Flush, but stay open: what testing logs after training belongs into the same file."""
        if self._experiment is not None:
            self.experiment.flush()

"""The callback that writes a table with one row per epoch, and draws curves from it."""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint
from numpy.typing import NDArray

from losslab.io import atomic
from losslab.io.figures import encode_png, new_figure, rasterize, rasterize_labels, set_integer_ticks
from losslab.io.tables import csv_text, write_csv
from losslab.models.learner import Learner
from losslab.models.optimizers import learning_rate
from losslab.runs import RunFolder
from losslab.training.callbacks.checkpoint_state import GrowingState
from losslab.training.callbacks.disk import SKIPPED, BestEffortWriter
from losslab.training.callbacks.tensorboard import add_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RETRY_SECONDS = 1.0
"""The minimum time between two attempts to rewrite a table, which may have many rows."""


class History(GrowingState, Checkpoint):
    """Writes history.csv, timing.csv and figures/*.png.

    history.csv contains no wall times, so a repeated run writes the same bytes. In an epoch without a validation, the
    validation columns are empty. A metric that a callback logs gets a column in the epoch of its first value. This
    class is a Checkpoint, because Lightning calls checkpoint callbacks last: after the learner has computed the values
    of the epoch.
    """

    def __init__(self, run_dir: str, title: str = "") -> None:
        self.folder = RunFolder(Path(run_dir))
        self.title = title
        self.rows: list[dict[str, float]] = []
        self._writer = BestEffortWriter(self.folder)
        self._tables: list[CsvTable] = []
        self._times: list[dict[str, Any]] = []
        self._started = time.perf_counter()
        self._lr = 0.0

    def frozen_state(self) -> Callable[[], dict[str, Any]]:
        rows, times, rate, spent = self.rows, self._times, self._lr, time.perf_counter() - self._started
        row_count, time_count = len(rows), len(times)
        return lambda: {"rows": rows[:row_count], "times": times[:time_count], "rate": rate, "spent": spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self._times, self._lr = state_dict["rows"], state_dict["times"], state_dict["rate"]
        self._started = time.perf_counter() - state_dict["spent"]

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        # A resumed run starts with the rows in its checkpoint. Rows of later epochs are written again.
        columns = ["epoch", "step", "lr", *pl_module.epoch_metric_names]
        self._tables = [
            CsvTable(self.folder.history, columns, self.rows, self._writer),
            CsvTable(self.folder.timing, ["epoch", "seconds"], self._times, self._writer),
        ]
        data = trainer.datamodule  # type: ignore[attr-defined]
        if getattr(data, "manifest", None):
            from losslab.data.corruption import figure  # noqa: PLC0415

            save_figure(figure.draw(data.manifest, data.splits["train"], self.title), "faults", trainer, self._writer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._started = time.perf_counter()
        self._lr = learning_rate(trainer.optimizers[0])  # a scheduler may change it during the epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch + 1
        history, timing = self._tables
        row = {"epoch": epoch, "step": trainer.global_step, "lr": self._lr}
        history.add(row | pl_module.current_values() | row)
        timing.add({"epoch": epoch, "seconds": f"{time.perf_counter() - self._started:.4f}"})

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if trainer.is_global_zero:
            history, timing = self._tables
            # BestAndLastCheckpoint marks training as finished only after this. If this fails, a resumed run repeats it.
            self._writer.require(history.path, history.close)
            self._writer.attempt(timing.path, timing.close, SKIPPED)
            self._plot(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        for table in self._tables:
            with self._writer.during_exception(table.path):
                table.close()
        with self._writer.during_exception(self.folder.figures):
            if self.rows:
                self._plot(trainer, pl_module)

    def _plot(self, trainer: Trainer, learner: Learner) -> None:
        names = ["loss", learner.monitor.removeprefix("val/")]
        for equal in [names] if have_equal_curves(self.rows, *names) else [names[:1], names[1:]]:
            images = rasterize_labels(plot_curves(self.rows, equal[0], self.title), [*map(_axis_label, equal)])
            for name, image in zip(equal, images, strict=True):
                save_image(image, f"{name}_curve", trainer, self._writer)


class CsvTable:
    """A CSV file to which each row is written at once. If the disk is full, it is rewritten when there is space.

    The list `rows` replaces the content of the file. `add` appends to this list. A row with a key that is not in
    `columns` adds a column.
    """

    def __init__(self, path: Path, columns: list[str], rows: list[dict[str, Any]], writer: BestEffortWriter) -> None:
        self.path, self.rows = path, rows
        self.columns = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
        self._writer = writer
        self._file: IO[str] | None = None
        self._attempt_rewrite()

    def add(self, row: dict[str, Any]) -> None:
        """Append a row, and write it if there is space on the disk."""
        self.rows.append(row)
        new = [name for name in row if name not in self.columns]
        if new:
            self.columns += new
            if self._file is not None:
                with suppress(OSError):
                    self._file.close()
                self._file = None
                self._attempt_rewrite()
                return
        if self._file is None:
            if time.monotonic() - self._attempted_at >= _RETRY_SECONDS:
                self._attempt_rewrite()
            return
        line, file = csv_text([self._cells(row)]), self._file
        if not self._writer.attempt(self.path, lambda: file.write(line)):
            self._file = None  # the file may end with a part of the row
            with suppress(OSError):
                file.close()

    def close(self) -> None:
        """Close the file, and rewrite it unless all rows were written.

        Raises:
            OSError: the file cannot be written.
        """
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # a network file system may report a full disk only now
                file.close()
                return
        self._write_all()

    def _attempt_rewrite(self) -> None:
        self._attempted_at = time.monotonic()
        self._writer.attempt(self.path, self._rewrite)

    def _rewrite(self) -> None:
        self._write_all()
        # Line-buffered: a row is passed to the operating system as soon as it is written.
        self._file = self.path.open("a", encoding="utf-8", newline="", buffering=1)

    def _write_all(self) -> None:
        write_csv(self.path, self.columns, map(self._cells, self.rows))

    def _cells(self, row: dict[str, Any]) -> list[Any]:
        return [row.get(name) for name in self.columns]


def save_figure(figure: "Figure", name: str, trainer: Trainer, writer: BestEffortWriter) -> None:
    """Write a figure to figures/NAME.png and to TensorBoard."""
    save_image(rasterize(figure), name, trainer, writer)


def save_image(image: NDArray[np.uint8], name: str, trainer: Trainer, writer: BestEffortWriter) -> None:
    """Write pixels (height, width, 4) to figures/NAME.png and to TensorBoard."""
    png, path = encode_png(image), writer.folder.figures / f"{name}.png"
    writer.attempt(path, lambda: atomic.write_bytes(path, png), SKIPPED)
    add_png(trainer, f"figures/{name}", png, image.shape)


def have_equal_curves(rows: list[dict[str, float]], name: str, other: str) -> bool:
    """Return whether `plot_curves` draws the same for two quantities, except for the label of the y axis."""
    pairs = [(f"{split}/{name}{end}", f"{split}/{other}{end}") for split in ("train", "val") for end in ("", "_given")]
    return all(row.get(one) == row.get(two) for row in rows for one, two in pairs)


def plot_curves(rows: list[dict[str, float]], name: str, title: str) -> "Figure":
    """Plot one quantity, such as "loss", over the epochs of a history, for training and validation."""
    figure = new_figure(6.4, 4.0, dpi=120, layout=None)
    axes = figure.add_axes((0.12, 0.13, 0.85, 0.78))  # an automatic layout would draw the figure twice
    drawn: list[float] = []
    corrupted = any(f"train/{name}_given" in row for row in rows)
    for quantity, colour, style, label in (
        (f"train/{name}", "#0072B2", "-", "training, true targets" if corrupted else "training"),
        (f"train/{name}_given", "#009E73", ":", "training, given targets"),
        (f"val/{name}", "#D55E00", "--", "validation"),
    ):
        points = [(row["epoch"], row[quantity]) for row in rows if quantity in row]
        if points:
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, style, color=colour, label=label, marker="." if len(points) <= 50 else None)
            drawn += values
    if drawn and min(drawn) > 0 and max(drawn) > 100 * min(drawn):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # powers of ten would import matplotlib's formula parser
    axes.minorticks_off()
    axes.set_xlabel("Epochs")
    set_integer_ticks(axes)
    axes.set_ylabel(_axis_label(name))
    # Fixed positions, because matplotlib lays out every label three times to find free positions.
    axes.xaxis.set_label_coords(0.5, -0.1)
    axes.yaxis.set_label_coords(-0.105, 0.5)
    axes.set_title(title, y=1.0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _axis_label(name: str) -> str:
    return name.upper() if name in {"mse", "mae"} else name.capitalize()

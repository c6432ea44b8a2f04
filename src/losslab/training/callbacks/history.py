"""A table that grows by a row an epoch.

A row an epoch, on disk as soon as the epoch is over, and the curves drawn from them at the end.
"""

import csv
import io
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import TensorBoardLogger

from losslab.io import atomic
from losslab.models.learner import Learner
from losslab.runs import RunFolder
from losslab.training.callbacks.disk import WITHOUT, Files

_PAUSE = 1.0
"""Seconds between two attempts to write a table whole: of a long run of tiny epochs each is many rows."""


class Table:
    """A CSV file in which a row is as soon as it was added; on a full disk it is written whole when there is room.

    Args:
        path: of the file, which begins anew with the rows that there are.
        columns: their names; what else a row holds is left out.
        rows: so far. What is added is added here.
        files: speaks of what cannot be written.
    """

    def __init__(self, path: Path, columns: list[str], rows: list[dict[str, Any]], files: Files) -> None:
        self.path, self.columns, self.rows = path, columns, rows
        self._files = files
        self._file: IO[str] | None = None
        self._attempt()

    def add(self, row: dict[str, Any]) -> None:
        """Take a row, and write it if that is possible."""
        self.rows.append(row)
        if self._file is None:
            if time.monotonic() - self._tried >= _PAUSE:
                self._attempt()
            return
        line, file = self._lines([row]), self._file
        if not self._files.attempt(self.path, lambda: file.write(line)):
            self._drop()  # half of the row may be there

    def close(self) -> None:
        """Have the file hold all rows.

        Raises:
            OSError: it cannot be written.
        """
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # over a network this may be the first that is heard of a full disk
                file.close()
                return
        self._write()

    def _attempt(self) -> None:
        self._tried = time.monotonic()
        if self._files.attempt(self.path, self._begin_anew):
            return
        self._drop()

    def _begin_anew(self) -> None:
        self._write()
        # Line-buffered: a row is with the operating system as soon as it is written.
        self._file = self.path.open("a", encoding="utf-8", newline="", buffering=1)

    def _write(self) -> None:
        header = self._lines([{name: name for name in self.columns}])
        atomic.write_bytes(self.path, (header + self._lines(self.rows)).encode())

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    def _lines(self, rows: list[dict[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, extrasaction="ignore", lineterminator="\n").writerows(rows)
        return text.getvalue()


if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History(Checkpoint):
    """Writes history.csv, timing.csv and figures/*.png.

    history.csv holds nothing that depends on the clock: a run that is repeated writes the same bytes. Values of an
    epoch without validation are left empty. A Checkpoint by class only because Lightning calls no other callback
    after the learner has published an epoch's values.

    Args:
        run_dir: the run folder.
        title: of the figures.
    """

    def __init__(self, run_dir: str, title: str = "") -> None:
        self.folder = RunFolder(Path(run_dir))
        self.title = title
        self.rows: list[dict[str, float]] = []
        self._files = Files(self.folder)
        self._tables: list[Table] = []
        self._times: list[dict[str, Any]] = []
        self._started = time.perf_counter()
        self._rate = 0.0

    def state_dict(self) -> dict[str, Any]:
        spent = time.perf_counter() - self._started
        return {"rows": self.rows, "times": self._times, "rate": self._rate, "spent": spent}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self._times, self._rate = state_dict["rows"], state_dict["times"], state_dict["rate"]
        self._started = time.perf_counter() - state_dict["spent"]

    def on_train_start(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        # Of a resumed run all rows that its checkpoint knows; what was written after it will be written again.
        columns = ["epoch", "step", "lr", *pl_module.epoch_metric_names]
        self._tables = [
            Table(self.folder.history, columns, self.rows, self._files),
            Table(self.folder.timing, ["epoch", "seconds"], self._times, self._files),
        ]
        if getattr(trainer.datamodule, "manifest", None):  # type: ignore[attr-defined]
            self._draw_faults(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: Learner) -> None:
        self._started = time.perf_counter()
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]  # now: at the end it is the next epoch's

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if not trainer.is_global_zero:
            return
        epoch = trainer.current_epoch + 1
        row = {
            "epoch": epoch,
            "step": trainer.global_step,
            "lr": self._rate,
            **pl_module.current_values(),
        }
        history, timing = self._tables
        history.add(row)
        timing.add({"epoch": epoch, "seconds": f"{time.perf_counter() - self._started:.4f}"})

    def on_train_end(self, trainer: Trainer, pl_module: Learner) -> None:
        if trainer.is_global_zero:
            history, timing = self._tables
            # Before the last checkpoint says that training is over: until then the run can come here again.
            self._files.require(history.path, history.close)
            self._files.attempt(timing.path, timing.close, WITHOUT)
            self._draw(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Learner, exception: BaseException) -> None:
        for table in self._tables:
            with self._files.beside_an_error(table.path):
                table.close()
        with self._files.beside_an_error(self.folder.figures):
            if self.rows:
                self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: Learner) -> None:
        for name in ("loss", pl_module.monitor.removeprefix("val/")):
            self._save(f"{name}_curve", draw_curves(self.rows, name, self.title), trainer)

    def _draw_faults(self, trainer: Trainer) -> None:
        from losslab.data.corruption import figure  # noqa: PLC0415

        data = trainer.datamodule  # type: ignore[attr-defined]
        self._save("faults", figure.draw(data.manifest, data.splits["train"], self.title), trainer)

    def _save(self, name: str, figure: "Figure", trainer: Trainer) -> None:
        image = pixels(figure)
        self._files.draw(self.folder.figures / f"{name}.png", image)
        for writer in trainer.loggers:
            if isinstance(writer, TensorBoardLogger):
                writer.experiment.add_image(f"figures/{name}", image, trainer.global_step, dataformats="HWC")


def draw_curves(rows: list[dict[str, float]], name: str, title: str) -> "Figure":
    """The curve of one quantity over epochs, training and validation in one picture.

    Args:
        rows: of a history.
        name: of the quantity without its split, such as "loss".
        title: of the figure.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 -- needed once, at the end; pyplot would cost twice as much

    figure = Figure(figsize=(6.4, 4.0), dpi=120)
    axes = figure.add_axes((0.12, 0.13, 0.85, 0.78))  # a computed layout would draw everything twice
    spread: list[float] = []
    noisy = any(f"train/{name}_given" in row for row in rows)
    for quantity, colour, style, label in (
        (f"train/{name}", "#0072B2", "-", "training, true targets" if noisy else "training"),
        (f"train/{name}_given", "#009E73", ":", "training, given targets"),
        (f"val/{name}", "#D55E00", "--", "validation"),
    ):
        points = [(row["epoch"], row[quantity]) for row in rows if quantity in row]
        if points:
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, style, color=colour, label=label, marker="." if len(points) <= 50 else None)
            spread += values
    if spread and min(spread) > 0 and max(spread) > 100 * min(spread):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # powers of ten need a formula parser
    axes.minorticks_off()
    axes.set_xlabel("Epochs")
    axes.set_ylabel("Loss" if name == "loss" else name.upper() if name in {"mse", "mae"} else name.capitalize())
    # Their places are given: to look for free ones, every label would be laid out three times.
    axes.xaxis.set_label_coords(0.5, -0.1)
    axes.yaxis.set_label_coords(-0.105, 0.5)
    axes.set_title(title, y=1.0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def pixels(figure: "Figure") -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """A figure as an image, uint8 (height, width, 4)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())

"""Figures in TensorBoard. Imports no torch."""

import time
from collections.abc import Sequence
from pathlib import Path


def show(name: str, figures: Sequence[Path], folder: Path) -> None:
    """Put pictures into an event file of their own beside a run's, instead of the one that held them before.

    Args:
        name: of the explanation, which ends the name of the file.
        figures: PNG files.
        folder: what TensorBoard is pointed at.
    """
    from PIL import Image  # noqa: PLC0415 -- needed once, at the end
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
    from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: PLC0415

    suffix = f".explain-{name}"
    for before in folder.glob(f"events.out.tfevents.*{suffix}"):
        before.unlink()
    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    for path in figures:
        with Image.open(path) as image:
            width, height = image.size
        picture = Summary.Image(encoded_image_string=path.read_bytes(), width=width, height=height, colorspace=4)
        summary = Summary(value=[Summary.Value(tag=f"explain/{path.stem}", image=picture)])
        writer.add_event(Event(wall_time=time.time(), step=0, summary=summary))
    writer.close()

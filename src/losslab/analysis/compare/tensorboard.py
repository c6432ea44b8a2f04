"""Groups for TensorBoard: one run a group, with the means of its seeds and a band around them.

Written with TensorBoard's own classes, so that no torch is needed.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MarginChartContent
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from losslab.analysis.compare.curves import Curve, Histories, is_loss
from losslab.analysis.compare.grouping import Group
from losslab.io import untrusted

LOW, HIGH = "within seeds/low", "within seeds/high"
"""Below which the ends of the bands stand: after "train" and "val" in the alphabet."""


def write(groups: Sequence[Group], found: Histories, folder: Path) -> None:
    """Write a folder of events for each group, which replaces the events of an earlier call.

    Points stand at the steps of their epochs, as those of the runs do. A loss is relative to where each run started,
    as `tag` says, since losses share no unit.

    Raises:
        LabError: it, or the folder of a group, is a link.
    """
    for place, one in enumerate(groups):
        own = folder / one.label.replace("/", "_")
        untrusted.check_output_path(own, folder.parent)
        own.mkdir(parents=True, exist_ok=True)
        for old in own.glob("events.out.tfevents.*"):
            old.unlink()
        writer = EventFileWriter(str(own))
        if place == 0:  # TensorBoard merges what several runs say, in an order of its own
            writer.add_event(Event(step=0, wall_time=time.time(), summary=_layout(found.names)))
        for event in _events(one, found):
            writer.add_event(event)
        writer.close()


def tag(name: str) -> str:
    """What a quantity is called."""
    return f"{name} relative to its first value" if is_loss(name) else name


def _events(group: Group, found: Histories) -> Iterator[Event]:
    curves = {name: found.curve(group, name, relative=is_loss(name)) for name in found.names}
    steps = found.curve(group, "step")
    at = dict(zip(steps.epochs, map(round, steps.mean), strict=True)) if steps is not None else {}
    for name, curve in curves.items():
        for epoch, values in _points(curve) if curve is not None else ():
            tags = (tag(name), f"{LOW}/{tag(name)}", f"{HIGH}/{tag(name)}")
            parts = [Summary.Value(tag=own, simple_value=value) for own, value in zip(tags, values, strict=True)]
            yield Event(step=at.get(epoch, epoch), wall_time=time.time(), summary=Summary(value=parts))


def _points(curve: Curve) -> Iterable[tuple[int, tuple[float, float, float]]]:
    return zip(curve.epochs, zip(curve.mean, curve.low, curve.high, strict=True), strict=True)


def _layout(names: Iterable[str]) -> Summary:
    """The page of custom scalars: a chart with a band for each quantity."""
    charts = [
        Chart(
            title=tag(name),
            margin={"series": [MarginChartContent.Series(value=own, lower=f"{LOW}/{own}", upper=f"{HIGH}/{own}")]},
        )
        for name in names
        for own in [tag(name)]
    ]
    layout = Layout(category=[Category(title="mean over seeds, from the lowest to the highest", chart=charts)])
    plugin = SummaryMetadata.PluginData(plugin_name="custom_scalars")
    tensor = TensorProto(dtype=DT_STRING, string_val=[layout.SerializeToString()])
    value = Summary.Value(tag="custom_scalars__config__", tensor=tensor, metadata=SummaryMetadata(plugin_data=plugin))
    return Summary(value=[value])

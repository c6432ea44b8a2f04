"""Writes TensorBoard events of groups: the mean over seeds with a band. Uses the classes of TensorBoard, not torch."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MarginChartContent
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from losslab.analysis.compare.curves import Histories, is_loss
from losslab.analysis.compare.grouping import Group
from losslab.io import untrusted

_LOW, _HIGH = "within seeds/low", "within seeds/high"
"""Prefixes of the tags of band ends. TensorBoard sorts tags by name, so these follow "train" and "val"."""


def write_events(groups: Sequence[Group], histories: Histories, folder: Path) -> None:
    """Write a folder of events for each group, and replace the events of an earlier call.

    The global step of an event is that of the runs at the end of the epoch. Losses are divided by their first value,
    because values of different losses cannot be compared.

    Raises:
        LabError: the folder, or the folder of a group, is a link.
    """
    names: set[str] = set()
    for number, group in enumerate(groups):
        name = group.label.replace("/", "_").encode()[:200].decode(errors="ignore")
        own = folder / (name if name not in names else f"{name} ({number})")
        names.add(own.name)
        untrusted.check_output_path(own, folder.parent)
        own.mkdir(parents=True, exist_ok=True)
        for old in own.glob("events.out.tfevents.*"):
            old.unlink()
        writer = EventFileWriter(str(own))
        if number == 0:  # TensorBoard merges the layouts of several runs, in an undefined order
            writer.add_event(Event(step=0, wall_time=time.time(), summary=_layout(map(_tag, histories.names))))
        for event in _events(group, histories):
            writer.add_event(event)
        writer.close()


def _tag(name: str) -> str:
    return f"{name} relative to its first value" if is_loss(name) else name


def _events(group: Group, histories: Histories) -> Iterator[Event]:
    steps = histories.curve(group, "step")
    step_of = dict(zip(steps.epochs, map(round, steps.mean), strict=True)) if steps is not None else {}
    for name in histories.names:
        curve, tag = histories.curve(group, name, relative=is_loss(name)), _tag(name)
        if curve is None:
            continue
        for epoch, *values in zip(curve.epochs, curve.mean, curve.low, curve.high, strict=True):
            tags = (tag, f"{_LOW}/{tag}", f"{_HIGH}/{tag}")
            scalars = [Summary.Value(tag=own, simple_value=value) for own, value in zip(tags, values, strict=True)]
            yield Event(step=step_of.get(epoch, epoch), wall_time=time.time(), summary=Summary(value=scalars))


def _layout(tags: Iterable[str]) -> Summary:
    """Return the layout of the page "Custom Scalars": a chart with a band for each metric."""
    bands = {tag: MarginChartContent.Series(value=tag, lower=f"{_LOW}/{tag}", upper=f"{_HIGH}/{tag}") for tag in tags}
    charts = [Chart(title=tag, margin={"series": [band]}) for tag, band in bands.items()]
    layout = Layout(category=[Category(title="mean over seeds, from the lowest to the highest", chart=charts)])
    plugin = SummaryMetadata.PluginData(plugin_name="custom_scalars")
    tensor = TensorProto(dtype=DT_STRING, string_val=[layout.SerializeToString()])
    value = Summary.Value(tag="custom_scalars__config__", tensor=tensor, metadata=SummaryMetadata(plugin_data=plugin))
    return Summary(value=[value])

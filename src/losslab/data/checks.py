"""Checks of the examples that a data module reads: dtypes and shapes, unknown labels, and values that never vary."""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from losslab.data.batch import SPLITS, DataSpec, Examples, Source
from losslab.data.corruption.base import Subset
from losslab.data.transforms import Normalise, column_statistics
from losslab.errors import LabError, message_of
from losslab.targets import Kind, Task

logger = logging.getLogger(__name__)

_UNKNOWN = -100
_TRUTH_KINDS = {Task.MULTICLASS: Kind.INDEX, Task.REGRESSION: Kind.VALUES}
"""Kind of the truth of each task; BINARY for the other tasks."""


def to_tensor(value: Any, name: str) -> Tensor:
    """Convert an array, a list or a table of pandas. Raises LabError with the name if it does not contain numbers."""
    tensor, reason = value, "rows of real numbers are needed, one for each example"
    try:
        if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
            tensor = torch.stack(tuple(value))
        elif not isinstance(value, Tensor):
            array = np.array(value)
            # A table of numbers and bools has no common dtype. PyTorch reads the native byte order only.
            tensor = torch.from_numpy(
                array.astype(float if array.dtype.kind in "OSU" else array.dtype.newbyteorder("="))
            )
    except (TypeError, ValueError, RuntimeError) as error:
        tensor, reason = None, message_of(error, 120)
    if isinstance(tensor, Tensor) and tensor.layout is torch.strided and tensor.ndim and not tensor.is_complex():
        return tensor
    raise LabError(f"{name} must be an array of numbers, got a {type(value).__name__} ({reason})")


def to_inputs(value: Any, spec: DataSpec, name: str) -> Tensor:
    """Convert inputs to float32 of the shape `spec.input_shape`. Raises LabError if they have another shape."""
    inputs = to_tensor(value, name)
    if inputs.ndim == 1 and spec.input_shape == (1,):
        inputs = inputs[:, None]
    if inputs.shape[1:] != spec.input_shape:
        hint = "set spec to the shape of one example"
        if inputs.dtype is torch.uint8 and inputs.ndim == 4:
            hint = (
                "for images (N, H, W, channels), set self.transform = Normalise.from_images(TRAINING_IMAGES) in load()"
            )
        raise LabError(
            f"{name} have the shape {tuple(inputs.shape)}, but spec.input_shape is {spec.input_shape}: {hint}"
        )
    return inputs.float()


def to_target(value: Any, kind: Kind, columns: int, name: str) -> Tensor:
    """Convert targets of this kind: class indices to int64 (N,), others to floats (N, columns).

    A class index of NaN becomes -100. Raises LabError if the shape or the values do not fit the kind.
    """
    target = to_tensor(value, name)
    if kind is Kind.INDEX:
        target = target.squeeze(1) if target.shape[1:] == (1,) else target
        if target.ndim != 1:
            raise LabError(
                f"{name} must be class indices (N,) for spec.kind=index, got the shape {tuple(target.shape)}: use "
                "argmax(1) for one-hot rows, or another spec.kind"
            )
        if target.is_floating_point():
            target = target.where(~target.isnan(), _UNKNOWN)
            if (target % 1 != 0).any():
                raise LabError(f"{name} must be class indices 0, 1, 2, ..., got fractions or infinity: check spec.kind")
        return target.long()
    target = target[:, None] if target.ndim == 1 and columns == 1 else target
    if target.shape[1:] != (columns,):
        raise LabError(
            f"{name} must have the shape (N, {columns}) for spec.targets={columns} and spec.kind={kind}, got "
            f"{tuple(target.shape)}"
        )
    return target if target.is_floating_point() else target.double()


def check_splits(
    splits: Any, spec: DataSpec, owner: str, transform: Any = None, ignore_index: int | None = None
) -> dict[str, Source]:
    """Convert the result of `load`, and leave out the examples whose target or truth is unknown.

    Unknown are class indices below 0, 0/1 labels below 0, NaN, rows of probabilities that are all 0, and the class
    `ignore_index`, which the loss ignores. A warning counts the examples that are left out. If all 0/1 labels are -1 or
    1, -1 is a label and not unknown; the truth is then 0 or 1.

    Args:
        splits: the splits "train", "val" and "test": `Examples`, another source, a TensorDataset, or a pair of inputs
            and targets, which may be arrays.
        spec: the properties that the data module declares.
        owner: name of the data module for messages.
        transform: the data module's transform of inputs.
        ignore_index: the class index that the loss ignores, which may be a class.

    Raises:
        LabError: a split is missing or empty, or its dtype, shape or values do not fit `spec`.
    """
    if not isinstance(splits, Mapping) or not set(SPLITS) <= set(splits):
        got = ", ".join(map(str, splits)) if isinstance(splits, Mapping) else f"a {type(splits).__name__}"
        raise LabError(f"data: {owner}.load() must return a dict of train, val and test, got {got or 'an empty dict'}")
    names = {split: f"data: the {split} {{}} of {owner}" for split in splits}
    sources = {split: _to_source(each, spec, names[split], transform) for split, each in splits.items()}
    signs = spec.kind is Kind.BINARY and _are_signs(torch.cat([source.target.cpu() for source in sources.values()]))
    known, counts, seen = {}, [], torch.zeros(0)
    for split, source in sources.items():
        if signs and isinstance(source, Examples):
            sources[split] = source._replace(truth=torch.where(source.truth == -1, 0.0, source.truth))
    for split, source in sources.items():
        unknown, values = _unknown_rows(source, spec, names[split], ignore_index, signs=signs)
        known[split] = source
        if unknown.any():
            rows = (~unknown).nonzero().squeeze(1)
            in_memory = isinstance(source, Examples)
            known[split] = source.take(rows) if in_memory else Subset(source, rows, source.target[rows])
            counts.append(f"{int(unknown.sum()):,} of {source.size:,} {split}")
            seen = torch.cat([seen, values]).unique()
    if counts:
        shown = [f"{value:g}" for value in seen[~seen.isnan()][:3].tolist()] + ["NaN"] * bool(seen.isnan().any())
        logger.warning(
            "the label is not known (%s) for %s examples: they are left out of training, metrics and class counts",
            ", ".join(shown),
            ", ".join(counts),
        )
    for split in ("train", "val"):
        if not known[split].size:
            raise LabError(f"data: the split {split} of {owner} has no examples{' with a known label' * bool(counts)}")
    return known


def _to_source(value: Any, spec: DataSpec, name: str, transform: Any) -> Source:
    """Convert a split of `load` to `Examples` of the right dtypes and shapes; a split that is not in memory stays."""
    if isinstance(value, TensorDataset):
        value = value.tensors
    if isinstance(value, tuple | list) and not isinstance(value, Examples):
        if len(value) != 2:
            raise LabError(f"{name.format('split')} must be a pair of inputs and targets, got {len(value)} values")
        inputs, target = to_tensor(value[0], name.format("inputs")), to_tensor(value[1], name.format("targets"))
        value = Examples.of(inputs, target)
    if not isinstance(value, Examples):
        if not all(hasattr(value, attribute) for attribute in ("size", "shape", "device", "target", "take")):
            raise LabError(
                f"{name.format('split')} must be losslab.data.batch.Examples or a pair of inputs and targets, got a "
                f"{type(value).__name__}"
            )
        source: Source = value
        return source
    inputs = value.inputs
    if isinstance(transform, Normalise):
        channels, *size = spec.input_shape
        if inputs.dtype is not torch.uint8 or inputs.shape[1:] != (*size, channels):
            raise LabError(
                f"{name.format('inputs')} are {inputs.dtype} of shape {tuple(inputs.shape)}, but Normalise takes uint8 "
                f"images (N, {', '.join(map(str, size))}, {channels}) for spec.input_shape={spec.input_shape}"
            )
    elif transform is None:
        inputs = to_inputs(inputs, spec, name.format("inputs"))
    return _with_targets(value._replace(inputs=inputs), spec, name)


def _with_targets(examples: Examples, spec: DataSpec, name: str) -> Examples:
    """Convert target and truth. In the truth, probabilities become the likeliest class, or labels of 0 and 1."""
    given, truth = examples.target, examples.truth
    target = _to_float32(to_target(given, spec.kind, spec.targets, name.format("targets")))
    if truth is given:
        truth = target
    else:
        is_soft = spec.task is Task.MULTICLASS and truth.ndim == 2 and truth.shape[1] > 1
        kind = Kind.PROBABILITIES if is_soft else _TRUTH_KINDS.get(spec.task, Kind.BINARY)
        truth = _to_float32(to_target(truth, kind, spec.targets, name.format("truth")))
    lengths = [len(each) for each in (examples.inputs, target, truth, examples.index)]
    if len(set(lengths)) > 1:
        raise LabError(f"{name.format('split')} has {lengths[0]:,} inputs, but {lengths[1]:,} targets")
    if spec.task is Task.MULTICLASS and truth.is_floating_point():
        has_label = truth.isfinite().all(1) & (truth != 0).any(1)
        truth = truth.argmax(1).where(has_label, _UNKNOWN)
    elif spec.kind is Kind.BINARY and (truth % 1 != 0).any():
        truth = torch.where((truth > 0) & (truth < 1), (truth > 0.5).float(), truth)
    return examples._replace(target=target, truth=truth)


def _to_float32(target: Tensor) -> Tensor:
    return target.float() if target.is_floating_point() else target


def _unknown_rows(
    source: Source, spec: DataSpec, name: str, ignore_index: int | None, *, signs: bool
) -> tuple[Tensor, Tensor]:
    """Return which examples have an unknown target or truth, bool (N,), and the values that mean unknown."""
    rows, seen = torch.zeros(source.size, dtype=torch.bool), []
    for field, kind in (("target", spec.kind), ("truth", _TRUTH_KINDS.get(spec.task, Kind.BINARY))):
        values = getattr(source, field, source.target).cpu()
        if signs:  # -1 is a label
            values = torch.where(values == -1, 0.0, values)
        unknown = _unknown(values, kind, spec.targets, name.format(f"{field}s"), ignore_index)
        seen.append(values[unknown & ~rows].double().flatten())
        rows |= unknown
    return rows, torch.cat(seen)


def _are_signs(values: Tensor) -> bool:
    known = values[~values.isnan()]
    return bool((known.abs() == 1).all() and (known == -1).any())


def _unknown(values: Tensor, kind: Kind, count: int, name: str, ignore_index: int | None) -> Tensor:
    """Return which targets are unknown, bool (N,). Raises LabError for targets that are wrong."""
    if kind is Kind.INDEX:
        unknown = values < 0 if ignore_index is None else (values < 0) | (values == ignore_index)
        known = values[~unknown]
        low, high = (int(known.min()), int(known.max())) if len(known) else (0, 0)
        if high >= count:
            fix = "subtract 1 from them" if (low, high) == (1, count) else f"set spec.targets={high + 1}"
            raise LabError(
                f"{name} go up to {high}, but spec.targets={count} means the classes 0 to {count - 1}: {fix}; where "
                f"the label is not known, write -100, or set loss.ignore_index={high} if the loss has it"
            )
        if count == 2 and low == high == 1 and (values[unknown] == -1).all() and unknown.any():
            raise LabError(f"{name} are -1 and 1, but the classes are 0 and 1: use (target + 1) // 2")
        return unknown
    missing = values.isnan()
    if kind is Kind.BINARY:
        missing |= (values < 0) & (values % 1 == 0)
    elif kind is Kind.PROBABILITIES:
        missing = (missing.any(1, keepdim=True) | (values == 0).all(1, keepdim=True)).expand_as(values)
    partial = missing.any(1) & ~missing.all(1)
    if partial.any():
        raise LabError(
            f"{name} are unknown in some columns of {int(partial.sum()):,} of {len(values):,} examples: fill them in, "
            "or set the whole row to NaN to leave out the example"
        )
    known = values[~missing]
    if known.isinf().any():
        raise LabError(f"{name} are infinite for some examples: correct them, or set them to NaN to leave these out")
    lowest, highest = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    if (kind is Kind.BINARY and not 0 <= lowest <= highest <= 1) or (kind is Kind.PROBABILITIES and lowest < 0):
        raise LabError(f"{name} go from {lowest:g} to {highest:g}, but spec.kind={kind} means numbers from 0 to 1")
    return missing.all(1)


def weighted_means(source: Source) -> list[float]:
    """Return numbers that tell a split from another one: the weighted means of its targets and of its first inputs."""
    inputs = (source.inputs[:64],) if isinstance(source, Examples) else ()
    return [_weighted_mean(values) for values in (source.target, *inputs)]


def _weighted_mean(values: Tensor) -> float:
    rows = values.detach().cpu().double().flatten(1) if values.ndim > 1 else values.detach().cpu().double()[:, None]
    of_row, of_column = (torch.linspace(1, 2, size, dtype=torch.float64) for size in rows.shape)
    return float(of_row @ rows.nan_to_num() @ of_column) / max(1, rows.numel())


def find_degenerate(splits: Mapping[str, Source], spec: DataSpec) -> Iterator[str]:
    """Yield a sentence for each property of the splits that makes training or metrics meaningless.

    These are classes without examples, labels and regression targets that never vary, and inputs that never vary or
    are not finite.
    """
    yield from _not_finite(splits)
    targets = {split: _columns(splits[split], spec) for split in SPLITS if split in splits and splits[split].size > 1}
    if "train" not in targets:
        return
    if spec.task in {Task.MULTICLASS, Task.BINARY}:
        yield from _absent_classes(targets, spec.names)
    for split, values in targets.items() if spec.task in {Task.REGRESSION, Task.MULTILABEL} else ():
        constant = _constant_columns(values)
        if constant and spec.task is Task.MULTILABEL:
            yield f"every {split} example has the same label for {_listed([spec.names[at] for at in constant])}"
        elif constant:
            which = "the target" if spec.targets == 1 else f"the target in column {_listed(constant)}"
            yield f"{which} never varies in {split}: r2 divides by its variance, which is 0"
    train = splits["train"]
    if not isinstance(train, Examples):
        return
    inputs = train.inputs
    if (inputs[:100] == inputs[:1]).all() and (inputs == inputs[:1]).all():
        yield "all train inputs are equal: the network can only learn a constant"
    elif inputs.ndim == 2 and (constant := _constant_columns(inputs)):
        count = f"{len(constant)} of {inputs.shape[1]} input columns"
        yield f"{count} never vary in train (column {_listed(constant)}): they do not tell the examples apart"


def _not_finite(splits: Mapping[str, Source]) -> Iterator[str]:
    for split, source in splits.items():
        if isinstance(source, Examples) and source.inputs.is_floating_point():
            wrong = int((~source.inputs.isfinite().flatten(1).all(1)).sum())
            if wrong:
                count = f"{wrong:,} of {source.size:,} {split} inputs"
                yield f"{count} contain NaN or infinity: fill them in or leave them out"


def _absent_classes(targets: Mapping[str, Tensor], names: list[str]) -> Iterator[str]:
    absent = {split: [names[at] for at in (~each.any(0)).nonzero()[:, 0]] for split, each in targets.items()}
    if len(absent["train"]) == len(names) - 1:
        only = next(name for name in names if name not in absent["train"])
        yield f"every train label is {only}: a constant output is right, and accuracy does not measure anything"
    elif absent["train"]:
        yield f"no train example is of class {_listed(absent['train'])}: the network cannot learn these classes"
    for split in ("val", "test"):
        only_here = [name for name in absent.get(split, ()) if name not in absent["train"]]
        if only_here:
            yield f"no {split} example is of class {_listed(only_here)}: {split} metrics do not measure these classes"


def _columns(source: Source, spec: DataSpec) -> Tensor:
    """Return the targets as columns: whether an example has each class (N, C), or its labels or values (N, K)."""
    values = source.target
    if spec.task is Task.MULTICLASS:
        values = values.argmax(1) if values.is_floating_point() else values
        return values[:, None] == torch.arange(spec.targets, device=values.device)
    return torch.cat([values <= 0.5, values > 0.5], 1) if spec.task is Task.BINARY else values


def _constant_columns(values: Tensor) -> list[int]:
    columns: list[int] = column_statistics(values)[2].nonzero()[:, 0].tolist()
    return columns


def _listed(items: list[Any]) -> str:
    return ", ".join(map(str, items[:5])) + (f" and {len(items) - 5} more" if len(items) > 5 else "")

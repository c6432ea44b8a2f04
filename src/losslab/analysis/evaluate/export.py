"""Export of a run's network as a torch.export program that needs only torch, from raw inputs to probabilities."""

import copy
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from losslab.data.module import DataMetadata
from losslab.errors import LabError, message_of
from losslab.io import atomic
from losslab.models.learner import Learner
from losslab.models.metrics import normalise_rows
from losslab.targets import Task
from losslab.training.experiment import Experiment
from losslab.training.reopen import EvaluationRequest, reopen

_CHECKED_EXAMPLES = 64


class Program(nn.Module):
    """Normalisation, network and conversion of outputs to probabilities in one module.

    Args:
        learner: the network, and the loss that defines what its outputs mean.
        metadata: how uint8 images are normalised.
        raw: return the network's own outputs.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, learner: Learner, metadata: DataMetadata, *, raw: bool = False) -> None:
        super().__init__()
        self.network, self.loss, self.spec, self.raw = learner.network, learner.loss, learner.spec, raw
        self.dtype = next((p.dtype for p in self.network.parameters() if p.is_floating_point()), torch.float32)
        for name in ("scale", "shift"):
            normalise = metadata.normalise
            value = None if normalise is None else getattr(normalise, name).float().view(1, -1, 1, 1)
            self.register_buffer(name, value)
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute predictions.

        Args:
            inputs: uint8 pixels (N, channels, H, W) if the data are normalised images, otherwise inputs (N, ...)
                prepared as in training.

        Returns:
            Class probabilities (N, C) that sum to 1, label probabilities (N, K), or values (N, D).
        """
        if self.scale is not None and self.shift is not None:
            inputs = torch.addcmul(self.shift, inputs.float(), self.scale)
        outputs: Tensor = self.network(inputs.to(self.dtype))
        if self.raw:
            return outputs
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if self.spec.task is Task.REGRESSION:
            return self.loss.to_predictions(outputs)
        probabilities = self.loss.to_probabilities(outputs)
        return normalise_rows(probabilities) if self.spec.task is Task.MULTICLASS else probabilities.clamp(max=1)


@dataclass(frozen=True)
class Export:
    """An exported program."""

    path: Path
    inputs: str
    """What the program takes, in words."""
    outputs: str
    """What it returns, in words."""
    names: tuple[str, ...]
    """Names of the classes or labels in the order of the outputs; empty for one label and for values."""
    examples: int
    """How many examples it was checked on."""
    difference: float
    """The largest difference from the model's outputs."""


def export(request: EvaluationRequest, path: Path | None = None, *, raw: bool = False) -> Export:
    """Write the network of a run as a program for any batch size, after comparing it with the model.

    Args:
        request: which run, weights and data; it is checked on examples of the split.
        path: of the file; None for RUN/exported.pt2.
        raw: export the network's own outputs instead of probabilities or values.

    Raises:
        LabError: the run cannot be opened, the file exists or is below a link out of the run folder, the network
            cannot be exported, or the program's outputs differ from the model's.
    """
    experiment = reopen(request)
    path = path or experiment.folder.exported
    experiment.folder.output(path.parent)
    if os.path.lexists(path):
        raise LabError(f"{path} already exists: name another file with --output, or remove it")
    inputs, expected, metadata = _examples(experiment, request.split, raw=raw)
    program = Program(experiment.learner, metadata, raw=raw)
    program = copy.deepcopy(program).to(memory_format=torch.contiguous_format)  # torch.export warns of other formats
    descriptions = _describe_inputs(program, inputs), _describe_outputs(program)
    spec = program.spec
    names = tuple(spec.names) if spec.task in {Task.MULTICLASS, Task.MULTILABEL} else ()
    with tempfile.TemporaryDirectory(prefix="losslab-") as folder:
        file = Path(folder) / "exported.pt2"
        content = {"inputs": descriptions[0], "outputs": descriptions[1], "class_names": list(names)}
        _trace(program, inputs, file, json.dumps(content, ensure_ascii=False))
        difference = _check_difference(file, inputs, expected)
        try:
            atomic.copy(file, path)
        except OSError as error:
            raise LabError(f"cannot write {path} ({error.strerror}): name another file with --output") from error
    return Export(path, *descriptions, names, len(inputs), difference)


def _examples(experiment: Experiment, split: str, *, raw: bool) -> tuple[Tensor, Tensor, DataMetadata]:
    """Examples as the program takes them, the model's outputs for them, and the metadata of the training data."""
    data, learner = experiment.data, experiment.learner.eval()
    data.prepare_data()
    data.setup()
    metadata = data.training_metadata or data.metadata
    source = data.splits[split]
    inputs = source.take(torch.arange(min(_CHECKED_EXAMPLES, source.size), device=source.device)).inputs.cpu()
    prepared = inputs if data.transform is None else data.transform(inputs)
    dtype = next((p.dtype for p in learner.network.parameters() if p.is_floating_point()), torch.float32)
    with torch.no_grad():
        outputs = learner(prepared.to(dtype))
        probabilities = learner.probabilities(outputs)
        expected = outputs if raw else learner.predictions(outputs) if probabilities is None else probabilities
        if not raw and learner.spec.task is Task.MULTICLASS:
            expected = expected / expected.sum(1, keepdim=True).clamp(min=torch.finfo(expected.dtype).tiny)
    if not torch.isfinite(expected).all():
        raise LabError(
            "the outputs of this run are NaN or infinite: it diverged, export another checkpoint with --ckpt"
        )
    if metadata.normalise is not None:
        prepared = inputs.permute(0, 3, 1, 2).contiguous()
    return prepared, expected, metadata


def _trace(program: Program, inputs: Tensor, file: Path, facts: str) -> None:
    batch = inputs if len(inputs) > 1 else torch.cat([inputs, inputs])  # torch would specialise a batch size of 1
    try:
        with torch.no_grad():
            traced = torch.export.export(
                program, (batch,), dynamic_shapes={"inputs": {0: torch.export.Dim("batch")}}, strict=False
            )
        torch.export.save(traced, file, extra_files={"losslab.json": facts})
    except Exception as error:
        reason = message_of(error, 200)  # torch.export raises many types
        raise LabError(
            f"torch.export cannot trace this network ({reason}): its forward must not branch on values or sizes"
        ) from error


def _check_difference(file: Path, inputs: Tensor, expected: Tensor) -> float:
    """Run the written program with several batch sizes → the largest difference from the expected outputs.

    Raises:
        LabError: the difference is larger than rounding.
    """
    loaded = torch.export.load(file).module()
    largest = 0.0
    with torch.no_grad():
        for size in sorted({1, min(7, len(inputs)), len(inputs)}):
            outputs = torch.cat([loaded(batch) for batch in inputs.split(size)])
            largest = max(largest, float((outputs.double() - expected.double()).abs().max()))
    scale = max(1.0, float(expected.abs().max()))
    tolerance = scale * (1e-9 if expected.dtype is torch.float64 else 1e-4)
    if not largest <= tolerance:
        raise LabError(f"the exported program differs from the model by up to {largest:.3g}: it is not written")
    return largest


def _describe_inputs(program: Program, inputs: Tensor) -> str:
    shape = ", ".join(str(size) for size in inputs.shape[1:])
    if program.scale is not None:
        return f"uint8 (N, {shape}): pixels from 0 to 255, channels first, any N; normalised inside"
    dtype = str(inputs.dtype).removeprefix("torch.")
    return f"{dtype} (N, {shape}): prepared as the training data were (standardised, ...), any N"


def _describe_outputs(program: Program) -> str:
    spec = program.spec
    if program.raw:
        return "the network's raw outputs"
    return {
        Task.MULTICLASS: f"probabilities (N, {spec.targets}), each row summing to 1",
        Task.BINARY: f"the probability (N, 1) of {spec.names[-1]}",
        Task.MULTILABEL: f"a probability for each of the labels (N, {spec.targets})",
        Task.REGRESSION: f"values (N, {spec.targets})",
    }[spec.task]

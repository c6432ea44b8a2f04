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
    """Normalises uint8 images, applies the network of a run, and, unless `raw`, converts its outputs to predictions."""

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, learner: Learner, metadata: DataMetadata, *, raw: bool = False) -> None:
        super().__init__()
        self.network, self.loss, self.spec, self.raw = learner.network, learner.loss, learner.spec, raw
        self.background = metadata.background
        self.dtype = next((p.dtype for p in self.network.parameters() if p.is_floating_point()), torch.float32)
        for name in ("scale", "shift"):
            normalise = metadata.normalise
            value = None if normalise is None else getattr(normalise, name).float().view(1, -1, 1, 1)
            self.register_buffer(name, value)
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute class probabilities (N, C) that sum to 1, label probabilities (N, K), or values (N, D).

        Inputs are uint8 pixels (N, channels, H, W) if training normalised images. Otherwise, they are tensors (N, ...)
        that are prepared as in training.
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
    """An exported program, with descriptions of its inputs and outputs."""

    path: Path
    inputs: str
    outputs: str
    names: tuple[str, ...]
    """Names of the classes or labels in the order of the outputs; empty for a single label and for values."""
    examples: int
    """Number of examples on which the program was compared with the model."""
    difference: float
    """Largest absolute difference between the outputs of the program and of the model."""


def export(request: EvaluationRequest, path: Path | None = None, *, raw: bool = False) -> Export:
    """Export the network of a run as a program for any batch size.

    Before the file is written, the outputs of the program are compared with those of the model, on examples of the
    requested split. The default path is RUN/exported.pt2. With `raw`, the program returns the outputs of the network
    instead of probabilities or values.

    Raises:
        LabError: the run cannot be opened, the file exists, a symbolic link on its path leaves the run folder, the
            network cannot be exported, or the outputs of the program differ from those of the model.
    """
    experiment = reopen(request)
    path = path or experiment.folder.exported
    experiment.folder.output(path.parent)
    if os.path.lexists(path):
        raise LabError(f"{path} already exists: name another file with --output, or remove it")
    data = experiment.data
    data.prepare_data()
    data.setup()
    program = Program(experiment.learner.eval(), data.training_metadata or data.metadata, raw=raw)
    inputs, expected = _examples(experiment, request.split, program)
    program = copy.deepcopy(program).to(memory_format=torch.contiguous_format)  # torch.export warns of other formats
    takes, returns = _describe(program, inputs)
    names = tuple(program.spec.names) if program.spec.task in {Task.MULTICLASS, Task.MULTILABEL} else ()
    with tempfile.TemporaryDirectory(prefix="losslab-") as folder:
        file = Path(folder) / "exported.pt2"
        content = {"inputs": takes, "outputs": returns, "class_names": list(names)}
        _trace(program, inputs, file, json.dumps(content, ensure_ascii=False))
        difference = _check_difference(file, inputs, expected)
        try:
            atomic.copy(file, path)
        except OSError as error:
            raise LabError(f"cannot write {path} ({error.strerror}): name another file with --output") from error
    return Export(path, takes, returns, names, len(inputs), difference)


def _examples(experiment: Experiment, split: str, program: Program) -> tuple[Tensor, Tensor]:
    """Return inputs for the program, and the outputs that the model computes for the same examples."""
    data, learner = experiment.data, experiment.learner
    source = data.splits[split]
    inputs = source.take(torch.arange(min(_CHECKED_EXAMPLES, source.size), device=source.device)).inputs.cpu()
    prepared = inputs if data.transform is None else data.transform(inputs)
    with torch.no_grad():
        outputs = learner(prepared.to(program.dtype))
        probabilities = learner.probabilities(outputs)
        if program.raw:
            expected = outputs
        elif probabilities is None:
            expected = learner.predictions(outputs)
        else:
            expected = normalise_rows(probabilities) if learner.spec.task is Task.MULTICLASS else probabilities
    if not torch.isfinite(expected).all():
        raise LabError("the outputs of this run are NaN or infinite: export another checkpoint with --ckpt")
    return prepared if program.scale is None else inputs.permute(0, 3, 1, 2).contiguous(), expected


def _trace(program: Program, inputs: Tensor, file: Path, facts: str) -> None:
    batch = inputs if len(inputs) > 1 else torch.cat([inputs, inputs])  # torch would specialise a batch size of 1
    shapes = {"inputs": {0: torch.export.Dim("batch")}}
    try:
        with torch.no_grad():
            traced = torch.export.export(program, (batch,), dynamic_shapes=shapes, strict=False)
        torch.export.save(traced, file, extra_files={"losslab.json": facts})
    except Exception as error:  # torch.export raises many types
        problem = f"torch.export cannot trace this network ({message_of(error, 200)})"
        raise LabError(f"{problem}: its forward must not branch on values or sizes") from error


def _check_difference(file: Path, inputs: Tensor, expected: Tensor) -> float:
    """Load the program, run it with several batch sizes, and return its largest difference from the expected outputs.

    Raises:
        LabError: the difference is too large for a rounding error.
    """
    loaded = torch.export.load(file).module()
    largest = 0.0
    with torch.no_grad():
        for size in sorted({1, min(7, len(inputs)), len(inputs)}):
            try:
                outputs = torch.cat([loaded(batch) for batch in inputs.split(size)])
            except Exception as error:
                problem = f"the exported program does not take {size} example{'s' * (size > 1)} at once"
                cause = "forward depends on the number of examples, as squeeze() without a dimension does"
                raise LabError(f"{problem} ({message_of(error, 200)}): {cause}") from error
            largest = max(largest, float((outputs.double() - expected.double()).abs().max()))
    scale = max(1.0, float(expected.abs().max()))
    tolerance = scale * (1e-9 if expected.dtype is torch.float64 else 1e-4)
    if not largest <= tolerance:
        raise LabError(f"the exported program differs from the model by up to {largest:.3g}: no file is written")
    return largest


def _describe(program: Program, inputs: Tensor) -> tuple[str, str]:
    """Return two descriptions: of the inputs of a program, and of its outputs."""
    spec, shape = program.spec, ", ".join(str(size) for size in inputs.shape[1:])
    dtype = str(inputs.dtype).removeprefix("torch.")
    takes = f"{dtype} (N, {shape}): prepared like the training data (standardised, ...), any N"
    if program.scale is not None:
        takes = f"uint8 (N, {shape}): pixels from 0 to 255, channels first, any N; the program normalises them"
    returns = {
        Task.MULTICLASS: f"probabilities (N, {spec.targets}), each row summing to 1",
        Task.BINARY: f"the probability (N, 1) of {spec.names[-1]}",
        Task.MULTILABEL: f"the probability of each label (N, {spec.targets})",
        Task.REGRESSION: f"values (N, {spec.targets})",
    }
    return takes, "the network's raw outputs" if program.raw else returns[spec.task]

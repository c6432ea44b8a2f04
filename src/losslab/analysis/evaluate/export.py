"""The network of a run as others want it: from pixels to probabilities, with nothing to prepare and nothing to know.

A run as a file that needs torch alone: a program of torch.export's, checked before it is handed out.
"""

import copy
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from losslab.analysis.evaluate.metrics import class_names
from losslab.data.metadata import DataMetadata
from losslab.errors import LabError
from losslab.io import atomic, untrusted
from losslab.models.learner import Learner
from losslab.models.metrics import normalise_rows
from losslab.targets import Task
from losslab.training.experiment import Experiment
from losslab.training.reopen import EvaluationRequest, open_run


class Program(nn.Module):
    """Preparation, network and the meaning of its outputs in one module, on whose inputs nobody can go wrong.

    Args:
        learner: a network and its loss, which says what the outputs mean.
        known: how images that are bytes are normalised.
        raw: give the network's own outputs instead of what they mean.
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(self, learner: Learner, known: DataMetadata, *, raw: bool = False) -> None:
        super().__init__()
        self.network, self.loss, self.facts, self.raw = learner.network, learner.loss, learner.facts, raw
        self.dtype = next((p.dtype for p in self.network.parameters() if p.is_floating_point()), torch.float32)
        normalise = known.normalise
        for name in ("scale", "shift"):
            value = None if normalise is None else getattr(normalise, name).float().view(1, -1, 1, 1)
            self.register_buffer(name, value)
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        """What each input is taken for.

        Args:
            inputs: of images, uint8 pixels (N, channels, H, W) where `known` normalises them; else what the network
                was trained on, (N, ...).

        Returns:
            Probabilities (N, C) that sum to 1, those of independent labels (N, K), or values (N, D).
        """
        if self.scale is not None and self.shift is not None:
            inputs = torch.addcmul(self.shift, inputs.float(), self.scale)
        outputs: Tensor = self.network(inputs.to(self.dtype))
        if self.raw:
            return outputs
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if self.facts.task is Task.REGRESSION:
            return self.loss.to_predictions(outputs)
        probabilities = self.loss.to_probabilities(outputs)
        return normalise_rows(probabilities) if self.facts.task is Task.MULTICLASS else probabilities.clamp(max=1)


EXAMPLES = 64
"""So many examples the program is checked on."""


@dataclass(frozen=True)
class Export:
    """What was exported."""

    path: Path
    inputs: str
    """What to feed it."""
    outputs: str
    """What comes out."""
    names: tuple[str, ...]
    """Of the classes or labels, in the order of the outputs."""
    examples: int
    difference: float
    """The largest between an output of the program and the model's."""


def export(look: EvaluationRequest, path: Path | None = None, *, raw: bool = False) -> Export:
    """Write the network of a run as a program for batches of any size, and hold it against the run's own.

    Args:
        look: which run, weights and data; examples of the split are what the program is checked on.
        path: of the file; None for RUN/exported.pt2.
        raw: have the program give the network's raw outputs instead of probabilities or values.

    Raises:
        LabError: the run cannot be opened, the file is there already or would be written where a link leads, the
            network cannot be exported, or the program does not answer as the model does.
    """
    experiment = open_run(look)
    path = path or experiment.folder.exported
    untrusted.check_output_path(path.parent, experiment.folder.path)
    if os.path.lexists(path):
        raise LabError(f"{path} is there already: name another file with --output, or remove it")
    inputs, expected, known = _examples(experiment, look.split, raw=raw)
    program = Program(experiment.learner, known, raw=raw)
    program = copy.deepcopy(program).to(memory_format=torch.contiguous_format)  # torch saves no other without a warning
    words = _words(program, inputs)
    with tempfile.TemporaryDirectory(prefix="losslab-") as folder:
        file = Path(folder) / "exported.pt2"
        facts = {"inputs": words[0], "outputs": words[1], "class_names": list(words[2])}
        _trace(program, inputs, file, json.dumps(facts, ensure_ascii=False))
        difference = _difference(file, inputs, expected)
        try:
            atomic.copy(file, path)
        except OSError as error:
            raise LabError(f"cannot write {path} ({error.strerror}): name another file with --output") from error
    return Export(path, *words, len(inputs), difference)


def _examples(experiment: Experiment, split: str, *, raw: bool) -> tuple[Tensor, Tensor, DataMetadata]:
    """Real inputs as the program takes them, and what the model answers by the way that evaluation goes."""
    data, learner = experiment.data, experiment.learner.eval()
    data.prepare_data()
    data.setup()
    known = data.training_metadata or data.metadata
    source = data.splits[split]
    taken = source.take(torch.arange(min(EXAMPLES, source.size), device=source.device)).inputs.cpu()
    prepared = taken if data.transform is None else data.transform(taken)
    weights = next((p.dtype for p in learner.network.parameters() if p.is_floating_point()), torch.float32)
    with torch.no_grad():
        outputs = learner(prepared.to(weights))
        probabilities = learner.probabilities(outputs)
        expected = outputs if raw else learner.predictions(outputs) if probabilities is None else probabilities
        if not raw and learner.facts.task is Task.MULTICLASS:
            expected = expected / expected.sum(1, keepdim=True).clamp(min=torch.finfo(expected.dtype).tiny)
    if not torch.isfinite(expected).all():
        raise LabError(
            "the outputs of this run are NaN or infinite: it diverged, export another checkpoint with --ckpt"
        )
    return taken.permute(0, 3, 1, 2).contiguous() if known.normalise is not None else prepared, expected, known


def _trace(program: Program, inputs: Tensor, file: Path, facts: str) -> None:
    several = inputs if len(inputs) > 1 else torch.cat([inputs, inputs])  # of one, torch would take 1 for a constant
    try:
        with torch.no_grad():
            traced = torch.export.export(
                program, (several,), dynamic_shapes={"inputs": {0: torch.export.Dim("batch")}}, strict=False
            )
        torch.export.save(traced, file, extra_files={"losslab.json": facts})
    except Exception as error:
        # torch.export raises whatever stopped it; its first line says what.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise LabError(
            f"torch.export cannot trace this network ({reason}): its forward must not branch on values or sizes"
        ) from error


def _difference(file: Path, inputs: Tensor, expected: Tensor) -> float:
    """The largest difference of what the file holds, in batches of several sizes.

    Raises:
        LabError: it is more than arithmetic accounts for.
    """
    loaded = torch.export.load(file).module()
    largest = 0.0
    with torch.no_grad():
        for size in sorted({1, min(7, len(inputs)), len(inputs)}):
            found = torch.cat([loaded(part) for part in inputs.split(size)])
            largest = max(largest, float((found.double() - expected.double()).abs().max()))
    scale = max(1.0, float(expected.abs().max()))
    allowed = scale * (1e-9 if expected.dtype is torch.float64 else 1e-4)
    if not largest <= allowed:
        raise LabError(f"the exported program differs from the model by up to {largest:.3g}: it is not written")
    return largest


def _words(program: Program, inputs: Tensor) -> tuple[str, str, tuple[str, ...]]:
    facts = program.facts
    shape = ", ".join(str(size) for size in inputs.shape[1:])
    if program.scale is not None:
        taken = f"uint8 (N, {shape}): pixels from 0 to 255, channels first, any N; normalised inside"
    else:
        kind = str(inputs.dtype).removeprefix("torch.")
        taken = f"{kind} (N, {shape}): prepared as the training data were (standardised, ...), any N"
    names = tuple(class_names(facts)) if facts.task in {Task.MULTICLASS, Task.MULTILABEL} else ()
    if program.raw:
        return taken, "the network's raw outputs", names
    given = {
        Task.MULTICLASS: f"probabilities (N, {facts.targets}), each row summing to 1",
        Task.BINARY: f"the probability (N, 1) of {class_names(facts)[-1]}",
        Task.MULTILABEL: f"a probability for each of the labels (N, {facts.targets})",
        Task.REGRESSION: f"values (N, {facts.targets})",
    }
    return taken, given[facts.task], names

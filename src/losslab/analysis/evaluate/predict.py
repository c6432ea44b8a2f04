"""Image files in, classes out: a run is used without the data that it was trained on."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich import get_console
from rich.progress import track
from torch import Tensor

from losslab.analysis.evaluate.export import Program
from losslab.analysis.evaluate.metrics import class_names
from losslab.data.image_files import allow_large_images, decode
from losslab.data.image_folder import find_images
from losslab.data.machine import cores
from losslab.errors import LabError
from losslab.targets import Task
from losslab.training.reopen import reopen_network

_BATCH = 64


@dataclass(frozen=True)
class Classifier:
    """A network that takes image files."""

    program: Callable[[Tensor], Tensor]
    names: tuple[str, ...]
    side: int
    device: torch.device


def classifier(run: Path, checkpoint: str = "best") -> Classifier:
    """Open a run to classify images.

    Raises:
        LabError: it cannot be opened, or does not classify images.
    """
    learner, known = reopen_network(run, checkpoint)
    facts = known.facts
    if len(facts.input_shape) != 3 or facts.task is Task.REGRESSION:
        shape = "×".join(str(size) for size in facts.input_shape)
        raise LabError(f"{run} learnt {facts.task} on inputs of {shape}: predict takes runs that classify images")
    channels, height, width = facts.input_shape
    if known.normalise is None or channels != 3 or height != width:
        how = known.foreign_transform or f"taken as they are, {channels} channels of {height}×{width}"
        raise LabError(
            f"{run} learnt from images prepared otherwise than files can be here ({how}): use Python instead"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Classifier(Program(learner, known).to(device), tuple(class_names(facts)), height, device)


def files(given: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The image files that are meant, those of folders in the order of their names; and what is wrong with the rest."""
    found: list[Path] = []
    wrong: list[str] = []
    for path in given:
        if path.is_dir():
            inside = sorted(find_images(path))
            found += [path / name for name in inside]
            wrong += [] if inside else [f"no images in {path}"]
        elif path.is_file():
            found.append(path)
        else:
            wrong.append(f"no image at {path}")
    return found, wrong


def classify(with_: Classifier, paths: Sequence[Path]) -> Iterator[tuple[Path, Tensor | str]]:
    """Each file with the probabilities of its classes (C,), or with what is wrong with it, in order.

    Raises:
        LabError: probabilities are NaN or infinite.
    """
    hidden = not get_console().is_terminal
    starts = track(range(0, len(paths), _BATCH), "classifying", transient=True, disable=hidden)
    with allow_large_images(), ThreadPoolExecutor(cores()) as threads:
        for start in starts:
            some = paths[start : start + _BATCH]
            decoded = list(threads.map(partial(_decoded, side=with_.side), some))
            images = [image for image in decoded if isinstance(image, Tensor)]
            answers = iter(_probabilities(with_, torch.stack(images)) if images else ())
            for path, image in zip(some, decoded, strict=True):
                yield path, image if isinstance(image, str) else _finite(path, next(answers))


def _finite(path: Path, probabilities: Tensor) -> Tensor:
    if not torch.isfinite(probabilities).all():
        raise LabError(
            f"the probabilities for {path} are NaN or infinite: the run diverged, name other weights with --ckpt"
        )
    return probabilities


def _decoded(path: Path, side: int) -> Tensor | str:
    try:
        return decode(path, side)
    except LabError as error:
        return str(error)


def _probabilities(with_: Classifier, images: Tensor) -> Tensor:
    """Of images (N, side, side, 3), bytes → (N, C) on the CPU; a single label becomes two classes."""
    pixels = images.to(with_.device).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = with_.program(pixels).double().cpu()
    return torch.cat([1 - found, found], dim=1) if found.shape[1] == 1 else found

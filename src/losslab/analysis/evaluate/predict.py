"""Classification of image files with a finished run, without its data set."""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch
from rich import get_console
from rich.progress import track
from torch import Tensor

from losslab.analysis.evaluate.export import Program
from losslab.data.image_files import Decoded, decode, describe_passed_over, find_images, suppress_warnings
from losslab.data.machine import cores
from losslab.errors import LabError
from losslab.runs import RunFolder
from losslab.targets import Task
from losslab.training.reopen import reopen_network

_BATCH_SIZE = 64

logger = logging.getLogger(__name__)


def load_classifier(run: RunFolder | Path, checkpoint: str = "best") -> Program:
    """Load the network of a run as a program that converts uint8 pixels (N, 3, side, side) to class probabilities.

    Raises:
        LabError: the run cannot be opened, or does not classify square RGB images.
    """
    run = run if isinstance(run, RunFolder) else RunFolder(run)
    learner, metadata = reopen_network(run, checkpoint)
    spec = metadata.spec
    if len(spec.input_shape) != 3 or spec.task is Task.REGRESSION:
        shape = "×".join(str(size) for size in spec.input_shape)
        problem = f"{run.path} was trained for {spec.task} on inputs of shape {shape}"
        raise LabError(f"{problem}: losslab predict needs a run that classifies images")
    channels, height, width = spec.input_shape
    if metadata.normalise is None or channels != 3 or height != width:
        how = metadata.foreign_transform or f"not normalised, {channels} channels of {height}×{width}"
        problem = f"{run.path} was trained on images that losslab predict cannot prepare ({how})"
        raise LabError(f"{problem}: prepare images and load the network in Python")
    return Program(learner, metadata).to("cuda" if torch.cuda.is_available() else "cpu")


def find_files(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Return the image files (those in a folder sorted by name), and an error message for each path without images.

    Files in a folder that are no images are counted in a warning.
    """
    files: list[Path] = []
    errors: list[str] = []
    for path in paths:
        if path.is_dir():
            inside, passed_over = find_images(path)
            files += [path / name for name in inside]
            if not inside:
                errors.append(f"no images in {path}{describe_passed_over(passed_over, ' (passed over: {})')}")
            elif description := describe_passed_over(passed_over):
                logger.warning("%s: passed over %s", path, description)
        elif path.is_file():
            files.append(path)
        else:
            errors.append(f"no image at {path}")
    return files, errors


def classify(classifier: Program, paths: Sequence[Path]) -> Iterator[tuple[Path, Tensor | str]]:
    """Yield each file with its class probabilities (C,), or with an error message if it cannot be read.

    Raises:
        LabError: probabilities are NaN or infinite.
    """
    hidden, transparent = not get_console().is_terminal, 0
    decode_file = partial(_decode, side=classifier.spec.input_shape[1], background=classifier.background)
    starts = track(range(0, len(paths), _BATCH_SIZE), "classifying", transient=True, disable=hidden)
    with suppress_warnings(), ThreadPoolExecutor(cores()) as threads:
        for start in starts:
            batch = paths[start : start + _BATCH_SIZE]
            decoded = list(threads.map(decode_file, batch))
            images = [image.pixels for image in decoded if isinstance(image, Decoded)]
            transparent += sum(isinstance(image, Decoded) and image.transparent for image in decoded)
            probabilities = iter(_probabilities(classifier, torch.stack(images)) if images else ())
            for path, image in zip(batch, decoded, strict=True):
                result = image if isinstance(image, str) else next(probabilities)
                if isinstance(result, Tensor) and not torch.isfinite(result).all():
                    problem = f"the probabilities for {path} are NaN or infinite"
                    raise LabError(f"{problem}: the run diverged, choose another checkpoint with --ckpt")
                yield path, result
    if transparent and classifier.background is None:
        of = f"{transparent:,} of {len(paths):,} images have transparent parts"
        logger.warning("%s; the network gets their hidden colours, as in training", of)


def _decode(path: Path, side: int, background: tuple[int, int, int] | None) -> Decoded | str:
    try:
        return decode(path, side, background)
    except LabError as error:
        return str(error)


def _probabilities(classifier: Program, images: Tensor) -> Tensor:
    """Return the class probabilities (N, C) of uint8 images (N, side, side, 3), on the CPU; C is 2 in a binary task."""
    pixels = images.to(next(classifier.parameters()).device).permute(0, 3, 1, 2)
    with torch.inference_mode():
        probabilities = classifier(pixels).double().cpu()
    return torch.cat([1 - probabilities, probabilities], dim=1) if probabilities.shape[1] == 1 else probabilities

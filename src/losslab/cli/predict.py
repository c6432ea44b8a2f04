"""`losslab predict`: classify image files with a finished run."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from losslab.cli.options import run_parser, start_command
from losslab.cli.process import imports_without_gc, leave, one_line_errors
from losslab.errors import LabError
from losslab.io.tables import write_csv
from losslab.runs import RunFolder

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger("losslab")


def predict(arguments: Sequence[str] | None = None) -> None:
    """Classify image files, without the data set."""
    options = _parser().parse_args(arguments)
    start_command(trusted=options.trust)
    unreadable: list[str] = []
    with one_line_errors(show_all=False):
        if options.csv is not None and os.path.lexists(options.csv):
            raise LabError(f"{options.csv} exists already: name another file, or remove it")
        unreadable = _predict(options)
    for line in unreadable:
        logger.error("%s", line)
    leave(1 if unreadable else 0)


def _parser() -> argparse.ArgumentParser:
    parser = run_parser(
        "Classify image files. They are resized and normalised as in training; the data set is not needed. Unreadable "
        "files are reported, the others are classified, and the exit code is 1."
    )
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="an image file, or a folder of them")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="how many classes to show (default: 3)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the results to this file")
    return parser


def _predict(options: argparse.Namespace) -> list[str]:
    """Classify the images, and return a message for each file that cannot be read."""
    with imports_without_gc():
        from losslab.analysis.evaluate import predict  # noqa: PLC0415
    if options.top < 1:
        raise LabError(f"--top must be 1 or more, got {options.top}")
    classifier = predict.load_classifier(RunFolder(options.run_folder, tuple(options.trust)), options.ckpt)
    paths, unreadable = predict.find_files(options.images)
    best = min(options.top, len(classifier.spec.names))
    header = ["image", *(f"{name}_{rank}" for rank in range(1, best + 1) for name in ("class", "probability"))]
    rows: list[list[str]] = []
    width = max((len(str(path)) for path in paths), default=0)
    for path, answer in predict.classify(classifier, paths):
        if isinstance(answer, str):
            unreadable.append(answer)
            continue
        top = _top(answer, classifier.spec.names, best)
        logger.info("%-*s  %s", width, path, "  ".join(f"{name} {probability:.4f}" for name, probability in top))
        rows.append([str(path), *(cell for name, value in top for cell in (name, f"{value:.7g}"))])
    if options.csv is not None and rows:
        write_csv(options.csv, header, rows)
    sys.stdout.flush()
    return unreadable


def _top(probabilities: "Tensor", names: Sequence[str], count: int) -> list[tuple[str, float]]:
    values, indices = probabilities.topk(count)
    return [(names[index], value) for index, value in zip(indices.tolist(), values.tolist(), strict=True)]

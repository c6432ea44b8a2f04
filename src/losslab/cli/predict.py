"""`losslab predict`: classify image files with a finished run."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from losslab.cli.process import fast_imports, run_parser, run_verb
from losslab.errors import LabError
from losslab.io.tables import write_csv
from losslab.runs import RunFolder

logger = logging.getLogger("losslab")


def predict(arguments: Sequence[str] | None = None) -> None:
    """Classify image files. The data set is not needed."""
    parser = run_parser(
        "Classify image files. They are resized and normalised as in training; the data set is not needed. Unreadable "
        "files are reported, the others are classified, and the exit code is 1."
    )
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="an image file, or a folder of them")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="how many classes to show (default: 3)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the results to this file")
    options = parser.parse_args(arguments)
    run_verb(_predict, options)


def _predict(options: argparse.Namespace) -> int:
    """Classify the images, and return the exit code: 1 if a file cannot be read."""
    if options.csv is not None and os.path.lexists(options.csv):
        raise LabError(f"{options.csv} exists already: name another file, or remove it")
    with fast_imports():
        from losslab.analysis.evaluate import predict  # noqa: PLC0415
    if options.top < 1:
        raise LabError(f"--top must be 1 or more, got {options.top}")
    classifier = predict.load_classifier(RunFolder(options.run_folder, tuple(options.trust)), options.ckpt)
    paths, unreadable = predict.find_files(options.images)
    shown = min(options.top, len(classifier.spec.names))
    header = ["image", *(f"{name}_{rank}" for rank in range(1, shown + 1) for name in ("class", "probability"))]
    rows: list[list[str]] = []
    width = max((len(str(path)) for path in paths), default=0)
    for path, probabilities_or_error in predict.classify(classifier, paths):
        if isinstance(probabilities_or_error, str):
            unreadable.append(probabilities_or_error)
            continue
        values, indices = probabilities_or_error.topk(shown)
        names = [classifier.spec.names[index] for index in indices.tolist()]
        top = list(zip(names, values.tolist(), strict=True))
        logger.info("%-*s  %s", width, path, "  ".join(f"{name} {probability:.4f}" for name, probability in top))
        rows.append([str(path), *(cell for name, value in top for cell in (name, f"{value:.7g}"))])
    if options.csv is not None and rows:
        write_csv(options.csv, header, rows)
    sys.stdout.flush()
    for line in unreadable:
        logger.error("%s", line)
    return 1 if unreadable else 0
